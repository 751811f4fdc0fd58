//! A proxy with a bootstrap written by the test, either static or with an [`Ads`] server.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::ads::Ads;
use super::network::Network;
use super::plane::{Plane, Sidecar};
use super::wait::eventually;

/// A proxy with a bootstrap written by the test.
pub struct Alone {
    /// The proxy.
    pub sidecar: Sidecar,
    admin: SocketAddr,
    listeners: Vec<SocketAddr>,
    dir: TempDir,
    network: Network,
}

impl Alone {
    /// Starts a proxy and waits until it is ready. The `address` of each listener is replaced by a
    /// unique one, and `{dir}` in any string by a writable directory.
    pub async fn start(plane: Plane, listeners: &[Value], clusters: &[Value], more: Value) -> Self {
        let mut alone = Self::begin(plane, listeners, clusters, more).await;
        alone.sidecar.ready().await;
        alone
    }

    /// Starts a proxy configured by an ADS server with the given protocol variant (`DELTA_GRPC`,
    /// `GRPC`), without waiting. Its streams have two `x-opened-by` headers.
    pub async fn follow(plane: Plane, ads: &Ads, api_type: &str) -> Self {
        Self::follow_beside(plane, ads, api_type, &[]).await
    }

    /// Like [`Alone::follow`], with additional static listeners.
    pub async fn follow_beside(plane: Plane, ads: &Ads, api_type: &str, listeners: &[Value]) -> Self {
        let source = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
        let metadata = json!([{"key": "x-opened-by", "value": "alone"}, {"key": "x-opened-by", "value": "again"}]);
        let service = json!({"envoy_grpc": {"cluster_name": "xds"}, "initial_metadata": metadata});
        let more = json!({"dynamic_resources": {
            "ads_config": {"api_type": api_type, "transport_api_version": "V3", "grpc_services": [service]},
            "cds_config": source,
            "lds_config": source,
        }});
        Self::begin(plane, listeners, &[cluster_http2("xds", ads.address())], more).await
    }

    /// Like [`Alone::start`], without waiting.
    pub async fn unready(plane: Plane, listeners: &[Value], clusters: &[Value]) -> Self {
        Self::begin(plane, listeners, clusters, json!({})).await
    }

    async fn begin(plane: Plane, listeners: &[Value], clusters: &[Value], more: Value) -> Self {
        Self::written(plane, "bootstrap.json", listeners.len(), |admin, addresses| {
            let listeners = listeners.iter().zip(addresses).map(|(listener, address)| {
                let mut listener = listener.clone();
                listener["address"] = socket(*address);
                listener["enable_reuse_port"] = json!(false);
                listener
            });
            let mut bootstrap = json!({
                "node": {"id": "alone", "cluster": "test", "locality": {"zone": "zone-a"}},
                "admin": {"address": socket(admin)},
                "static_resources": {"listeners": listeners.collect::<Vec<_>>(), "clusters": clusters},
            });
            bootstrap
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            bootstrap.to_string()
        })
        .await
    }

    /// Starts a proxy with the bootstrap returned by a closure, without waiting. The closure gets
    /// the admin address and the given number of listener addresses.
    pub async fn written(
        plane: Plane,
        name: &str,
        listeners: usize,
        write: impl FnOnce(SocketAddr, &[SocketAddr]) -> String,
    ) -> Self {
        let network = Network::take();
        let dir = tempfile::tempdir().unwrap();
        let admin = network.socket(15000);
        let listeners: Vec<_> = (0..listeners).map(|_| network.socket(8080)).collect();
        let text = write(admin, &listeners).replace("{dir}", dir.path().to_str().unwrap());
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let launch = plane.launch(&path, admin).await;
        Self {
            sidecar: Sidecar::begin(admin.ip(), &launch),
            admin,
            listeners,
            dir,
            network,
        }
    }

    /// Admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Address of a listener.
    pub fn listener(&self, index: usize) -> SocketAddr {
        self.listeners[index]
    }

    /// A unique address with this port, for a listener added later.
    pub fn socket(&self, port: u16) -> SocketAddr {
        self.network.socket(port)
    }

    /// Content of a file in its directory.
    pub fn wrote(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// Waits until the access log consists of these lines.
    pub async fn logged<L: AsRef<str>>(&self, lines: &[L]) {
        let expected: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        eventually("the log", async || {
            let written = self.wrote("access.log");
            (written == expected)
                .then_some(())
                .ok_or_else(|| format!("{written} instead of {expected}"))
        })
        .await;
    }

    /// Waits until the access log has this many lines.
    pub async fn logged_as_much(&self, lines: usize) {
        eventually("the log", async || {
            let written = self.wrote("access.log");
            (written.lines().count() == lines)
                .then_some(())
                .ok_or_else(|| format!("{written} instead of {lines} lines"))
        })
        .await;
    }

    /// Path of a file in its directory.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// `core.v3.Address`.
pub fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A static cluster with one host.
pub fn cluster(name: &str, host: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(host)}}]}]},
    })
}

/// A static cluster with one host that uses HTTP/2.
pub fn cluster_http2(name: &str, host: SocketAddr) -> Value {
    let mut cluster = cluster(name, host);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster
}

/// Access log of a connection manager, to `access.log` in this format.
pub fn access_log(format: &str) -> Value {
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "{dir}/access.log",
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

/// A listener with a connection manager and these routes; `more` has further fields of the
/// connection manager.
pub fn http_listener(name: &str, direction: &str, routes: Value, more: Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
        "route_config": {"name": "routes", "virtual_hosts": [{"name": "host", "domains": ["*"], "routes": routes}]},
    });
    manager
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "name": name,
        "traffic_direction": direction,
        "filter_chains": [{"name": "chain", "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
        ]}],
    })
}
