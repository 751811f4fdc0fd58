//! A mesh: a control plane with its directory, and workloads with sidecars.
//!
//! Interception is NONE: a sidecar listens on its workload's address and forwards requests to a
//! backend on 127.0.0.1. The workload's own requests go to outbound listeners on a second address.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tempfile::TempDir;

use super::backend::Backend;
use super::client::{Call, get};
use super::network::Network;
use super::plane::{Plane, Planes, Sidecar};
use super::server::{Server, topsail};

/// A control plane with a directory, and the addresses of its workloads.
pub struct Mesh {
    /// The control plane.
    pub server: Server,
    net: Network,
    planes: Planes,
    bootstrap_flags: Vec<String>,
    folder: TempDir,
}

impl Mesh {
    /// Starts a control plane with these files, given by name and content.
    pub async fn start(planes: impl Into<Planes>, files: &[(&str, &str)]) -> Self {
        let mut mesh = Self::new(planes, files);
        mesh.server.start().await;
        mesh
    }

    /// Like [`Mesh::start`], without starting the control plane.
    pub fn new(planes: impl Into<Planes>, files: &[(&str, &str)]) -> Self {
        let (folder, net) = (tempfile::tempdir().unwrap(), Network::take());
        let server = Server::new(folder.path(), net.address());
        let mesh = Self {
            server,
            net,
            planes: planes.into(),
            bootstrap_flags: Vec::new(),
            folder,
        };
        for (name, text) in files {
            mesh.write(name, text);
        }
        mesh
    }

    /// Adds an argument to later calls of `topsail bootstrap`.
    pub fn bootstrap_flag(&mut self, flag: &str) {
        self.bootstrap_flags.push(flag.into());
    }

    /// Writes a file to the directory by rename, like editors do.
    pub fn write(&self, name: &str, text: &str) {
        let partial = self.folder.path().join("partial");
        fs::write(&partial, text).unwrap();
        fs::rename(partial, self.server.config().join(name)).unwrap();
    }

