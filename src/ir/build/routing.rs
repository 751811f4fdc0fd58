//! Where routes lead: destinations resolved to clusters, and what was asked of the mesh on the way.

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

/// How many times a name may be another name of the next; more is taken for a circle.
const MAX_ALIASES: usize = 8;

/// The making of the routes of one port.
pub(super) struct Routing<'a> {
    /// Whose routes.
    pub(super) scope: Scope<'a>,
    /// Hosts whose services and rules the routes depend on.
    pub(super) reads: BTreeSet<Hostname>,
    /// Whether every cluster seen since the last [`Routing::begin`] speaks its client's version of HTTP, so that
    /// the protocol of a connection can be offered upstream.
    pub(super) follows_client: bool,
}

/// A destination, resolved.
pub(super) struct Target {
    /// The cluster; it need not exist, and requests are answered 503 then.
    pub(super) cluster: ResourceName,
    /// The destination's host.
    pub(super) host: Hostname,
    /// Its port.
    pub(super) port: u16,
    /// The policy for it.
    pub(super) policy: TrafficPolicy,
}

impl Target {
    /// What a consistent hash is taken of, if the policy asks for one.
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
    /// Nothing made yet.
    pub(super) fn new(scope: Scope<'a>) -> Self {
        Self {
            scope,
            reads: BTreeSet::new(),
            follows_client: true,
        }
    }

    /// The start of a route configuration.
    pub(super) fn begin(&mut self) {
        self.follows_client = true;
    }

    /// Resolves a destination on a listener's port: the destination's port, else its service's only port, else the
    /// listener's (Istio's `GetDestinationCluster`).
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

    /// The service that a host means, if it is another name of one too.
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

    /// Hosts that are other names of a service's, as far as the proxy sees them.
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

    /// The cluster for all of a service's port.
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

    /// Whether the static part of a match holds for the proxy.
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
