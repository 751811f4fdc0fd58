//! Memory that a connected proxy costs the server.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::client::{CDS, Client, EDS, LDS, Versions, names};
use super::control_plane::{Home, eventually, service_entry};

const SERVICES: usize = 400;
/// The first clients pay for what all clients share.
const FIRST: usize = 8;
const MORE: usize = 32;
/// KiB per client. Release builds need a fifth of it; with a copy of the pushed resources per client it would
/// be exceeded.
const BOUND: u64 = 250;

/// The server binary as a separate process, to measure its memory.
pub struct Server {
    child: Child,
    xds: SocketAddr,
}

impl Server {
    /// Starts it and waits until it accepts connections.
    pub async fn start(home: &Home) -> Self {
        Self::start_at(home, free_address()).await
    }

    async fn start_at(home: &Home, xds: SocketAddr) -> Self {
        let admin = free_address();
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
        eventually("the server starts", || std::net::TcpStream::connect(xds).is_ok()).await;
        Self { child, xds }
    }

    /// Kills it and starts another one with the same directories and address.
    pub async fn restart(self, home: &Home) -> Self {
        let xds = self.xds;
        drop(self);
        Self::start_at(home, xds).await
    }

    /// Its xDS address.
    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
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

/// A proxy that has ACKed everything and stays connected.
async fn proxy(home: &Home, server: &Server, number: usize) -> Client {
    let node = format!("p{number}.default");
    let mut client = Client::join_at(home, server.xds, &node).await;
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
async fn synced_proxies_need_little_memory() {
    let home = Home::with(&[("services.yaml", &services())]);
    let server = Server::start(&home).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_need_little_memory_and_delay_nobody() {
    let home = Home::with(&[
        ("services.yaml", &services()),
        ("edited.yaml", &service_entry("edited", 80)),
    ]);
    let server = Server::start(&home).await;
    let mut reader = Client::join_at(&home, server.xds, "reader.default").await;
    reader.subscribe(CDS, &[], &Versions::new());
    reader.take(CDS).await;
    let mut port = 80;
    // The reader is told of an edit after the responses to the other clients have been sent.
    let mut edit = async |reader: &mut Client| {
        port += 1;
        home.write("edited.yaml", &service_entry("edited", port));
        let name = format!("outbound|{port}||edited.example.com");
        while !names(&reader.take(CDS).await).contains(&name.as_str()) {}
    };
    let mut idle = Vec::new();
    let mut before = 0;
    for number in 0..FIRST + MORE {
        if number == FIRST {
            edit(&mut reader).await;
            before = server.memory();
        }
        let node = format!("p{number}.default");
        let client = Client::join_at(&home, server.xds, &node).await;
        client.subscribe(CDS, &[], &Versions::new());
        client.subscribe(LDS, &[], &Versions::new());
        idle.push(client);
    }
    for _ in 0..10 {
        edit(&mut reader).await;
    }
    let each = server.memory().saturating_sub(before) / MORE as u64;
    assert!(each < BOUND, "{each} KiB for each");
    // When such a client reads at last, it receives the current state.
    let mut last = idle.pop().unwrap();
    let clusters = last.take(CDS).await;
    assert!(names(&clusters).len() > 3 * SERVICES);
    edit(&mut reader).await;
}
