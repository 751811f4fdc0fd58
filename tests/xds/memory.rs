//! What a connected proxy costs the server.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::client::{CDS, Client, EDS, LDS, Versions, names};
use super::control_plane::{Home, PATIENCE};

const SERVICES: usize = 400;
/// Those that come first pay what all share.
const FIRST: usize = 8;
const MORE: usize = 32;
/// In KiB. Release builds need a fifth of it; copies of what is pushed would need more than all of it.
const BOUND: u64 = 250;

/// The built server, a process of its own, so that its memory is its own.
struct Server {
    child: Child,
    xds: SocketAddr,
}

impl Server {
    fn start(home: &Home) -> Self {
        let (xds, admin) = (free_address(), free_address());
        let child = Command::new(env!("CARGO_BIN_EXE_topsail"))
            .args(["serve", "--log-level", "error", "--xds", &xds.to_string()])
            .args(["--admin", &admin.to_string()])
            .arg("--config")
            .arg(home.config())
            .arg("--state")
            .arg(home.state())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, xds }
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn services() -> String {
    let service = |n| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: s{n}}}
spec:
  hosts: [s{n}.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: s{n}}}
spec:
  host: s{n}.example.com
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}
  subsets: [{{name: a, labels: {{version: a}}}}, {{name: b, labels: {{version: b}}}}]
---
"
        )
    };
    (0..SERVICES).map(service).collect()
}

/// A proxy that has taken everything and stays.
async fn proxy(home: &Home, server: &Server, number: usize) -> Client {
    let node = format!("p{number}.default");
    let mut client = Client::connect(home, server.xds, &node, Some(&home.token(&node)))
        .await
        .unwrap();
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = client.take(CDS).await;
    let outbound: Vec<&str> = names(&clusters)
        .into_iter()
        .filter(|name| name.starts_with("outbound|"))
        .collect();
    assert_eq!(outbound.len(), 3 * SERVICES);
    client.subscribe(EDS, &outbound, &Versions::new());
    client.subscribe(LDS, &[], &Versions::new());
    client.take(LDS).await;
    client
}

#[tokio::test]
async fn a_proxy_that_has_everything_costs_little() {
    let home = Home::with(&[("services.yaml", &services())]);
    let server = Server::start(&home);
    let started = Instant::now();
    while std::net::TcpStream::connect(server.xds).is_err() {
        assert!(started.elapsed() < PATIENCE, "the server does not start");
        tokio::task::yield_now().await;
    }
    let mut proxies = Vec::new();
    for number in 0..FIRST {
        proxies.push(proxy(&home, &server, number).await);
    }
    let before = server.memory();
    for number in 0..MORE {
        proxies.push(proxy(&home, &server, FIRST + number).await);
    }
    let each = server.memory().saturating_sub(before) / MORE as u64;
    assert!(each < BOUND, "{each} KiB for each proxy");
}
