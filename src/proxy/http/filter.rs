//! HTTP filters: what may change or answer a request before the router, and change the response after it.
//!
//! [`HttpFilter`] has a variant for each filter and dispatches to its file; the order in
//! [`super::HttpManager::filters`] is the order of the configuration, reversed for responses.

pub(crate) mod buffer;
pub(crate) mod cors;
pub(crate) mod fault;
pub(crate) mod grpc_stats;
pub(crate) mod grpc_web;
pub(crate) mod health_check;
pub(crate) mod local_rate_limit;

use std::sync::Arc;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use buffer::BufferLimit;
use cors::CorsPolicy;
use fault::Fault;
use grpc_stats::ByMethod;
use health_check::HealthCheck;
use local_rate_limit::LocalRateLimit;

/// An HTTP filter of a chain.
#[derive(Debug)]
pub(crate) enum HttpFilter {
    /// `envoy.filters.http.fault`, with the configuration for routes without one.
    Fault(Option<Arc<Fault>>),
    /// `envoy.filters.http.cors`, configured by routes alone.
    Cors,
    /// `envoy.filters.http.set_filter_state` for `envoy.network.application_protocols`: ALPN protocols offered to hosts
    /// instead of the cluster's.
    UpstreamAlpn(Arc<[Vec<u8>]>),
    /// `envoy.filters.http.grpc_stats`: counts gRPC calls and messages.
    GrpcStats(ByMethod),
    /// `envoy.filters.http.grpc_web`.
    GrpcWeb,
    /// `envoy.filters.http.local_ratelimit`, with the configuration for routes without one.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.filters.http.health_check`.
    HealthCheck(HealthCheck),
    /// `envoy.filters.http.buffer`, with the configuration for routes without one.
    Buffer(BufferLimit),
}

/// Filter configuration of a virtual host, route or weighted cluster (`typed_per_filter_config`), merged with that of
/// wider levels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// Of the fault filter.
    pub(crate) fault: Option<Arc<Fault>>,
    /// Of the CORS filter.
    pub(crate) cors: Option<Arc<CorsPolicy>>,
    /// Of the local rate limit filter.
    pub(crate) rate_limit: Option<Arc<LocalRateLimit>>,
    /// Of the buffer filter; `None` inside: disabled.
    pub(crate) buffer: Option<Arc<Option<BufferLimit>>>,
}

impl HttpFilter {
    /// Processes request headers. Returns the local reply if the filter answers itself.
    pub(crate) async fn request(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        match self {
            HttpFilter::Fault(fault) => {
                let fault = exchange
                    .said(|overrides| overrides.fault.as_ref())
                    .or_else(|| fault.clone())?;
                fault.inject(exchange).await
            }
            HttpFilter::Cors => exchange.said(|overrides| overrides.cors.as_ref())?.request(exchange),
            HttpFilter::UpstreamAlpn(protocols) => {
                exchange.upstream_alpn = Some(protocols.clone());
                None
            }
            HttpFilter::GrpcStats(methods) => {
                // Requests that gRPC-Web has turned into gRPC count, too.
                if exchange.speaks_grpc() {
                    methods.request(exchange);
                }
                None
            }
            HttpFilter::GrpcWeb => {
                grpc_web::request(exchange);
                None
            }
            HttpFilter::LocalRateLimit(limit) => match exchange.said(|overrides| overrides.rate_limit.as_ref()) {
                Some(limit) => limit.request(exchange),
                None => limit.request(exchange),
            },
            HttpFilter::HealthCheck(check) => check.request(exchange),
            HttpFilter::Buffer(limit) => match exchange.said(|overrides| overrides.buffer.as_ref()) {
                Some(said) => match *said {
                    Some(limit) => limit.request(exchange).await,
                    None => None,
                },
                None => limit.request(exchange).await,
            },
        }
    }

    /// Processes response headers.
    pub(crate) fn response(&self, exchange: &mut Exchange, response: &mut http::response::Parts) {
        match self {
            HttpFilter::Cors => {
                if let Some(policy) = exchange.said(|overrides| overrides.cors.as_ref()) {
                    policy.response(exchange, response);
                }
            }
            HttpFilter::HealthCheck(check) => check.response(exchange, response),
            // The gRPC-Web encoder is applied to headers and body together, before any filter sees the response and
            // after `grpc_stats` has counted it.
            HttpFilter::GrpcWeb
            | HttpFilter::Fault(_)
            | HttpFilter::UpstreamAlpn(_)
            | HttpFilter::GrpcStats(_)
            | HttpFilter::LocalRateLimit(_)
            | HttpFilter::Buffer(_) => {}
        }
    }
}

impl Overrides {
    /// Merges this with a wider level. The most specific configuration of a filter applies as a whole, but for CORS,
    /// whose settings Envoy merges one by one.
    pub(crate) fn within(self, wider: &Self) -> Self {
        let cors = match (self.cors, &wider.cors) {
            (Some(near), Some(wider)) => Some(Arc::new(near.within(wider))),
            (near, wider) => near.or_else(|| wider.clone()),
        };
        Self {
            fault: self.fault.or_else(|| wider.fault.clone()),
            cors,
            rate_limit: self.rate_limit.or_else(|| wider.rate_limit.clone()),
            buffer: self.buffer.or_else(|| wider.buffer.clone()),
        }
    }
}

impl Exchange {
    /// A filter's configuration on the weighted cluster, or else on the route or its virtual host.
    fn said<T>(&self, of: impl Fn(&Overrides) -> Option<&Arc<T>>) -> Option<Arc<T>> {
        let matched = self.matched.as_ref()?;
        of(matched.route.overrides(self.random)).cloned()
    }
}
