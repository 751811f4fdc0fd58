//! Resolves route destinations to clusters and records the hosts they depend on.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cluster::http_version;
use super::naming;
use super::scope::{Scope, stream_port};
use crate::ir::ResourceName;
use crate::ir::cluster::HttpVersion;
use crate::mesh::destination_rule::{HashKey, LbAlgorithm, TrafficPolicy};
use crate::mesh::selects;
use crate::mesh::service::Service;
use crate::mesh::virtual_service::{Destination, SourceMatch};
use crate::name::Hostname;

/// Maximum length of a chain of `ExternalName` aliases; a longer one is taken for a cycle.
const MAX_ALIASES: usize = 8;

/// Context for building the routes of one port.
pub(super) struct Routing<'a> {
    /// The proxy's view of the mesh.
    pub(super) scope: Scope<'a>,
    /// Hosts whose services and rules the routes depend on.
    pub(super) reads: BTreeSet<Hostname>,
    /// Whether every cluster resolved since the last [`Routing::begin`] uses the downstream HTTP
    /// version, so that the detected protocol can be offered upstream.
    pub(super) follows_client: bool,
}

/// A resolved destination.
pub(super) struct Target {
    /// The cluster. If it does not exist, requests get a 503.
    pub(super) cluster: ResourceName,
    /// The destination's host.
    pub(super) host: Hostname,
    /// Its port.
    pub(super) port: u16,
    /// Its traffic policy.
    pub(super) policy: TrafficPolicy,
}

impl Target {
    /// Hash key, if the policy uses consistent hashing.
    pub(super) fn hash(&self) -> Option<&HashKey> {
        match self.policy.load_balancer.as_ref()?.algorithm.as_ref()? {
            LbAlgorithm::Hash { key, .. } => Some(key),
            LbAlgorithm::LeastRequest | LbAlgorithm::RoundRobin | LbAlgorithm::Random | LbAlgorithm::Passthrough => {
                None
            }
        }
    }
}

impl<'a> Routing<'a> {
    /// An empty context.
    pub(super) fn new(scope: Scope<'a>) -> Self {
        Self {
            scope,
            reads: BTreeSet::new(),
            follows_client: true,
        }
    }

    /// Starts a route configuration.
    pub(super) fn begin(&mut self) {
        self.follows_client = true;
    }

    /// Resolves a destination for a listener on `listen_port`. The port is that of the destination,
    /// else the service's only one, else the listener's (Istio's `GetDestinationCluster`).
    pub(super) fn target(&mut self, destination: &Destination, listen_port: u16) -> Target {
        let service = self.meant(&destination.host);
        let host = service.map_or(&destination.host, |service| &service.key.host);
        let only = service.and_then(|service| match service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        });
        let port = destination.port.or(only).unwrap_or(listen_port);
        self.resolve(service, host, port, destination.subset.as_deref())
    }

    /// The service of a host, after following aliases.
    fn meant(&mut self, host: &Hostname) -> Option<&'a Arc<Service>> {
        self.reads.insert(host.clone());
        let mut service = self.scope.service(host)?;
        for _ in 0..MAX_ALIASES {
            let Some(target) = &service.alias else { break };
            self.reads.insert(target.clone());
            service = self.scope.service(target)?;
        }
        Some(service)
    }

    /// Visible hosts that are aliases of a service.
    pub(super) fn other_names(&mut self, host: &Hostname) -> Vec<&'a Hostname> {
        let scope = self.scope;
        let mut names: Vec<&'a Hostname> = Vec::new();
        let mut latest = vec![host.clone()];
        for _ in 0..MAX_ALIASES {
            let aliases = latest.iter().flat_map(|host| scope.mesh.aliases_of(host));
            let seen = aliases.filter(|alias| {
                scope
                    .service(&alias.key.host)
                    .is_some_and(|seen| Arc::ptr_eq(seen, alias))
            });
            let found: Vec<&'a Hostname> = seen.map(|alias| &alias.key.host).collect();
            latest = found.iter().copied().cloned().collect();
            names.extend(found);
        }
        self.reads.extend(names.iter().copied().cloned());
        names
    }

    /// The destination for all endpoints of a service port.
    pub(super) fn whole(&mut self, service: &'a Arc<Service>, port: u16) -> Target {
        self.resolve(Some(service), &service.key.host, port, None)
    }

    fn resolve(
        &mut self,
        service: Option<&'a Arc<Service>>,
        host: &Hostname,
        port: u16,
        subset: Option<&str>,
    ) -> Target {
        let policy = service.map(|service| self.scope.policy(service, port, subset));
        let policy = policy.unwrap_or_default();
        if let Some(port) = service.and_then(|service| stream_port(service, port)) {
            let pool = policy.connection_pool.as_ref();
            let version = http_version(port.protocol, pool, &self.scope.mesh.config);
            self.follows_client &= version == HttpVersion::Downstream;
        }
        Target {
            cluster: naming::outbound_cluster(port, subset, host),
            host: host.clone(),
            port,
            policy,
        }
    }

    /// Whether the source criteria of a match hold for the proxy.
    pub(super) fn is_source(&self, source: &SourceMatch) -> bool {
        let view = self.scope.view;
        !source.gateways_only
            && selects(&source.labels, &view.labels)
            && source
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == view.namespace)
    }
}
