//! The bootstrap as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Variant;
use super::{listeners, server, stats};
use crate::cli::value::Endpoint;
use crate::ir::node::InterceptionMode;
use crate::mesh::service::Locality;
use crate::name::{ServiceAccount, TrustDomain, WorkloadName};
use crate::pki::TrustBundle;
use crate::xds::node::{ProxyType, READINESS_RUN};

/// What a bootstrap is made of.
pub(in crate::cli) struct Bootstrap {
    pub kind: ProxyType,
    pub workload: WorkloadName,
    /// The group whose member it is, which the name follows from.
    pub group: Option<WorkloadName>,
    /// The number by which this run of the sidecar is known that says when the application is ready, if it does.
    pub readiness_run: Option<u64>,
    /// None where the control plane says it.
    pub service_account: Option<ServiceAccount>,
    pub labels: BTreeMap<String, String>,
    /// Not empty; the first is the main one.
    pub addresses: Vec<IpAddr>,
    pub mode: InterceptionMode,
    pub locality: Locality,
    pub server: Endpoint,
    pub variant: Variant,
    pub roots: TrustBundle,
    pub trust_domain: TrustDomain,
    /// The folder of the join token.
    pub token_folder: PathBuf,
    /// The file that tells Envoy where the token is.
    pub secret_file: PathBuf,
    pub admin_port: u16,
    pub status_port: u16,
    pub metrics_port: u16,
}

impl Bootstrap {
    /// The main address.
    pub(super) fn address(&self) -> IpAddr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
    }

    /// Where Envoy's admin listener is.
    pub(in crate::cli) fn admin_address(&self) -> IpAddr {
        match (self.mode, self.address()) {
            (InterceptionMode::None, address) => address,
            (InterceptionMode::Redirect | InterceptionMode::Tproxy, IpAddr::V4(_)) => {
                std::net::Ipv4Addr::LOCALHOST.into()
            }
            (InterceptionMode::Redirect | InterceptionMode::Tproxy, IpAddr::V6(_)) => {
                std::net::Ipv6Addr::LOCALHOST.into()
            }
        }
    }
}

/// Envoy's `Bootstrap` in its own JSON names.
pub(in crate::cli) fn document(bootstrap: &Bootstrap) -> Value {
    json!({
        "node": node(bootstrap),
        "admin": {"address": socket_address(bootstrap.admin_address(), bootstrap.admin_port)},
        "dynamic_resources": dynamic_resources(bootstrap.variant),
        "static_resources": {
            "listeners": listeners::listeners(bootstrap),
            "clusters": [server::cluster(bootstrap), listeners::admin_cluster(bootstrap)],
        },
        "stats_config": stats::config(),
        "overload_manager": overload_manager(),
    })
}

/// `core.Address`.
pub(super) fn socket_address(address: IpAddr, port: u16) -> Value {
    json!({"socket_address": {"address": address.to_string(), "port_value": port}})
}

/// Ids, metadata keys and cluster as Istio's proxies have them.
fn node(bootstrap: &Bootstrap) -> Value {
    let Bootstrap { workload, labels, .. } = bootstrap;
    let namespace = &workload.namespace;
    let kind = match bootstrap.kind {
        ProxyType::Sidecar => "sidecar",
        ProxyType::Router => "router",
    };
    let name = bootstrap.group.as_ref().unwrap_or(workload);
    let app = labels.get("app").map_or(&*name.name, String::as_str);
    let addresses: Vec<String> = bootstrap.addresses.iter().map(IpAddr::to_string).collect();
    let mut node = json!({
        "id": format!("{kind}~{}~{workload}~{namespace}.svc.cluster.local", bootstrap.address()),
        "cluster": format!("{app}.{namespace}"),
        "metadata": {
            "NAME": workload.name,
            "NAMESPACE": namespace,
            "LABELS": labels,
            "INSTANCE_IPS": addresses.join(","),
            "INTERCEPTION_MODE": bootstrap.mode,
        },
    });
    if let Some(account) = &bootstrap.service_account {
        node["metadata"]["SERVICE_ACCOUNT"] = json!(account);
    }
    if let Some(group) = &bootstrap.group {
        node["metadata"]["AUTO_REGISTER_GROUP"] = json!(group.name);
    }
    if let Some(run) = bootstrap.readiness_run {
        // Numbers of JSON are not exact.
        node["metadata"][READINESS_RUN] = json!(run.to_string());
    }
    let Locality { region, zone, subzone } = &bootstrap.locality;
    if !region.is_empty() {
        node["locality"] = json!({"region": region, "zone": zone, "sub_zone": subzone});
    }
    node
}

/// Clusters and listeners over one stream. Envoy is not ready before it has both, however long that
/// takes: a sidecar without configuration would let traffic fail.
fn dynamic_resources(variant: Variant) -> Value {
    let from_ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "lds_config": from_ads,
        "cds_config": from_ads,
        "ads_config": {
            "api_type": match variant {
                Variant::Delta => "DELTA_GRPC",
                Variant::Sotw => "GRPC",
            },
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [server::grpc_service()],
        },
    })
}

/// No limit to connections, said aloud, as Istio does: Envoy warns where nothing is said.
fn overload_manager() -> Value {
    json!({"resource_monitors": [{
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": i32::MAX,
        },
    }]})
}
