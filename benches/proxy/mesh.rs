//! A mesh of a client and a server, with sidecars of one kind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use topsail::envoy::Finder;

use crate::backend;
use crate::load::Load;
use crate::process::{LOAD_CPU, PROXY_CPU, Running};

/// A service of HTTP/1.1.
pub(crate) const HTTP_HOST: &str = "http.bench";
/// The same with a hundred routes and retries.
pub(crate) const ROUTES_HOST: &str = "routes.bench";
/// A service of HTTP/2.
pub(crate) const HTTP2_HOST: &str = "http2.bench";
/// A service of gRPC.
pub(crate) const GRPC_HOST: &str = "grpc.bench";

const CLIENT_IP: &str = "127.0.41.1";
const OUTBOUND_IP: &str = "127.0.42.1";
const SERVER_IP: &str = "127.0.41.2";
const XDS: &str = "127.0.0.1:28012";
const HTTP_PORT: u16 = 9080;
const HTTP2_PORT: u16 = 9081;
const GRPC_PORT: u16 = 9082;
const TCP_PORT: u16 = 9083;

/// Which data plane.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    Envoy,
    Rust,
}

/// A running mesh.
pub(crate) struct Mesh {
    sidecars: Vec<Running>,
    _server: Running,
    _folder: TempDir,
}

impl Mesh {
    pub(crate) async fn start(plane: Plane, pair: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, state) = (folder.path().join("config"), folder.path().join("state"));
        fs::create_dir(&config).expect("a folder");
        fs::write(config.join("mesh.yaml"), documents(pair)).expect("a file");
        let topsail = Path::new(env!("CARGO_BIN_EXE_topsail"));
        let (config, state) = (config.to_string_lossy(), state.to_string_lossy());
        let arguments = [
            "serve",
            "--config",
            &config,
            "--state",
            &state,
            "--xds",
            XDS,
            "--admin",
            "127.0.0.1:28014",
        ];
        let server = Running::start(topsail, &[&arguments[..], &["--log-level", "error"]].concat(), LOAD_CPU);
        wait_for("127.0.0.1:28014", "/ready").await;
        let mut sidecars = vec![sidecar(plane, "client", CLIENT_IP, &state, folder.path()).await];
        if pair {
            sidecars.push(sidecar(plane, "server", SERVER_IP, &state, folder.path()).await);
        }
        Self {
            sidecars,
            _server: server,
            _folder: folder,
        }
    }

    /// Where a load is sent to.
    pub(crate) fn target(&self, load: Load) -> SocketAddr {
        let port = match load {
            Load::Http1 { .. } => HTTP_PORT,
            Load::Http2 => HTTP2_PORT,
            Load::Grpc => GRPC_PORT,
            Load::Tcp => TCP_PORT,
        };
        SocketAddr::new(OUTBOUND_IP.parse().expect("an address"), port)
    }

    /// The processes of the data plane.
    pub(crate) fn sidecars(&self) -> Vec<u32> {
        self.sidecars.iter().map(Running::pid).collect()
    }
}

