//! `topsail sidecar` without interception, which requires no root.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::interval;
use topsail::envoy::Finder;

use crate::run::{fails, path, run, stdout, text, topsail};
use crate::serve::Server;
use crate::token::claims;

/// Timeout of anything awaited, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

const MESH: &str = "\
{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: web},
 spec: {template: {serviceAccount: web, labels: {app: web}}}}
";

/// Waits until a condition holds.
async fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut tick = interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if let Some(value) = holds() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what} has not happened");
    }
}

/// A server, and a directory for a sidecar of the group `web` with an address of its own.
struct Home {
    folder: tempfile::TempDir,
    server: Server,
    address: IpAddr,
}

impl Home {
    fn new(number: u8) -> Self {
        let folder = crate::serve::folder();
        fs::write(folder.path().join("config/mesh.yaml"), MESH).unwrap();
        let server = Server::start(&folder, &[]);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 131 + number, high, low | 1).into();
        Self {
            folder,
            server,
            address,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn join(&self, ttl: &str) {
        let [config, state, join] = ["config", "state", "join"].map(|name| path(&self.folder, name));
        let init = [
            "init", "--config", &config, "--state", &state, "--join", &join, "--ttl", ttl,
        ];
        stdout(&init);
    }

    fn sidecar(&self, plane: &str, more: &[&str]) -> Sidecar {
        let mut command = topsail(&["sidecar", "--intercept", "none", "--dataplane", plane, "--wait", "120s"]);
        command.args([
            "--server",
            &self.server.xds.to_string(),
            "--ip",
            &self.address.to_string(),
        ]);
        command.args(["--join", &path(&self.folder, "join/web")]);
        command.args(["--run-dir", &path(&self.folder, "run"), "--log-format", "json"]);
        // Root's sidecars switch to another user, which cannot access the test's directories.
        let user = rustix::process::geteuid().as_raw();
        command.args(["--user", &format!("{user}:{}", rustix::process::getegid().as_raw())]);
        command
            .arg("--envoy")
            .arg(Finder::from_env().find(&|text| eprintln!("{text}")).unwrap());
        command.args(more);
        let log = self.path("sidecar.log");
        command.stdout(File::create(self.path("out")).unwrap());
        command.stderr(File::create(&log).unwrap());
        Sidecar {
            child: command.stdin(Stdio::null()).spawn().unwrap(),
            log,
        }
    }

    fn is_ready(&self) -> bool {
        let output = run(&["sidecar", "--check", "--run-dir", &path(&self.folder, "run")]);
        output.status.success()
    }

    /// Whether its member receives traffic; `None` if it is not registered.
    fn member_is_ready(&self) -> Option<bool> {
        let status = run(&["status", "-o", "json", "--admin", &self.server.admin.to_string()]);
        let status: serde_json::Value = serde_json::from_str(text(&status.stdout)).unwrap();
        status["registered"][0]["ready"].as_bool()
    }

    fn token(&self, folder: &str) -> String {
        fs::read_to_string(self.path(folder).join("token")).unwrap_or_default()
    }
}

/// A running sidecar, killed on drop.
struct Sidecar {
    child: Child,
    log: PathBuf,
}

impl Sidecar {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the end of the sidecar", || child.try_wait().unwrap()).await
    }

