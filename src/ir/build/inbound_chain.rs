//! Filter chains of inbound listeners: which connections are taken, by mutual TLS mode and protocol.

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

/// What Istio's clients offer for HTTP.
const MUTUAL_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// What Istio's clients offer for other traffic.
const MUTUAL_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

/// What Istio's clients offer for anything.
const MUTUAL: [&str; 5] = [
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
    "istio-peer-exchange",
    "istio",
];

/// What the server accepts in turn. Istio's proxy has `istio-peer-exchange` before these for TCP, which needs a
/// filter that stock Envoy does not have.
const ACCEPTED: [&str; 2] = ["h2", "http/1.1"];

/// A port of the workload, or all without a name.
pub(super) struct Door<'a> {
    /// The mesh's settings.
    pub(super) config: &'a MeshConfig,
    /// Names of its chains for HTTP and for the rest.
    pub(super) names: (Arc<str>, Arc<str>),
    /// The port connections are for, where the listener has several.
    pub(super) destination_port: Option<u16>,
    /// What `stat_prefix` says of it: `0.0.0.0_9080`.
    pub(super) listener: Arc<str>,
    /// The cluster behind it.
    pub(super) cluster: ResourceName,
    /// The number of the service port, for names.
    pub(super) service_port: u16,
    /// The service's host, for names; may be empty.
    pub(super) host: Arc<str>,
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// Objects it is made from.
    pub(super) origins: Origins,
}

/// What a chain does with its connections.
#[derive(Clone, Copy)]
enum Serve {
    /// HTTP.
    Http,
    /// Bytes.
    Bytes,
}

/// A row of the table: ALPN, transport, whether mutual TLS ends here, and what then.
type Row<'a> = (&'a [&'static str], Option<TransportProtocol>, bool, Serve);

impl Door<'_> {
    /// The chains (Istio's `getTLSFilterChainMatchOptions` and its plaintext companions).
    pub(super) fn chains(&self, mode: MutualTlsMode) -> Vec<FilterChain> {
        self.rows(mode).into_iter().map(|row| self.chain(row)).collect()
    }

    fn rows(&self, mode: MutualTlsMode) -> Vec<Row<'static>> {
        use Serve::{Bytes, Http};
        const RAW: Option<TransportProtocol> = Some(TransportProtocol::RawBuffer);
        const TLS: Option<TransportProtocol> = Some(TransportProtocol::Tls);
        let auto = self.protocol == Protocol::Auto;
        // Ports that nobody looks into by TLS are not told apart by it; the chain for all other ports may be.
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

/// Istio's retries towards the application: only what the application has not seen.
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
