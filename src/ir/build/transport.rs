//! Transport sockets of clusters: plaintext or TLS, and the accepted server identities.

use std::collections::BTreeSet;

use super::naming;
use super::scope::Scope;
use crate::ir::cluster::{HttpVersion, ServerIdentity, Transport, UpstreamTls};
use crate::mesh::destination_rule::{ClientTls, ClientTlsMode, ServerVerification};
use crate::mesh::peer_authentication::MutualTlsMode;
use crate::mesh::service::{Endpoint, Service, ServicePort};
use crate::name::{SpiffeId, TrustDomain};

/// The upstream of a cluster.
pub(super) struct Peer<'a> {
    /// The client.
    pub(super) scope: &'a Scope<'a>,
    /// The service.
    pub(super) service: &'a Service,
    /// Its port.
    pub(super) port: &'a ServicePort,
    /// Its subset.
    pub(super) subset: Option<&'a str>,
    /// HTTP version.
    pub(super) version: HttpVersion,
    /// Whether connections go to their original destination, so that endpoints are not known in
    /// advance.
    pub(super) original_dst: bool,
}

impl Peer<'_> {
    /// The transport according to the DestinationRule's `tls`; auto mTLS if it has none.
    pub(super) fn transport(&self, tls: Option<&ClientTls>) -> Transport {
        let Some(tls) = tls else {
            return self.automatic();
        };
        match &tls.mode {
            ClientTlsMode::Disable => Transport::Plaintext,
            ClientTlsMode::IstioMutual => Transport::Tls(self.istio(Some(tls))),
            ClientTlsMode::Originate { certificate, verify } => {
                Transport::Tls(self.originate(tls, certificate.clone(), verify.clone()))
            }
        }
    }

    /// Auto mTLS according to the PeerAuthentications of the service's namespace (Istio's
    /// `BestEffortInferServiceMTLSMode`). A cluster that cannot distinguish endpoints uses TLS only
    /// if all of them accept it.
    fn automatic(&self) -> Transport {
        let mesh = self.scope.mesh;
        let allowed = mesh.config.auto_mtls
            && !self.service.external
            && mesh.namespace_mutual_tls(&self.service.key.namespace) != MutualTlsMode::Disable;
        if !allowed {
            return Transport::Plaintext;
        }
        if !self.original_dst {
            return Transport::Auto(self.istio(None));
        }
        let number = self.port.number;
        let mut endpoints = self.service.endpoints.iter().peekable();
        let all =
            endpoints.peek().is_some() && endpoints.all(|endpoint| takes_mutual_tls(self.scope, endpoint, number));
        match all {
            true => Transport::Tls(self.istio(None)),
            false => Transport::Plaintext,
        }
    }

    fn istio(&self, tls: Option<&ClientTls>) -> UpstreamTls {
        let host = &self.service.key.host;
        let sni = tls.and_then(|tls| tls.sni.clone());
        UpstreamTls::Istio {
            server: self.identity(tls.map_or(&[], |tls| &tls.subject_alt_names)),
            sni: sni.unwrap_or_else(|| naming::default_sni(self.port.number, self.subset, host)),
            alpn: self.alpn(),
            oldest: self.scope.mesh.config.oldest_tls,
        }
    }

    /// ALPN by port; Istio's proxy chooses it per request (`istio.alpn`). Clusters that use the
    /// downstream HTTP version, which is only known per request, offer protocols accepted by every
    /// chain.
    fn alpn(&self) -> Vec<&'static str> {
        match self.version {
            HttpVersion::Http2 => naming::ALPN_HTTP2.to_vec(),
            HttpVersion::Http1 if self.port.protocol.is_http() => naming::ALPN_HTTP1.to_vec(),
            HttpVersion::Http1 | HttpVersion::Downstream => naming::ALPN_TCP.to_vec(),
        }
    }

    fn originate(
        &self,
        tls: &ClientTls,
        certificate: Option<(std::sync::Arc<str>, std::sync::Arc<str>)>,
        verify: ServerVerification,
    ) -> UpstreamTls {
        let names = match tls.subject_alt_names.is_empty() {
            true => &self.service.subject_alt_names,
            false => &tls.subject_alt_names,
        };
        UpstreamTls::Files {
            certificate,
            verify,
            subject_alt_names: names.clone(),
            sni: tls.sni.clone(),
            alpn: match self.version {
                HttpVersion::Http2 => vec!["h2"],
                HttpVersion::Http1 | HttpVersion::Downstream => Vec::new(),
            },
        }
    }

    /// Accepted identities: those of the service's endpoints, across ports and subsets; the
    /// `subjectAltNames` of the rule if set; else any of the service's namespace.
    fn identity(&self, asked: &[String]) -> ServerIdentity {
        if !asked.is_empty() {
            return ServerIdentity::Exact(asked.to_vec());
        }
        let config = &self.scope.mesh.config;
        let domains = || std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
        let accounts =
            self.service.endpoints.iter().flat_map(|endpoint| {
                domains().filter_map(move |domain| Some(spiffe_id(domain, endpoint)?.to_string()))
            });
        let known: BTreeSet<String> = accounts.chain(self.service.subject_alt_names.iter().cloned()).collect();
        match known.is_empty() {
            false => ServerIdentity::Exact(known.into_iter().collect()),
            true => {
                let namespace = &self.service.key.namespace;
                let prefix = |domain: &TrustDomain| format!("spiffe://{domain}/ns/{namespace}/");
                ServerIdentity::Prefixes(domains().map(prefix).collect())
            }
        }
    }
}

/// Whether an endpoint accepts Istio mutual TLS on a service port: its workload supports it and no
/// PeerAuthentication disables it.
pub(super) fn takes_mutual_tls(scope: &Scope<'_>, endpoint: &Endpoint, service_port: u16) -> bool {
    let port = endpoint.port(service_port);
    let mode = || scope.mesh.mutual_tls_mode(&endpoint.namespace, &endpoint.labels, port);
    endpoint.mutual_tls && mode() != MutualTlsMode::Disable
}

fn spiffe_id(domain: &TrustDomain, endpoint: &Endpoint) -> Option<SpiffeId> {
    Some(SpiffeId {
        trust_domain: domain.clone(),
        namespace: endpoint.namespace.clone(),
        service_account: endpoint.service_account.clone()?,
    })
}
