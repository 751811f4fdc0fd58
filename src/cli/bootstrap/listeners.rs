//! What the proxy itself answers: readiness and statistics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::document::{Bootstrap, socket_address};
use crate::ir::node::InterceptionMode;

/// The name of the cluster that is Envoy's own admin listener.
const ADMIN: &str = "admin";

/// Readiness on 15021 and statistics on 15090, as in Istio. Only these two paths of the admin
/// listener can be reached from other hosts.
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

/// Envoy's admin listener as a cluster.
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

/// A listener that hands one path to the admin listener. `enable_reuse_port: false`, so that two
/// proxies that were given the same address say so instead of sharing the requests.
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
