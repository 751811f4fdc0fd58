//! A running proxy with a self-contained bootstrap.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Timeout of anything awaited.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A running `topsail proxy`.
pub(crate) struct Proxy {
    pub admin: SocketAddr,
    /// Listener that forwards `/stats/prometheus` to the proxy's admin interface.
    pub metrics: SocketAddr,
    /// Listener that forwards everything to the proxy's admin interface.
    pub echo: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Proxy {
    /// Starts a proxy and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let (admin, metrics, echo) = (free(), free(), free());
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("proxy.json"),
            bootstrap(admin, metrics, echo).to_string(),
        )
        .unwrap();
        let child = command(&dir).spawn().unwrap();
        let proxy = Self {
            admin,
            metrics,
            echo,
            dir,
            child,
        };
        eventually(async || matches!(proxy.ask(admin, "/ready").await, Ok((StatusCode::OK, _)))).await;
        proxy
    }

    /// Runs a second proxy with the same bootstrap; returns its exit status and output.
    pub(crate) async fn second(&self) -> (ExitStatus, String) {
        let output = command(&self.dir).stderr(Stdio::piped()).output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Sends `GET` to the admin interface.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        self.ask(self.admin, path).await.unwrap()
    }

    /// Like `get`, which must succeed.
    pub(crate) async fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Like `text`, parsed as JSON.
    pub(crate) async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    /// Sends `POST` to the admin interface.
    pub(crate) async fn post(&self, path: &str) -> (StatusCode, String) {
        request(self.admin, Method::POST, path).await.unwrap()
    }

    /// Sends `GET` to any address.
    pub(crate) async fn ask(&self, address: SocketAddr, path: &str) -> io::Result<(StatusCode, String)> {
        request(address, Method::GET, path).await
    }

    /// Waits until connections to the address are refused.
    pub(crate) async fn refuses(&self, address: SocketAddr) {
        eventually(async || TcpStream::connect(address).await.is_err()).await;
    }

    /// Waits until it exits.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap()
            .unwrap()
    }
}

async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it did not happen in time");
}

fn command(dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topsail"));
    command
        .args(["proxy", "--concurrency", "1", "--bootstrap"])
        .arg(dir.path().join("proxy.json"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A free address, on a loopback address derived from this process so that other test processes do not take
/// it.
fn free() -> SocketAddr {
    let process = std::process::id();
    let octet = |shift: u32| u8::try_from(process >> shift & 0x7f).unwrap() + 1;
    TcpListener::bind((Ipv4Addr::new(127, octet(7), octet(0), 9), 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn request(address: SocketAddr, method: Method, path: &str) -> io::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "admin");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

fn bootstrap(admin: SocketAddr, metrics: SocketAddr, echo: SocketAddr) -> Value {
    let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let route = json!({"match": {"path": "/stats/prometheus"}, "route": {"cluster": "admin"}});
    json!({
        "node": {"id": "sidecar~127.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default"},
        "admin": {"address": address(admin)},
        "stats_config": {
            "use_all_default_tags": false,
            "stats_tags": [
                {"tag_name": "cluster_name", "regex": r"^cluster(\.(.+);)"},
                {"tag_name": "http_conn_manager_prefix", "regex": r"^http(\.(.+);)"},
                {"tag_name": "listener_address", "regex": r"^listener(\.(.+?_\d+))\."},
                {"tag_name": "response_code", "regex": r"_rq(_(\d{3}))$"},
                {"tag_name": "response_code_class", "regex": r"_rq(_(\dxx))$"},
            ],
        },
        "static_resources": {
            "listeners": [{
                "name": "metrics",
                "traffic_direction": "OUTBOUND",
                "address": address(metrics),
                "enable_reuse_port": false,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "metrics;",
                        "route_config": {"name": "own", "virtual_hosts": [
                            {"name": "own", "domains": ["*"], "routes": [route]},
                        ]},
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                        }],
                    },
                }]}],
            }, {
                "name": "echo",
                "address": address(echo),
                "enable_reuse_port": false,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": "echo;",
                        "cluster": "admin",
                    },
                }]}],
            }],
            "clusters": [{
                "name": "admin",
                "alt_stat_name": "admin;",
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "admin", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(admin)}},
                ]}]},
            }],
        },
    })
}
