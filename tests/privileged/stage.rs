//! A mesh on isolated hosts, whose applications are not aware of it.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use topsail::envoy::{Launch, Program, User};

use crate::harness::{Answer, Backend, Call, Load, Plane, Server, Sidecar, answering, eventually, get, topsail};
use crate::hosts::{Family, Host, Lan};
use crate::interception::Rules;

/// A control plane on a host, and the network of the workloads. Drop sidecars first: they log errors when the
/// control plane disappears.
pub struct Stage {
    plane: Plane,
    server: Server,
    rules: Rules,
    _control: Host,
    lan: Lan,
    folder: TempDir,
}

impl Stage {
    /// Starts a control plane that serves a file with these documents, for hosts with this kind of sidecar.
    pub async fn start(plane: Plane, family: Family, rules: Rules, documents: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Sidecars run as other users.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let lan = Lan::new(family);
        let control = lan.host();
        let mut server = Server::new(folder.path(), control.address);
        fs::write(server.config().join("mesh.yaml"), documents.join("\n---\n")).unwrap();
        let server = control
            .run(move || async move {
                server.start().await;
                server
            })
            .await;
        Self {
            plane,
            server,
            rules,
            _control: control,
            lan,
            folder,
        }
    }

    /// A path in the stage's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration directory.
    pub fn config(&self) -> PathBuf {
        self.server.config()
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.server.state()
    }

    /// xDS address of the control plane.
    pub fn xds(&self) -> SocketAddr {
        self.server.xds()
    }

    /// Writes a file of the configuration directory, by rename.
    pub fn write(&self, name: &str, text: &str) {
        let partial = self.folder.path().join("partial");
        fs::write(&partial, text).unwrap();
        fs::rename(partial, self.server.config().join(name)).unwrap();
    }

    /// A host without a sidecar.
    pub fn stranger(&self) -> Machine {
        Machine {
            sidecar: None,
            backends: Vec::new(),
            host: self.lan.host(),
        }
    }

    /// A host with a sidecar; `name` is `<app>-<version>`, and the service account is the app.
    pub async fn machine(&self, name: &str) -> Machine {
        let (app, version) = name.split_once('-').unwrap();
        let mut machine = self.stranger();
        let address = machine.host.address;
        let entry = format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}}}, \
             spec: {{address: \"{address}\", serviceAccount: {app}, labels: {{app: {app}, version: {version}}}}}}}"
        );
        self.write(&format!("workload-{name}.yaml"), &entry);
        self.rules.apply(&machine.host);
        let launch = self.launch(name, app, address).await;
        let started = machine
            .host
            .run(move || async move { Sidecar::start(address, &launch).await });
        machine.sidecar = Some(started.await);
        machine
    }

    /// Generates a sidecar's bootstrap, with a token that belongs to the sidecar's user.
    async fn launch(&self, name: &str, account: &str, address: IpAddr) -> Launch {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let token = folder.join("token");
        let (server, mode) = (self.server.xds().to_string(), self.rules.mode);
        let mut command = topsail(&["bootstrap", "--mode", mode, "--server", &server]);
        command
            .args(["--workload", &format!("{name}.default"), "--service-account", account])
            .args(["--ip", &address.to_string()]);
        command
            .arg("--state")
            .arg(self.server.state())
            .arg("--token-file")
            .arg(&token);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let User { uid, gid } = self.rules.proxy;
        chown(&token, Some(uid), Some(gid)).unwrap();
        // The bundled proxy persists its last configuration next to its bootstrap.
        chown(&folder, Some(uid), Some(gid)).unwrap();
        let bootstrap = folder.join("envoy.yaml");
        fs::write(&bootstrap, output.stdout).unwrap();
        let admin: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let launch = self.plane.launch(&bootstrap, SocketAddr::new(admin, 15000)).await;
        let program = match &launch.program {
            Program::Envoy(path) => Program::Envoy(self.within_reach(path)),
            Program::Topsail(path) => Program::Topsail(self.within_reach(path)),
        };
        Launch {
            program,
            user: Some(self.rules.proxy),
            ..launch
        }
    }

    /// Copies a binary to the stage's directory, since its own may be inaccessible to other users.
    fn within_reach(&self, binary: &Path) -> PathBuf {
        let reachable = self.folder.path().join("sidecar");
        if !reachable.exists() && fs::hard_link(binary, &reachable).is_err() {
            fs::copy(binary, &reachable).unwrap();
        }
        reachable
    }
}

/// A host, optionally with a sidecar, and its applications. Dropping it stops them, the sidecar first.
pub struct Machine {
    sidecar: Option<Sidecar>,
    backends: Vec<Backend>,
    /// The host.
    pub host: Host,
}

impl Machine {
    /// Adds an HTTP application on a port.
    pub async fn serves(mut self, port: u16, name: &'static str) -> Self {
        let at = self.anywhere(port);
        let backend = self.host.run(move || Backend::http_at(at, name)).await;
        self.backends.push(backend);
        self
    }

    /// Adds a TCP application on a port.
    pub async fn serves_tcp(mut self, port: u16, name: &'static str) -> Self {
        let at = self.anywhere(port);
        let backend = self.host.run(move || Backend::tcp_at(at, name)).await;
        self.backends.push(backend);
        self
    }

    fn anywhere(&self, port: u16) -> SocketAddr {
        match self.host.address {
            IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        }
    }

    /// Sends a request from this host.
    pub async fn send(&self, call: &Call) -> Result<Answer, String> {
        let call = call.clone();
        self.host.run(move || async move { call.send().await }).await
    }

    /// Sends `GET /` for `host` to an address, from this host.
    pub async fn get(&self, to: SocketAddr, host: &str) -> Result<Answer, String> {
        self.send(&get(to, host, "/")).await
    }

    /// Sends a request from this host until the response is 200.
    pub async fn reaches(&self, call: &Call) -> Answer {
        eventually(&format!("an answer for {call:?}"), async || {
            let answer = self.send(call).await?;
            match answer.status.as_u16() {
                200 => Ok(answer),
                status => Err(format!("{status}: {}", answer.text())),
            }
        })
        .await
    }

    /// Sends a request from this host until the response is no longer 200.
    pub async fn is_refused(&self, call: &Call) {
        eventually(&format!("no answer for {call:?}"), async || {
            match self.send(call).await {
                Ok(answer) if answer.status == 200 => Err(answer.text()),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// The name of the TCP application at an address.
    pub async fn tcp(&self, to: SocketAddr) -> Result<String, String> {
        let code = move || async move {
            let stream = tokio::net::TcpStream::connect(to).await;
            answering(stream.map_err(|error| error.to_string())?).await
        };
        self.host.run(code).await
    }

    /// Starts a load from this host.
    pub async fn load(&self, call: Call, per_second: u32) -> Load {
        self.host
            .run(move || async move { Load::start(call, per_second) })
            .await
    }
}