    /// PID of the data plane started last.
    fn data_plane(&self) -> Option<Pid> {
        let log = self.log();
        let started = log.lines().rfind(|line| line.contains("data plane started"))?;
        let line: serde_json::Value = serde_json::from_str(started).unwrap();
        Pid::from_raw(i32::try_from(line["pid"].as_i64()?).unwrap())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Its data plane is stopped with it.
            let _ = kill_process(self.pid(), Signal::TERM);
            let _ = kill_process(self.pid(), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

async fn the_data_plane_is_restarted_and_stops_with_its_sidecar(plane: &str, number: u8) {
    let home = Home::new(number);
    let mut sidecar = home.sidecar(plane, &[]);
    // The join directory is provisioned later.
    eventually("that it says what it waits for", || {
        sidecar.log().contains("waiting for `topsail init`").then_some(())
    })
    .await;
    let why = fails(1, &["sidecar", "--check", "--run-dir", &path(&home.folder, "run")]);
    assert!(why.contains("not been set up"), "{why}");
    home.join("1h");
    eventually("readiness", || home.is_ready().then_some(())).await;
    let first = sidecar.data_plane().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    let second = eventually("another data plane", || {
        sidecar.data_plane().filter(|pid| *pid != first)
    })
    .await;
    assert!(sidecar.log().contains("SIGKILL"), "its end is told");
    eventually("readiness again", || home.is_ready().then_some(())).await;
    eventually("the member", || home.member_is_ready().filter(|ready| *ready)).await;
    kill_process(sidecar.pid(), Signal::TERM).unwrap();
    // The control plane is told before the connection is closed.
    assert!(sidecar.ended().await.success(), "{}", sidecar.log());
    eventually("the member to be out of service", || {
        home.member_is_ready().filter(|ready| !ready)
    })
    .await;
    assert!(kill_process(second, Signal::TERM).is_err(), "the data plane is gone");
    assert!(!home.is_ready());
    let token = home.token("join/web");
    assert!(
        !token.is_empty() && !sidecar.log().contains(&token),
        "no secret is logged"
    );
}

#[tokio::test]
async fn envoy_is_restarted_and_stops_with_its_sidecar() {
    the_data_plane_is_restarted_and_stops_with_its_sidecar("envoy", 0).await;
}

#[tokio::test]
async fn the_bundled_proxy_is_restarted_and_stops_with_its_sidecar() {
    the_data_plane_is_restarted_and_stops_with_its_sidecar("rust", 1).await;
}

#[tokio::test]
async fn tokens_are_renewed_at_half_of_their_lifetime() {
    let home = Home::new(2);
    home.join("40s");
    let first = home.token("join/web");
    let sidecar = home.sidecar("rust", &[]);
    let renewed = eventually("another token", || {
        let token = home.token("run");
        (!token.is_empty() && token != first).then_some(token)
    })
    .await;
    let state = path(&home.folder, "state");
    let renewed = claims(&state, &renewed);
    assert!(renewed.expires_at > SystemTime::now());
    assert_eq!(renewed.lifetime(), Duration::from_secs(40));
    assert_eq!(renewed.grant.bearer.to_string(), "the members of the group web.default");
    // The next start uses it as well.
    eventually("the folder's token", || (home.token("join/web") != first).then_some(())).await;
    drop(sidecar);
}

/// An application that logs its signals and exits with 7 on SIGTERM.
fn application(home: &Home) -> PathBuf {
    let script = home.path("application.sh");
    let out = path(&home.folder, "happened");
    let text = format!(
        "echo started >> {out}\n\
         trap 'echo asked >> {out}; exit 7' TERM\n\
         trap 'echo told >> {out}' USR2\n\
         while :; do sleep 0.1; done\n"
    );
    fs::write(&script, text).unwrap();
    script
}

/// A port of the loopback interface that is currently free.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// An application that responds to every request with a status, for as long as the test runs.
fn answers(port: u16, status: &'static str) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // TCP probes send nothing.
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        }
    });
}

#[tokio::test]
async fn workload_groups_define_readiness_probes() {
    let home = Home::new(6);
    let group = |probe: &str| {
        let text = MESH.replace("spec: {", &format!("spec: {{{probe}"));
        fs::write(home.path("config/mesh.yaml"), text).unwrap();
    };
    let (listens, is_well, is_ill) = (free_port(), free_port(), free_port());
    let becomes = async |what: &str, expected: bool| {
        eventually(what, || home.member_is_ready().filter(|ready| *ready == expected)).await;
    };
    answers(is_well, "204 No Content");
    answers(is_ill, "503 Service Unavailable");
    group(&format!(
        "probe: {{periodSeconds: 1, tcpSocket: {{port: {listens}}}}}, "
    ));
    home.join("1h");
    let sidecar = home.sidecar("rust", &[]);
    let heard = |times| {
        let log = sidecar.log();
        (log.matches("probe is taken from the WorkloadGroup").count() == times).then_some(())
    };
    eventually("that it hears of the probe", || heard(1)).await;
    becomes("a member that is not ready", false).await;
    let listener = TcpListener::bind(("127.0.0.1", listens)).unwrap();
    becomes("a member whose application listens", true).await;

    // Edits reach running sidecars.
    group(&format!(
        "probe: {{periodSeconds: 1, failureThreshold: 1, httpGet: {{port: {is_ill}}}}}, "
    ));
    becomes("a member whose application is ill", false).await;
    group(&format!(
        "probe: {{periodSeconds: 1, successThreshold: 2, httpGet: {{port: {is_well}}}}}, "
    ));
    becomes("a member whose application is well", true).await;
    drop(listener);
    group(&format!(
        "probe: {{periodSeconds: 1, failureThreshold: 2, tcpSocket: {{port: {listens}}}}}, "
    ));
    becomes("a member whose application is gone", false).await;
    group("");
    becomes("a member that is not asked", true).await;
}

