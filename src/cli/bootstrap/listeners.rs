//! The static listeners for readiness and metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::document::{Bootstrap, socket_address};
use crate::ir::node::InterceptionMode;

/// Cluster that points to Envoy's own admin interface.
const ADMIN: &str = "admin";

/// The readiness listener (15021) and the Prometheus listener (15090), with Istio's default ports. They
/// expose only these two paths of the admin interface to other hosts.
pub(super) fn listeners(bootstrap: &Bootstrap) -> Value {
    let address = match (bootstrap.mode, bootstrap.address()) {
        (InterceptionMode::None, address) => address,
        (InterceptionMode::Redirect | InterceptionMode::Tproxy, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (InterceptionMode::Redirect | InterceptionMode::Tproxy, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    json!([
        listener("readiness", address, bootstrap.status_port, "/healthz/ready", "/ready"),
        listener(
            "metrics",
            address,
            bootstrap.metrics_port,
            "/stats/prometheus",
            "/stats/prometheus"
        ),
    ])
}

/// The cluster of Envoy's admin interface.
pub(super) fn admin_cluster(bootstrap: &Bootstrap) -> Value {
    let address = socket_address(bootstrap.admin_address(), bootstrap.admin_port);
    json!({
        "name": ADMIN,
        "alt_stat_name": format!("{ADMIN};"),
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    })
}

/// A listener that forwards one path to the admin interface. `enable_reuse_port` is off so that a second
/// proxy with the same address fails to bind instead of sharing the connections.
fn listener(name: &str, address: IpAddr, port: u16, path: &str, admin_path: &str) -> Value {
    let route = json!({
        "match": {"path": path},
        "route": {"cluster": ADMIN, "prefix_rewrite": admin_path},
    });
    json!({
        "name": name,
        "address": socket_address(address, port),
        "enable_reuse_port": false,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": format!("{name};"),
                "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}
