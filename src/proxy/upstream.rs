//! Towards the endpoints: clusters, the choice of a host, connections and their pools.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod host;
mod host_set;
mod original_dst;
pub(crate) mod pool;
pub(crate) mod proxy_protocol;
