//! HTTP filters: what happens to a request before the router, and to a response after it.

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

/// A filter of a chain, in the order of the configuration. Each has a file of its own.
#[derive(Debug)]
pub(crate) enum HttpFilter {
    /// `envoy.filters.http.fault`, with what holds where no route says otherwise.
    Fault(Option<Arc<Fault>>),
    /// `envoy.filters.http.cors`, configured by routes alone.
    Cors,
    /// `envoy.filters.http.set_filter_state` for `envoy.network.application_protocols`: protocols offered to hosts
    /// instead of the cluster's.
    UpstreamAlpn(Arc<[Vec<u8>]>),
    /// `envoy.filters.http.grpc_stats`: calls and their messages are counted.
    GrpcStats(ByMethod),
    /// `envoy.filters.http.grpc_web`.
    GrpcWeb,
    /// `envoy.filters.http.local_ratelimit`, with what holds where no route says otherwise.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.filters.http.health_check`.
    HealthCheck(HealthCheck),
    /// `envoy.filters.http.buffer`, with what holds where no route says otherwise.
    Buffer(BufferLimit),
}

/// What virtual hosts, routes and shares say to filters (`typed_per_filter_config`), with what they inherit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// To the fault filter.
    pub(crate) fault: Option<Arc<Fault>>,
    /// To the CORS filter.
    pub(crate) cors: Option<Arc<CorsPolicy>>,
    /// To the local rate limit.
    pub(crate) rate_limit: Option<Arc<LocalRateLimit>>,
    /// To the buffer: another limit, or none.
    pub(crate) buffer: Option<Arc<Option<BufferLimit>>>,
}

impl HttpFilter {
    /// Looks at a request. Returns what to answer instead of sending it on.
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
                // What gRPC-Web has made gRPC of is some, too.
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

    /// Looks at a response.
    pub(crate) fn response(&self, exchange: &mut Exchange, response: &mut http::response::Parts) {
        match self {
            HttpFilter::Cors => {
                if let Some(policy) = exchange.said(|overrides| overrides.cors.as_ref()) {
                    policy.response(exchange, response);
                }
            }
            HttpFilter::HealthCheck(check) => check.response(exchange, response),
            // What gRPC-Web makes of a response it makes of its body, too, before all others see it. What is counted of
            // it was seen before that.
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
    /// The same within what a wider level says: the nearest level that says something to a filter holds, but for CORS,
    /// of which Envoy takes every setting from the nearest level that has it.
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
    /// What the share that the request falls to says to a filter, or else its route or its virtual host.
    fn said<T>(&self, of: impl Fn(&Overrides) -> Option<&Arc<T>>) -> Option<Arc<T>> {
        let matched = self.matched.as_ref()?;
        of(matched.route.overrides(self.random)).cloned()
    }
}
