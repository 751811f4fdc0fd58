//! Hosts: network namespaces on one bridge, isolated from the outside.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

/// A network namespace, held by a process that reads from a pipe. The pipe is closed when this value is
/// dropped or the test is killed, which ends the process and the namespace.
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

    /// Runs a command line, split at blanks, that must succeed.
    fn run(&self, line: &str) {
        self.ran(&line.split_whitespace().collect::<Vec<_>>());
    }

    /// Runs a command that must succeed, and returns its output.
    fn ran(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command to completion.
    fn output(&self, words: &[&str]) -> Output {
        self.command(words)
            .output()
            .expect("nsenter, of the package util-linux")
    }

    /// A command that runs in the namespace; `nsenter` executes it in its own process.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).args(words);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // The process exits because its pipe is closed.
        let _ = self.holder.wait();
    }
}

/// The IP version of a [`Lan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 10.9.0.0/24.
    V4,
    /// fd09::/64.
    V6,
}

impl Family {
    fn address(self, number: u8) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::new(10, 9, 0, number).into(),
            Family::V6 => Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// A bridge to which hosts are connected.
pub struct Lan {
    family: Family,
    bridge: Namespace,
    next: AtomicU8,
}

impl Lan {
    /// A bridge without hosts.
    pub fn new(family: Family) -> Self {
        let bridge = Namespace::new();
        bridge.run("ip link add bridge type bridge");
        bridge.run("ip link set bridge up");
        Self {
            family,
            bridge,
            next: AtomicU8::new(1),
        }
    }

    /// A new host with its own address.
    pub fn host(&self) -> Host {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let address = self.family.address(number);
        let namespace = Namespace::new();
        let (port, pid) = (format!("port{number}"), namespace.holder.id());
        self.bridge
            .run(&format!("ip link add {port} type veth peer name eth0 netns {pid}"));
        self.bridge.run(&format!("ip link set {port} master bridge up"));
        namespace.run("ip link set lo up");
        namespace.run("ip link set eth0 up");
        // A default route into the bridge, so that connections to any address get as far as interception.
        match self.family {
            Family::V4 => {
                namespace.run(&format!("ip address add {address}/24 dev eth0"));
                namespace.run("ip route add default dev eth0");
            }
            Family::V6 => {
                // Skip duplicate address detection: the address is unique.
                namespace.run(&format!("ip address add {address}/64 dev eth0 nodad"));
                namespace.run("ip -6 route add default dev eth0");
            }
        }
        Host::start(namespace, address)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A host on a [`Lan`], on which code of the test can open sockets and start processes.
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    jobs: mpsc::UnboundedSender<Job>,
    namespace: Namespace,
}

impl Host {
    fn start(namespace: Namespace, address: IpAddr) -> Self {
        let file = File::open(namespace.path()).unwrap();
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        // Network namespaces are per thread: what this thread opens and starts is in the host's namespace.
        thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            // Ends when the host, and with it the sender, is dropped.
            LocalSet::new().block_on(&runtime, async {
                while let Some(job) = waiting.recv().await {
                    job();
                }
            });
        });
        Self {
            address,
            jobs,
            namespace,
        }
    }

    /// Runs code on this host.
    pub async fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        &self,
        code: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            // The receiver is gone if the test has ended.
            spawn_local(async move { answer.send(code().await).ok() });
        });
        self.jobs.send(job).expect("the host's thread ended");
        answered.await.expect("the code on the host panicked, as is said above")
    }

    /// The address of a port on this host.
    pub fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Runs a command on this host that must succeed, and returns its output.
    pub fn ran(&self, words: &[&str]) -> String {
        self.namespace.ran(words)
    }

    /// Runs a command on this host to completion.
    pub fn output(&self, words: &[&str]) -> Output {
        self.namespace.output(words)
    }

    /// A command that runs on this host; its process has the PID of the spawned child.
    pub fn command(&self, words: &[&str]) -> Command {
        self.namespace.command(words)
    }

    /// Runs `topsail` on this host, which must succeed, and returns its output.
    pub fn topsail(&self, arguments: &[&str]) -> String {
        self.ran(&[&[env!("CARGO_BIN_EXE_topsail")], arguments].concat())
    }
}

#[tokio::test]
async fn hosts_reach_only_each_other() {
    for family in [Family::V4, Family::V6] {
        let lan = Lan::new(family);
        let (one, two) = (lan.host(), lan.host());
        let to = two.port(80);
        let listener = two
            .run(move || async move { tokio::net::TcpListener::bind(to).await.unwrap() })
            .await;
        let accepted = two.run(move || async move { listener.accept().await.unwrap().1.ip() });
        let connect = move || async move { tokio::net::TcpStream::connect(to).await.map(drop) };
        let (accepted, connected) = tokio::join!(accepted, one.run(connect));
        connected.unwrap();
        assert_eq!(accepted, one.address);
        let here: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 80).into(), (Ipv6Addr::LOCALHOST, 80).into()];
        tokio::net::TcpStream::connect(&here[..]).await.unwrap_err();
        one.topsail(&["iptables", "apply"]);
        one.run(connect).await.unwrap_err();
    }
}