    /// Replaces text in a file, by rename.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.server.config().join(name)).unwrap();
        assert!(text.contains(from), "{name} holds no `{from}`:\n{text}");
        self.write(name, &text.replace(from, to));
    }

    /// Removes a file from the directory.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.server.config().join(name)).unwrap();
    }

    /// An address unique to this test.
    pub fn address(&self) -> IpAddr {
        self.net.address()
    }

    /// The current diagnostics of the control plane.
    pub async fn diagnostics(&self) -> Vec<Value> {
        let answer = self.server.api("/api/v1/diagnostics").await;
        answer.as_array().unwrap_or_else(|| panic!("no list: {answer}")).clone()
    }

    /// Runs an HTTP application `<app>-<version>` on port 9080 of a new workload with labels `app`
    /// and `version` and service account `app`.
    pub async fn app(&self, app: &str, version: &str) -> App {
        let name = format!("{app}-{version}");
        let backend = Backend::http(&name).await;
        let workload = Workload::new(&name)
            .label("app", app)
            .label("version", version)
            .account(app);
        self.run(workload.serves(9080, "HTTP", backend)).await
    }

    /// Runs a workload `client` without inbound ports that can call HTTP services on port 9080.
    pub async fn client(&self) -> App {
        self.run(Workload::new("client").label("app", "client").calls(9080, "HTTP"))
            .await
    }

    /// Adds a workload to the directory, starts its sidecar and waits for its listeners.
    pub async fn run(&self, workload: Workload) -> App {
        let (placed, backends) = self.describe(workload);
        let plane = match placed.calls.is_empty() {
            true => self.planes.serving,
            false => self.planes.calling,
        };
        let sidecar = self.beside(plane, &placed.name, &placed.account, placed.inbound).await;
        placed.started(sidecar, backends).await
    }

    /// Writes WorkloadEntry and Sidecar of a workload.
    fn describe(&self, workload: Workload) -> (Placed, BTreeMap<u16, Backend>) {
        let (inbound, outbound) = (self.address(), self.address());
        let Workload {
            name,
            labels,
            account,
            serves,
            calls,
        } = workload;
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let mut yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\n\
             spec: {{address: {inbound}, serviceAccount: {account}, labels: {{{labels}}}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}}}\n\
             spec:\n  workloadSelector: {{labels: {{{labels}}}}}\n",
            labels = labels.join(", ")
        );
        let port =
            |number, protocol: &str| format!("port: {{number: {number}, protocol: {protocol}, name: p{number}}}");
        if !serves.is_empty() {
            yaml.push_str("  ingress:\n");
        }
        for (number, (protocol, backend)) in &serves {
            let (port, app) = (port(*number, protocol), backend.address());
            writeln!(
                yaml,
                "  - {{{port}, bind: {inbound}, captureMode: NONE, defaultEndpoint: \"{app}\"}}"
            )
            .unwrap();
        }
        yaml.push_str("  egress:\n");
        for (number, protocol) in &calls {
            let port = port(*number, protocol);
            writeln!(
                yaml,
                "  - {{{port}, bind: {outbound}, captureMode: NONE, hosts: [\"*/*\"]}}"
            )
            .unwrap();
        }
        if calls.is_empty() {
            yaml.push_str("  - hosts: [\"~/*\"]\n");
        }
        self.write(&format!("workload-{name}.yaml"), &yaml);
        let placed = Placed {
            name,
            account,
            inbound,
            outbound,
            serves: serves.keys().copied().collect(),
            calls,
        };
        (
            placed,
            serves.into_iter().map(|(port, (_, backend))| (port, backend)).collect(),
        )
    }

    /// Creates the bootstrap of a workload defined in the directory, and starts its sidecar.
    pub async fn beside(&self, plane: Plane, name: &str, account: &str, ip: IpAddr) -> Sidecar {
        let bootstrap = self.bootstrap(name, account, ip).await;
        self.launch(plane, name, ip, &bootstrap).await
    }

    /// Starts a sidecar without outbound listeners, given its bootstrap in YAML or JSON.
    pub async fn sidecar_on(&self, name: &str, ip: IpAddr, bootstrap: &str) -> Sidecar {
        self.launch(self.planes.serving, name, ip, bootstrap).await
    }

    async fn launch(&self, plane: Plane, name: &str, ip: IpAddr, bootstrap: &str) -> Sidecar {
        let path = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&path, bootstrap).unwrap();
        let launch = plane.launch(&path, SocketAddr::new(ip, 15000)).await;
        Sidecar::start(ip, &launch).await
    }

    /// Creates the bootstrap of a workload defined in the directory.
    pub async fn bootstrap(&self, name: &str, account: &str, ip: IpAddr) -> String {
        let server = self.server.xds().to_string();
        let mut command = topsail(&[
            "bootstrap",
            "--mode",
            "NONE",
            "--server",
            &server,
            "--service-account",
            account,
        ]);
        command.args(["--workload", &format!("{name}.default"), "--ip", &ip.to_string()]);
        command
            .arg("--state")
            .arg(self.server.state())
            .args(&self.bootstrap_flags);
        let output = command.output().await.unwrap();
        assert!(
            output.status.success(),
            "bootstrap: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Definition of a workload.
pub struct Workload {
    name: String,
    labels: BTreeMap<String, String>,
    account: String,
    serves: BTreeMap<u16, (&'static str, Backend)>,
    calls: Vec<(u16, &'static str)>,
}

impl Workload {
    /// A workload without labels and ports, with the service account `default`.
    pub fn new(name: &str) -> Self {
        let account = "default".into();
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            account,
            serves: BTreeMap::new(),
            calls: Vec::new(),
        }
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets the service account.
    pub fn account(mut self, account: &str) -> Self {
        self.account = account.into();
        self
    }

    /// Adds an inbound port.
    pub fn serves(mut self, port: u16, protocol: &'static str, backend: Backend) -> Self {
        self.serves.insert(port, (protocol, backend));
        self
    }

    /// Adds an outbound listener for services on this port.
    pub fn calls(mut self, port: u16, protocol: &'static str) -> Self {
        self.calls.push((port, protocol));
        self
    }
}

/// A workload with its addresses.
struct Placed {
    name: String,
    account: String,
    inbound: IpAddr,
    outbound: IpAddr,
    serves: Vec<u16>,
    calls: Vec<(u16, &'static str)>,
}

impl Placed {
    async fn started(self, sidecar: Sidecar, backends: BTreeMap<u16, Backend>) -> App {
        for port in &self.serves {
            sidecar.listens(SocketAddr::new(self.inbound, *port)).await;
        }
        for (port, _) in &self.calls {
            sidecar.listens(SocketAddr::new(self.outbound, *port)).await;
        }
        App {
            sidecar,
            inbound: self.inbound,
            outbound: self.outbound,
            backends,
        }
    }
}

/// A running workload.
pub struct App {
    /// Its sidecar.
    pub sidecar: Sidecar,
    inbound: IpAddr,
    outbound: IpAddr,
    backends: BTreeMap<u16, Backend>,
}

impl App {
    /// Address of an inbound listener.
    pub fn inbound(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.inbound, port)
    }

    /// Address of an outbound listener.
    pub fn outbound(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.outbound, port)
    }

    /// A `GET` request from its application to a service on port 9080.
    pub fn get(&self, host: &str, path: &str) -> Call {
        get(self.outbound(9080), host, path)
    }

    /// The application on port 9080.
    pub fn backend(&self) -> &Backend {
        &self.backends[&9080]
    }
}
