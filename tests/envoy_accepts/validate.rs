//! Validates resources with a real Envoy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use topsail::envoy::Finder;
use topsail::xds::ResourceType;

/// The oldest supported Envoy.
const OLDEST: &str = "1.36.2";

/// The static resources of a bootstrap.
#[derive(Default)]
pub(crate) struct Statics {
    clusters: Vec<Value>,
    listeners: Vec<Value>,
}

impl Statics {
    /// Adds a resource in Envoy's JSON form. Routes and endpoints, which cannot be static resources, are
    /// embedded in a listener or cluster; secrets are never written to a file.
    pub(crate) fn add(&mut self, kind: ResourceType, resource: Value) {
        match kind {
            ResourceType::Cluster => self.clusters.push(resource),
            ResourceType::Endpoints => self.clusters.push(around_endpoints(&resource)),
            ResourceType::Listener => self.listeners.push(resource),
            ResourceType::Route => {
                let port = 20_000 + self.listeners.len();
                self.listeners.push(around_routes(&resource, port));
            }
            ResourceType::Secret => {}
        }
    }
}

/// Validates the resources; the error is Envoy's output.
pub(crate) fn validate(envoy: &Path, statics: &Statics) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.json");
    fs::write(&path, bootstrap(statics).to_string()).unwrap();
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--disable-hot-restart", "--concurrency", "1"])
        .args(["--log-level", "warning", "--reject-unknown-dynamic-fields", "-c"])
        .arg(&path)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    // Printed for every bootstrap without an overload manager.
    let words: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains("no configured limit"))
        .collect();
    if output.status.success() && words.is_empty() {
        return Ok(());
    }
    Err(words.join("\n"))
}

/// The newest and the oldest supported Envoy.
pub(crate) fn envoys() -> [PathBuf; 2] {
    [newest(), Finder::from_env().release(OLDEST, &say).unwrap()]
}

/// The newest supported Envoy.
pub(crate) fn newest() -> PathBuf {
    Finder::from_env().find(&say).unwrap()
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn bootstrap(Statics { clusters, listeners }: &Statics) -> Value {
    let server = json!({"name": "xds", "type": "STATIC", "connect_timeout": "1s"});
    let clusters: Vec<&Value> = clusters.iter().chain([&server]).collect();
    json!({
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
        "static_resources": {"clusters": clusters, "listeners": listeners},
    })
}

/// A cluster with these endpoints.
fn around_endpoints(endpoints: &Value) -> Value {
    json!({
        "name": format!("around {}", endpoints["cluster_name"]),
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": endpoints,
    })
}

/// A listener with this route configuration.
fn around_routes(config: &Value, port: usize) -> Value {
    let filter = |name: &str, message: &str| {
        let config = format!("type.googleapis.com/envoy.extensions.filters.http.{message}");
        json!({"name": format!("envoy.filters.http.{name}"), "typed_config": {"@type": config}})
    };
    json!({
        "name": format!("around {}", config["name"]),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "bind_to_port": false,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.\
                          http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "x",
                "route_config": config,
                "http_filters": [
                    filter("fault", "fault.v3.HTTPFault"),
                    filter("cors", "cors.v3.Cors"),
                    filter("router", "router.v3.Router"),
                ],
            },
        }]}],
    })
}