#[tokio::test]
async fn app_probe_overrides_the_workload_group() {
    let home = Home::new(7);
    let (well, nobody) = (free_port(), free_port());
    let probe = format!("spec: {{probe: {{failureThreshold: 1, periodSeconds: 1, tcpSocket: {{port: {nobody}}}}}, ");
    fs::write(home.path("config/mesh.yaml"), MESH.replace("spec: {", &probe)).unwrap();
    answers(well, "200 OK");
    home.join("1h");
    let sidecar = home.sidecar("rust", &["--app-probe", &format!("http:{well}/health")]);
    eventually("the member", || home.member_is_ready().filter(|ready| *ready)).await;
    assert!(sidecar.log().contains("--app-probe overrides"), "{}", sidecar.log());
}

async fn the_application_starts_after_its_sidecar_and_stops_before_it(plane: &str, number: u8) {
    let home = Home::new(number);
    let script = application(&home);
    let happened = || fs::read_to_string(home.path("happened")).unwrap_or_default();
    let command = ["--drain-time", "3s", "--", "sh", script.to_str().unwrap()];
    let mut sidecar = home.sidecar(plane, &command);
    home.join("1h");
    eventually("the application", || (happened() == "started\n").then_some(())).await;
    assert!(home.is_ready(), "it starts when the data plane is ready");
    eventually("the member", || home.member_is_ready().filter(|ready| *ready)).await;
    kill_process(sidecar.pid(), Signal::USR2).unwrap();
    eventually("another signal", || (happened() == "started\ntold\n").then_some(())).await;
    kill_process(sidecar.pid(), Signal::TERM).unwrap();
    eventually("the member to be out of service", || {
        home.member_is_ready().filter(|ready| !ready)
    })
    .await;
    eventually("the application to be asked", || {
        happened().ends_with("asked\n").then_some(())
    })
    .await;
    assert_eq!(sidecar.ended().await.code(), Some(7), "{}", sidecar.log());
    let log = sidecar.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no `{text}` in {log}"));
    assert!(at("draining inbound connections") < at("the application exited"));
    assert!(
        at("the application exited") < at("stopping on SIGTERM\""),
        "the sidecar's own end is last"
    );
    let admin = (home.address, 15000);
    assert!(TcpStream::connect(admin).is_err(), "nothing is left");
}

#[tokio::test]
async fn the_application_starts_after_envoy_and_stops_before_it() {
    the_application_starts_after_its_sidecar_and_stops_before_it("envoy", 3).await;
}

#[tokio::test]
async fn the_application_starts_after_the_bundled_proxy_and_stops_before_it() {
    the_application_starts_after_its_sidecar_and_stops_before_it("rust", 4).await;
}

#[tokio::test]
async fn the_exit_code_is_the_applications() {
    let home = Home::new(5);
    home.join("1h");
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)] {
        let mut sidecar = home.sidecar("rust", &["--", "sh", "-c", script]);
        assert_eq!(sidecar.ended().await.code(), Some(code), "{script}: {}", sidecar.log());
    }
    let mut sidecar = home.sidecar("rust", &["--", "/nowhere/application"]);
    assert_eq!(sidecar.ended().await.code(), Some(1));
    assert!(sidecar.log().contains("/nowhere/application"), "{}", sidecar.log());
}

#[test]
fn startup_failures_name_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = path(&folder, "run");
    let user = format!(
        "{}:{}",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw()
    );
    let server = [
        "--server",
        "127.0.0.1:1",
        "--user",
        &user,
        "--run-dir",
        &run_dir,
        "--log-level",
        "error",
    ];
    let none = ["sidecar", "--intercept", "none", "--dataplane", "rust"];
    let call = |more: &[&'static str]| [&none[..], &server[..], more].concat();
    let join = path(&folder, "join");
    fails(2, &["sidecar"]);
    fails(2, &["sidecar", "--join", "a"]);
    fails(2, &["sidecar", "--check", "--join", "a"]);
    assert!(fails(1, &[&call(&["--wait", "0s"])[..], &["--join", &join]].concat()).contains("topsail init"));
    fs::create_dir(&join).unwrap();
    fs::write(Path::new(&join).join("token"), "no token").unwrap();
    assert!(fails(1, &[&call(&[])[..], &["--join", &join]].concat()).contains("not a join token"));
    let why = fails(
        1,
        &[
            "sidecar",
            "--join",
            &join,
            "--server",
            "a:1",
            "--envoy",
            "/nowhere/envoy",
        ],
    );
    assert!(why.contains("/nowhere/envoy"), "{why}");
    let same = [
        "sidecar",
        "--join",
        &join,
        "--server",
        "a:1",
        "--user",
        &user,
        "--app-user",
        &user,
        "--",
        "true",
    ];
    let why = fails(2, &same);
    assert!(why.contains("not intercepted"), "{why}");
    if user != "0:0" {
        assert!(fails(2, &["sidecar", "--join", &join, "--server", "a:1", "--user", "1"]).contains("requires root"));
    }
}
