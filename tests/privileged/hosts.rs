//! Machines: network namespaces on one bridge, with no way to the world outside.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A network namespace. It lasts as long as the process in it, and that as long as this value: it reads from a
/// pipe that closes with it, even when the test is killed.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", "echo made; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare, of the package util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "made\n",
            "network namespaces take root, or user namespaces: run `.ci/privileged`"
        );
        Self { holder }
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Runs a command line of words without blanks in it, which has to succeed.
    fn run(&self, line: &str) {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .args(line.split_whitespace());
        let output = command.output().expect("nsenter, of the package util-linux");
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Its pipe is closed, so it ends.
        let _ = self.holder.wait();
    }
}

/// A bridge that hosts are plugged into; its addresses are 10.9.0.0/24.
pub struct Lan {
    bridge: Namespace,
    next: AtomicU8,
}

impl Lan {
    /// A bridge without hosts.
    pub fn new() -> Self {
        let bridge = Namespace::new();
        bridge.run("ip link add bridge type bridge");
        bridge.run("ip link set bridge up");
        Self {
            bridge,
            next: AtomicU8::new(1),
        }
    }

    /// A new host with an address of its own.
    pub fn host(&self) -> Host {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(10, 9, 0, number);
        let namespace = Namespace::new();
        let (port, pid) = (format!("port{number}"), namespace.holder.id());
        self.bridge
            .run(&format!("ip link add {port} type veth peer name eth0 netns {pid}"));
        self.bridge.run(&format!("ip link set {port} master bridge up"));
        namespace.run("ip link set lo up");
        namespace.run("ip link set eth0 up");
        namespace.run(&format!("ip address add {address}/24 dev eth0"));
        // Whatever has no other place leads into the bridge, so that connecting gets as far as interception.
        namespace.run("ip route add default dev eth0");
        Host::start(namespace, address.into())
    }
}

/// A machine on a [`Lan`]: sockets and processes of the code that runs here are there.
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    runtime: Handle,
    _stop: oneshot::Sender<()>,
    namespace: Namespace,
}

impl Host {
    fn start(namespace: Namespace, address: IpAddr) -> Self {
        let file = File::open(namespace.path()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, handle) = mpsc::channel();
        // A thread can be in another network namespace than its process; what it opens and starts is there too.
        thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            started.send(runtime.handle().clone()).unwrap();
            // The sender is dropped with the host.
            let _ = runtime.block_on(stopped);
        });
        Self {
            address,
            runtime: handle.recv().unwrap(),
            _stop: stop,
            namespace,
        }
    }

    /// Runs code on this machine.
    pub async fn run<T: Send + 'static>(&self, code: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(code).await.unwrap()
    }

    /// Redirects TCP as Istio does for a sidecar: what the machine sends goes to port 15001, but for what
    /// the proxy itself (`user`) sends; what it receives goes to port 15006.
    pub fn intercept(&self, user: u32) {
        for rule in [
            &format!("OUTPUT -p tcp -m owner --uid-owner {user} -j RETURN"),
            "OUTPUT -p tcp -d 127.0.0.0/8 -j RETURN",
            "OUTPUT -p tcp -j REDIRECT --to-ports 15001",
            "PREROUTING -p tcp --dport 15021 -j RETURN",
            "PREROUTING -p tcp -j REDIRECT --to-ports 15006",
        ] {
            self.namespace.run(&format!("iptables -t nat -A {rule}"));
        }
    }
}

#[tokio::test]
async fn machines_reach_each_other_and_nothing_else() {
    let lan = Lan::new();
    let (one, two) = (lan.host(), lan.host());
    let to = std::net::SocketAddr::new(two.address, 80);
    let listener = two
        .run(async move { tokio::net::TcpListener::bind(to).await.unwrap() })
        .await;
    let accepted = two.run(async move { listener.accept().await.unwrap().1.ip() });
    let connected = one.run(async move { tokio::net::TcpStream::connect(to).await.map(drop) });
    let (accepted, connected) = tokio::join!(accepted, connected);
    connected.unwrap();
    assert_eq!(accepted, one.address);
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 80))
        .await
        .unwrap_err();
    one.intercept(1337);
    one.run(async move { tokio::net::TcpStream::connect(to).await.map(drop).unwrap_err() })
        .await;
}
