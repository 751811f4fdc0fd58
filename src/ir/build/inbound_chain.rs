//! Filter chains of inbound listeners by mutual TLS mode and protocol.

use std::sync::Arc;

use super::naming;
use super::route::anything;
use crate::ir::listener::{
    ChainMatch, DownstreamTls, FilterChain, HttpConnectionManager, HttpFilter, HttpRole, NetworkFilter, RouteSource,
    TransportProtocol,
};
use crate::ir::route::{Forward, Route, RouteAction, RouteConfig, VirtualHost, WeightedCluster};
use crate::ir::{Origins, ResourceName};
use crate::mesh::config::MeshConfig;
use crate::mesh::peer_authentication::MutualTlsMode;
use crate::mesh::service::Protocol;
use crate::mesh::virtual_service::{HeaderOps, RetryPolicy};

use super::chain::{PLAINTEXT_HTTP, to_cluster};

/// ALPN offered by Istio clients for HTTP.
const MUTUAL_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// ALPN offered by Istio clients for other protocols.
const MUTUAL_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

/// ALPN offered by Istio clients for any protocol.
const MUTUAL: [&str; 5] = [
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
    "istio-peer-exchange",
    "istio",
];

/// ALPN protocols accepted. For TCP, Istio's proxy prepends `istio-peer-exchange`, which needs a
/// filter that stock Envoy lacks.
const ACCEPTED: [&str; 2] = ["h2", "http/1.1"];

/// Inputs of the chains for one port of the workload, or for all ports without a service.
pub(super) struct InboundChains<'a> {
    /// Mesh configuration.
    pub(super) config: &'a MeshConfig,
    /// Names of its HTTP chains and of the others.
    pub(super) names: (Arc<str>, Arc<str>),
    /// Destination port to match, in a listener for several ports.
    pub(super) destination_port: Option<u16>,
    /// The `stat_prefix`, such as `0.0.0.0_9080`.
    pub(super) listener: Arc<str>,
    /// The cluster.
    pub(super) cluster: ResourceName,
    /// Service port, for names.
    pub(super) service_port: u16,
    /// Service host, for names; may be empty.
    pub(super) host: Arc<str>,
    /// The protocol.
    pub(super) protocol: Protocol,
    /// The objects it is built from.
    pub(super) origins: Origins,
}

/// How a chain handles connections.
#[derive(Clone, Copy)]
enum Serve {
    /// HTTP.
    Http,
    /// TCP.
    Bytes,
}

