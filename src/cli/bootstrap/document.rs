//! The bootstrap document.

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

/// The values that a bootstrap is generated from.
pub(in crate::cli) struct Bootstrap {
    pub kind: ProxyType,
    pub workload: WorkloadName,
    /// The WorkloadGroup that the workload auto-registers with; its name is then derived from the group.
    pub group: Option<WorkloadName>,
    /// Random number that identifies this sidecar process; it reports application readiness under it. `None`
    /// if it does not report readiness.
    pub readiness_run: Option<u64>,
    /// `None` if the control plane determines it.
    pub service_account: Option<ServiceAccount>,
    pub labels: BTreeMap<String, String>,
    /// Addresses of the workload; never empty, the first is the primary one.
    pub addresses: Vec<IpAddr>,
    pub mode: InterceptionMode,
    pub locality: Locality,
    pub server: Endpoint,
    pub variant: Variant,
    pub roots: TrustBundle,
    pub trust_domain: TrustDomain,
    /// Directory of the join token, which Envoy watches.
    pub token_folder: PathBuf,
    /// The SDS resource file that refers to the token file.
    pub secret_file: PathBuf,
    pub admin_port: u16,
    pub status_port: u16,
    pub metrics_port: u16,
}

impl Bootstrap {
    /// The primary address.
    pub(super) fn address(&self) -> IpAddr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
    }

    /// Address of Envoy's admin interface.
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

/// The bootstrap in the JSON form of `envoy.config.bootstrap.v3.Bootstrap`.
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

/// Builds an `envoy.config.core.v3.Address`.
pub(super) fn socket_address(address: IpAddr, port: u16) -> Value {
    json!({"socket_address": {"address": address.to_string(), "port_value": port}})
}

/// The node. ID, cluster and metadata keys are those of Istio's proxies.
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
        // As a string: JSON numbers are not exact at this size.
        node["metadata"][READINESS_RUN] = json!(run.to_string());
    }
    let Locality { region, zone, subzone } = &bootstrap.locality;
    if !region.is_empty() {
        node["locality"] = json!({"region": region, "zone": zone, "sub_zone": subzone});
    }
    node
}

/// LDS and CDS over one ADS stream. There is no initial fetch timeout: without its configuration Envoy must
/// not become ready, as requests would fail.
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

/// Disables the limit on downstream connections explicitly, as Istio does; Envoy warns if none is configured.
fn overload_manager() -> Value {
    json!({"resource_monitors": [{
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": i32::MAX,
        },
    }]})
}
