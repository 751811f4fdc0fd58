//! The upstream side: clusters and their hosts, load balancing, outlier detection, health checks, circuit breakers,
//! connections and connection pools.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod health_check;
pub(crate) mod host;
mod host_set;
mod original_dst;
pub(crate) mod pool;
pub(crate) mod proxy_protocol;