async fn sidecar(plane: Plane, name: &str, ip: &str, state: &str, folder: &Path) -> Running {
    let output = Command::new(env!("CARGO_BIN_EXE_topsail"))
        .args([
            "bootstrap",
            "--mode",
            "NONE",
            "--workload",
            &format!("{name}.bench"),
            "--service-account",
            name,
        ])
        .args(["--ip", ip, "--server", XDS, "--state", state])
        .output()
        .expect("topsail bootstrap runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, output.stdout).expect("a file");
    let path = path.to_string_lossy();
    let (program, arguments): (PathBuf, Vec<&str>) = match plane {
        Plane::Rust => (
            env!("CARGO_BIN_EXE_topsail").into(),
            vec!["proxy", "--bootstrap", &path, "--concurrency", "1"],
        ),
        Plane::Envoy => (
            Finder::from_env().find(&|text| eprintln!("{text}")).expect("Envoy"),
            vec![
                "-c",
                &path,
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "error",
            ],
        ),
    };
    let running = Running::start(&program, &arguments, PROXY_CPU);
    wait_for(&format!("{ip}:15000"), "/ready").await;
    running
}

/// Waits until an address answers with 200.
async fn wait_for(address: &str, path: &str) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (address, started) = (address.parse().expect("an address"), Instant::now());
    loop {
        if matches!(topsail::envoy::get(address, path).await, Ok((status, _)) if status.is_success()) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{address}{path} is not ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The mesh's documents: services whose endpoint is the server's sidecar, or the backend itself.
fn documents(pair: bool) -> String {
    let backend = backend::ADDRESS;
    let ports = [
        (HTTP_PORT, "HTTP"),
        (HTTP2_PORT, "HTTP2"),
        (GRPC_PORT, "GRPC"),
        (TCP_PORT, "TCP"),
    ];
    let mut text = String::new();
    let workloads = [("client", CLIENT_IP), ("server", SERVER_IP)];
    for (name, ip) in workloads {
        text.push_str(&format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}, namespace: bench}},
              spec: {{address: {ip}, serviceAccount: {name}, labels: {{app: {name}}}}}}}\n---\n"
        ));
    }
    let listeners = |bind: &str, more: &str| {
        let listener = |(port, protocol): &(u16, &str)| {
            format!(
                "{{port: {{number: {port}, protocol: {protocol}, name: p{port}}}, bind: {bind}, captureMode: NONE, {more}}}"
            )
        };
        ports.iter().map(listener).collect::<Vec<_>>().join(", ")
    };
    text.push_str(&format!(
        "{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: client, namespace: bench}},
          spec: {{workloadSelector: {{labels: {{app: client}}}}, egress: [{}]}}}}\n---\n\
         {{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: server, namespace: bench}},
          spec: {{workloadSelector: {{labels: {{app: server}}}}, egress: [{{hosts: [\"~/*\"]}}], ingress: [{}]}}}}\n---\n",
        listeners(OUTBOUND_IP, "hosts: [\"*/*\"]"),
        listeners(SERVER_IP, &format!("defaultEndpoint: \"{backend}\""))
    ));
    let services = [
        (HTTP_HOST, HTTP_PORT, "HTTP"),
        (ROUTES_HOST, HTTP_PORT, "HTTP"),
        (HTTP2_HOST, HTTP2_PORT, "HTTP2"),
        (GRPC_HOST, GRPC_PORT, "GRPC"),
        ("tcp.bench", TCP_PORT, "TCP"),
    ];
    for (host, port, protocol) in services {
        let endpoints = match pair {
            true => "workloadSelector: {labels: {app: server}}".to_owned(),
            false => format!(
                "endpoints: [{{address: {}, ports: {{p: {}}}}}]",
                backend.ip(),
                backend.port()
            ),
        };
        let name = host.replace('.', "-");
        text.push_str(&format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, namespace: bench}},
              spec: {{hosts: [{host}], resolution: STATIC, location: MESH_INTERNAL,
                      ports: [{{number: {port}, protocol: {protocol}, name: p}}], {endpoints}}}}}\n---\n"
        ));
    }
    text.push_str(&routes());
    text
}

/// A hundred routes, each with retries.
fn routes() -> String {
    let route = |number: usize| {
        format!(
            "{{match: [{{uri: {{prefix: /route-{number}/}}}}], retries: {{attempts: 2, retryOn: \"5xx\"}},
               route: [{{destination: {{host: {ROUTES_HOST}}}}}]}}"
        )
    };
    let routes: Vec<_> = (0..100).map(route).collect();
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: routes, namespace: bench}},
          spec: {{hosts: [{ROUTES_HOST}], http: [{}]}}}}\n",
        routes.join(", ")
    )
}