/// A row of the table: ALPN, transport, whether mutual TLS is terminated, handling.
type Row<'a> = (&'a [&'static str], Option<TransportProtocol>, bool, Serve);

impl InboundChains<'_> {
    /// The chains (Istio's `getTLSFilterChainMatchOptions` and their plaintext counterparts).
    pub(super) fn chains(&self, mode: MutualTlsMode) -> Vec<FilterChain> {
        self.rows(mode).into_iter().map(|row| self.chain(row)).collect()
    }

    fn rows(&self, mode: MutualTlsMode) -> Vec<Row<'static>> {
        use Serve::{Bytes, Http};
        const RAW: Option<TransportProtocol> = Some(TransportProtocol::RawBuffer);
        const TLS: Option<TransportProtocol> = Some(TransportProtocol::Tls);
        let auto = self.protocol == Protocol::Auto;
        // With a destination port of its own the TLS inspector is disabled, so every connection is
        // `raw_buffer`; the chain for all other ports must match TLS too.
        let opaque = if self.destination_port.is_some() { RAW } else { None };
        match (mode, self.protocol.is_http(), auto) {
            (MutualTlsMode::Permissive, true, _) => vec![(&MUTUAL, TLS, true, Http), (&[], RAW, false, Http)],
            (MutualTlsMode::Permissive, false, false) => vec![
                (&MUTUAL, TLS, true, Bytes),
                (&[], TLS, false, Bytes),
                (&[], RAW, false, Bytes),
            ],
            (MutualTlsMode::Permissive, false, true) => vec![
                (&MUTUAL_HTTP, TLS, true, Http),
                (&PLAINTEXT_HTTP, RAW, false, Http),
                (&MUTUAL_TCP, TLS, true, Bytes),
                (&[], RAW, false, Bytes),
                (&[], TLS, false, Bytes),
            ],
            (MutualTlsMode::Strict, true, _) => vec![(&[], TLS, true, Http)],
            (MutualTlsMode::Strict, false, false) => vec![(&[], TLS, true, Bytes)],
            (MutualTlsMode::Strict, false, true) => vec![(&MUTUAL_HTTP, TLS, true, Http), (&[], TLS, true, Bytes)],
            (MutualTlsMode::Disable, true, _) => vec![(&[], RAW, false, Http)],
            (MutualTlsMode::Disable, false, false) => vec![(&[], opaque, false, Bytes)],
            (MutualTlsMode::Disable, false, true) => {
                vec![(&PLAINTEXT_HTTP, RAW, false, Http), (&[], opaque, false, Bytes)]
            }
        }
    }

    fn chain(&self, (protocols, transport, terminates, serve): Row<'_>) -> FilterChain {
        let (name, network) = match serve {
            Serve::Http => (&self.names.0, NetworkFilter::Http(Box::new(self.manager()))),
            Serve::Bytes => (&self.names.1, NetworkFilter::Tcp(to_cluster(&self.cluster))),
        };
        FilterChain {
            name: Some(name.clone()),
            matcher: ChainMatch {
                destination_port: self.destination_port,
                transport,
                application_protocols: protocols.to_vec(),
                ..ChainMatch::default()
            },
            tls: terminates.then(|| self.mutual_tls()),
            network,
        }
    }

    fn mutual_tls(&self) -> DownstreamTls {
        let aliases = self.config.trust_domain_aliases.iter();
        DownstreamTls {
            trust_domains: std::iter::once(&self.config.trust_domain)
                .chain(aliases)
                .cloned()
                .collect(),
            alpn: ACCEPTED.to_vec(),
            oldest: self.config.oldest_tls,
        }
    }

    fn manager(&self) -> HttpConnectionManager {
        let web = (self.protocol == Protocol::GrpcWeb).then_some(HttpFilter::GrpcWeb);
        let rest = [HttpFilter::GrpcStats, HttpFilter::Fault, HttpFilter::Cors];
        HttpConnectionManager {
            stat_prefix: format!("inbound_{};", self.listener).into(),
            routes: RouteSource::Inline(Arc::new(self.routes())),
            filters: web.into_iter().chain(rest).collect(),
            role: HttpRole::Server,
            path_normalization: self.config.path_normalization,
        }
    }

    fn routes(&self) -> RouteConfig {
        let host = VirtualHost {
            name: format!("inbound|http|{}", self.service_port).into(),
            domains: vec!["*".into()],
            routes: vec![self.route()],
            attempt_count: false,
            origins: self.origins.clone(),
        };
        RouteConfig {
            name: self.cluster.clone(),
            virtual_hosts: vec![Arc::new(host)],
            ignore_port: false,
            origins: self.origins.clone(),
        }
    }

    fn route(&self) -> Route {
        let grpc = matches!(self.protocol, Protocol::Grpc | Protocol::GrpcWeb);
        let forward = Forward {
            clusters: vec![WeightedCluster {
                cluster: self.cluster.clone(),
                weight: 1,
                request_headers: HeaderOps::default(),
                response_headers: HeaderOps::default(),
                host_rewrite: None,
            }],
            path_rewrite: None,
            host_rewrite: None,
            timeout: None,
            retry: (!grpc).then(inbound_retry),
            retry_other_hosts: false,
            mirrors: Vec::new(),
            hash: None,
        };
        Route {
            name: "default".into(),
            operation: format!("{}/*", naming::host_port(&self.host, self.service_port)).into(),
            ..anything(RouteAction::Forward(Box::new(forward)))
        }
    }
}

/// Istio's retry policy for inbound routes: retries only requests the application has not received.
fn inbound_retry() -> RetryPolicy {
    RetryPolicy {
        attempts: 2,
        per_try_timeout: None,
        retry_on: vec!["reset-before-request".into()],
        status_codes: Vec::new(),
        remote_localities: false,
        ignore_previous_hosts: None,
        backoff: None,
    }
}
