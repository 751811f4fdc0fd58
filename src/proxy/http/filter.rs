//! HTTP filters: what happens to a request before the router, and to a response after it.

pub(crate) mod cors;
pub(crate) mod fault;

use std::sync::Arc;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use cors::CorsPolicy;
use fault::Fault;

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
    /// `envoy.filters.http.grpc_stats`: the status of gRPC calls is counted.
    GrpcStats,
}

/// What virtual hosts, routes and shares say to filters (`typed_per_filter_config`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// To the fault filter.
    pub(crate) fault: Option<Arc<Fault>>,
    /// To the CORS filter.
    pub(crate) cors: Option<Arc<CorsPolicy>>,
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
            HttpFilter::GrpcStats => None,
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
            HttpFilter::Fault(_) | HttpFilter::UpstreamAlpn(_) | HttpFilter::GrpcStats => {}
        }
    }
}

impl Exchange {
    /// What the route says to a filter, or else its virtual host.
    fn said<T>(&self, of: impl Fn(&Overrides) -> Option<&Arc<T>>) -> Option<Arc<T>> {
        let matched = self.matched.as_ref()?;
        of(&matched.route.overrides)
            .or_else(|| of(&matched.host.overrides))
            .cloned()
    }
}
