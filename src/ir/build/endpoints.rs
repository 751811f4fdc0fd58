//! Endpoints of a cluster, grouped by locality and priority.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::locality::{self, Client, Member};
use super::scope::Scope;
use super::transport;
use crate::ir::cluster::{LbEndpoint, LocalityEndpoints, Transport};
use crate::mesh::destination_rule::LocalityLb;
use crate::mesh::service::{Address, Endpoint, Service};
use crate::mesh::{Labels, selects};

/// Selects the endpoints of a cluster.
pub(super) struct Selection<'a> {
    /// The client.
    pub(super) scope: &'a Scope<'a>,
    /// The service.
    pub(super) service: &'a Service,
    /// The service port.
    pub(super) port: u16,
    /// Labels of the subset.
    pub(super) labels: Option<&'a Labels>,
    /// Whether the cluster resolves host names; EDS does not.
    pub(super) names: bool,
    /// Whether unready endpoints are included, as UNHEALTHY.
    pub(super) unready: bool,
    /// The cluster's transport.
    pub(super) transport: &'a Transport,
    /// The effective locality setting.
    pub(super) locality: Option<&'a LocalityLb>,
    /// Whether outlier detection is configured, which failover depends on.
    pub(super) failover: bool,
}

/// The endpoints, grouped by locality and priority.
pub(super) fn localities(selection: &Selection<'_>) -> Vec<LocalityEndpoints> {
    let mut members: BTreeMap<(&Address, u16), Member<'_>> = BTreeMap::new();
    for endpoint in selection.service.endpoints.iter() {
        if let Some(port) = selection.takes(endpoint) {
            members.entry((&endpoint.address, port)).or_insert_with(|| Member {
                endpoint,
                lb: selection.lb_endpoint(endpoint, port),
            });
        }
    }
    let client = Client {
        locality: &selection.scope.view.locality,
        labels: &selection.scope.view.labels,
    };
    locality::arrange(members.into_values(), &client, selection.locality, selection.failover)
}

impl Selection<'_> {
    /// The port of a selected endpoint; `None` if it is not selected.
    fn takes(&self, endpoint: &Endpoint) -> Option<u16> {
        let of_subset = self.labels.is_none_or(|labels| selects(labels, &endpoint.labels));
        let reachable = self.names || !matches!(endpoint.address, Address::Name(_));
        let wanted = of_subset && reachable && (endpoint.ready || self.unready);
        endpoint.port(self.port).filter(|_| wanted)
    }

    fn lb_endpoint(&self, endpoint: &Endpoint, port: u16) -> LbEndpoint {
        LbEndpoint {
            address: endpoint.address.clone(),
            port,
            weight: endpoint.weight,
            healthy: endpoint.ready,
            mutual_tls: match self.transport {
                Transport::Plaintext => false,
                Transport::Tls(_) => endpoint.mutual_tls,
                Transport::Auto(_) => transport::takes_mutual_tls(self.scope, endpoint, self.port),
            },
            workload: endpoint.workload.as_ref().map(|name| workload_metadata(endpoint, name)),
        }
    }
}

/// `<workload>;<namespace>;<canonical name>;<revision>;<cluster>`, read by Istio's telemetry.
fn workload_metadata(endpoint: &Endpoint, name: &str) -> Arc<str> {
    let label = |keys: &[&str], otherwise: &str| {
        let found = keys.iter().find_map(|key| endpoint.labels.get(*key));
        found.map_or_else(|| otherwise.into(), Arc::clone)
    };
    let canonical = label(
        &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"],
        name,
    );
    let revision = label(
        &[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ],
        "latest",
    );
    format!("{name};{};{canonical};{revision};", endpoint.namespace).into()
}
