//! `topsail sidecar` with interception, as the entry point of a sidecar container and of a container with the
//! application.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use topsail::envoy::Finder;

use crate::harness::{Plane, eventually, get};
use crate::hosts::{Family, Host};
use crate::interception::Rules;
use crate::on_each_plane;
use crate::stage::{Machine, Stage};

on_each_plane! {
    scaling_replicas_fails_no_requests,
    a_replica_gets_no_traffic_before_its_application_listens,
    a_killed_data_plane_is_restarted_without_root,
    the_data_plane_runs_without_root_under_tproxy,
    an_application_in_the_same_container_is_intercepted_and_its_exit_code_returned,
    a_sidecar_runs_without_root_on_a_read_only_file_system,
}

const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: web}, spec: {template: {serviceAccount: web, labels: {app: web}}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: client}, spec: {template: {serviceAccount: client, labels: {app: client}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
";

/// A mesh whose join directories `topsail init` created for user 1337.
struct Project {
    plane: Plane,
    stage: Stage,
    topsail: PathBuf,
    envoy: Option<PathBuf>,
}

impl Project {
    async fn start(plane: Plane) -> Self {
        let stage = Stage::start(plane, Family::V4, Rules::redirect(), &[MESH]).await;
        // The binaries' directories may be inaccessible to other users.
        let copied = |from: PathBuf, name: &str| {
            let to = stage.path(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
            to
        };
        let topsail = copied(env!("CARGO_BIN_EXE_topsail").into(), "topsail");
        let envoy = match plane {
            Plane::Topsail => None,
            Plane::Envoy | Plane::EnvoyRelease(_) => {
                let find = || Finder::from_env().find(&|text| eprintln!("{text}")).unwrap();
                Some(copied(tokio::task::spawn_blocking(find).await.unwrap(), "envoy"))
            }
        };
        let [config, state, join] = [stage.config(), stage.state(), stage.path("join")];
        let mut init = crate::harness::topsail(&["init", "--owner", "1337:1337", "--config"]);
        init.arg(config).arg("--state").arg(state).arg("--join").arg(join);
        let output = init.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self {
            plane,
            stage,
            topsail,
            envoy,
        }
    }

    /// A sidecar of a group member on a host.
    fn sidecar(&self, group: &str, host: &Host, more: &[&str]) -> Process {
        // A world-writable directory, like a tmpfs of the container.
        fs::create_dir_all(self.stage.path("tmp")).unwrap();
        fs::set_permissions(self.stage.path("tmp"), Permissions::from_mode(0o1777)).unwrap();
        let run = self.stage.path("tmp").join(format!("run-{}", host.address));
        let flags = [&["--run-dir", run.to_str().unwrap()], more].concat();
        let mut process = self.sidecar_within(&[], group, host, &flags);
        process.run = run;
        process
    }

    /// Like `sidecar`, run through a program that executes its arguments.
    fn sidecar_within(&self, within: &[&str], group: &str, host: &Host, more: &[&str]) -> Process {
        let number = host.address.to_string();
        let join = self.stage.path("join").join(group);
        let run = self.stage.path("tmp").join(RUN_DIR);
        let server = self.stage.xds().to_string();
        let plane = match self.plane {
            Plane::Topsail => "rust",
            Plane::Envoy | Plane::EnvoyRelease(_) => "envoy",
        };
        let mut words = within.to_vec();
        words.extend([self.topsail.to_str().unwrap(), "sidecar", "--log-format", "json"]);
        words.extend([
            "--join",
            join.to_str().unwrap(),
            "--server",
            &server,
            "--dataplane",
            plane,
        ]);
        if let Some(envoy) = &self.envoy {
            words.extend(["--envoy", envoy.to_str().unwrap()]);
        }
        words.extend(more);
        let log = self.stage.path(&format!("{number}.log"));
        let mut command = host.command(&words);
        command.stdin(Stdio::null()).stderr(File::create(&log).unwrap());
        Process {
            child: command.spawn().unwrap(),
            topsail: self.topsail.clone(),
            run,
            log,
        }
    }

    /// A host with a ready sidecar.
    async fn machine(&self, group: &str, more: &[&str]) -> (Machine, Process) {
        let machine = self.stage.stranger();
        let mut sidecar = self.sidecar(group, &machine.host, more);
        sidecar.ready(&machine.host).await;
        (machine, sidecar)
    }
}

/// A running `topsail sidecar`, stopped on drop.
struct Process {
    child: Child,
    topsail: PathBuf,
    run: PathBuf,
    log: PathBuf,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it logs that the application was started, which is later than the data plane's readiness.
    async fn has_started_its_application(&self) {
        eventually("an application that is started", async || {
            let log = self.log();
            match log.contains("application started") {
                true => Ok(()),
                false => Err(log),
            }
        })
        .await;
    }

    /// Waits until its health check succeeds.
    async fn ready(&mut self, host: &Host) {
        eventually("a sidecar that is ready", async || {
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.log());
            let (topsail, run) = (self.topsail.to_str().unwrap(), self.run.to_str().unwrap());
            let checked = host.output(&[topsail, "sidecar", "--check", "--run-dir", run]);
            match checked.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&checked.stderr).into_owned() + &self.log()),
            }
        })
        .await;
    }

    async fn ended(&mut self) -> ExitStatus {
        eventually("the end of a sidecar", async || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err(fs::read_to_string(&self.log).unwrap()),
        })
        .await
    }

    /// The data plane started last.
    fn data_plane(&self) -> Pid {
        let log = self.log();
        let started = log.lines().rfind(|line| line.contains("data plane started"));
        let line: serde_json::Value = serde_json::from_str(started.unwrap()).unwrap();
        Pid::from_raw(line["pid"].as_i64().unwrap().try_into().unwrap()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The second signal skips the drain.
            self.signal(Signal::TERM);
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// A line of `/proc/PID/status`.
fn status_of(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_is_nobody_special(pid: Pid, capabilities: &str) {
    assert_eq!(status_of(pid, "Uid:"), "1337 1337 1337 1337");
    assert_eq!(status_of(pid, "Gid:"), "1337 1337 1337 1337");
    assert_eq!(status_of(pid, "Groups:"), "");
    assert_eq!(status_of(pid, "NoNewPrivs:"), "1");
    for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(status_of(pid, set), capabilities, "{set}");
    }
}

const NOTHING: &str = "0000000000000000";
const NET_ADMIN: &str = "0000000000001000";
/// Name of the run directory in the temporary directory.
const RUN_DIR: &str = "topsail-sidecar";
const WEB: &str = "10.96.0.10:80";

fn web() -> crate::harness::Call {
    get(WEB.parse::<SocketAddr>().unwrap(), "web", "/")
}

async fn scaling_replicas_fails_no_requests(plane: Plane) {
    let project = Project::start(plane).await;
    let (first, _first_sidecar) = project.machine("web", &[]).await;
    let first = first.serves(9080, "first").await;
    let (client, _client_sidecar) = project.machine("client", &[]).await;
    let answer = client.reaches(&web()).await;
    let caller = &answer.seen().headers["x-forwarded-client-cert"];
    assert!(
        caller.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
        "{caller}"
    );

    let mut load = client.load(web(), 50).await;
    // The application is started before its sidecar.
    let second = project.stage.stranger().serves(9080, "second").await;
    let mut sidecar = project.sidecar("web", &second.host, &[]);
    sidecar.ready(&second.host).await;
    load.reaches("second").await;
    sidecar.signal(Signal::TERM);
    assert!(sidecar.ended().await.success(), "{}", sidecar.log());
    let report = load.stop().await;
    report.assert_lossless();
    assert!(report.answered["first"] > 0, "{report:?}");
    for _ in 0..20 {
        assert_eq!(client.send(&web()).await.unwrap().seen().backend, "first");
    }
    drop(first);
}

async fn a_replica_gets_no_traffic_before_its_application_listens(plane: Plane) {
    let project = Project::start(plane).await;
    let application = ["--app-user", "65534", "--", "sleep", "600"];
    // Without a probe, the application counts as ready when it is started.
    let (first, _first_sidecar) = project.machine("web", &application).await;
    let _first = first.serves(9080, "first").await;
    let (client, _client_sidecar) = project.machine("client", &[]).await;
    client.reaches(&web()).await;

    let load = client.load(web(), 50).await;
    let second = project.stage.stranger();
    let probed = [&["--app-probe", "tcp:9080"], &application[..]].concat();
    let mut sidecar = project.sidecar("web", &second.host, &probed);
    sidecar.ready(&second.host).await;
    sidecar.has_started_its_application().await;
    // Requests are sent in the meantime.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _second = second.serves(9080, "second").await;
    eventually("an answer of the second replica", async || {
        match client.send(&web()).await {
            Ok(answer) if answer.seen().backend == "second" => Ok(()),
            other => Err(format!("{other:?} {}", sidecar.log())),
        }
    })
    .await;
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await.code(), Some(128 + 15), "{}", sidecar.log());
    load.stop().await.assert_lossless();
}

async fn a_killed_data_plane_is_restarted_without_root(plane: Plane) {
    let project = Project::start(plane).await;
    let (machine, mut sidecar) = project.machine("web", &[]).await;
    let machine = machine.serves(9080, "web").await;
    let (client, _client_sidecar) = project.machine("client", &[]).await;
    client.reaches(&web()).await;
    let killed = sidecar.data_plane();
    for pid in [Pid::from_child(&sidecar.child), killed] {
        assert_is_nobody_special(pid, NOTHING);
    }
    kill_process(killed, Signal::KILL).unwrap();
    eventually("another data plane", async || match sidecar.data_plane() != killed {
        true => Ok(()),
        false => Err(sidecar.log()),
    })
    .await;
    sidecar.ready(&machine.host).await;
    assert_is_nobody_special(sidecar.data_plane(), NOTHING);
    client.reaches(&web()).await;
    // A restarted container finds the rules of the previous one.
    sidecar.signal(Signal::TERM);
    assert!(sidecar.ended().await.success());
    let mut sidecar = project.sidecar("web", &machine.host, &[]);
    sidecar.ready(&machine.host).await;
    client.reaches(&web()).await;
}

async fn the_data_plane_runs_without_root_under_tproxy(plane: Plane) {
    let project = Project::start(plane).await;
    let (machine, sidecar) = project.machine("web", &["--intercept", "tproxy"]).await;
    let machine = machine.serves(9080, "web").await;
    let (client, _client_sidecar) = project.machine("client", &[]).await;
    let seen = client.reaches(&web()).await.seen();
    assert_eq!(
        seen.peer,
        client.host.address.to_string(),
        "the application sees its client"
    );
    assert_is_nobody_special(sidecar.data_plane(), NET_ADMIN);
    drop(machine);
}

async fn an_application_in_the_same_container_is_intercepted_and_its_exit_code_returned(plane: Plane) {
    let project = Project::start(plane).await;
    let (_web, _web_sidecar) = {
        let (machine, sidecar) = project.machine("web", &[]).await;
        (machine.serves(9080, "web").await, sidecar)
    };
    // The application sends one request, so its peer must be ready.
    let (neighbour, _neighbour_sidecar) = project.machine("client", &[]).await;
    neighbour.reaches(&web()).await;
    let client = project.stage.stranger();
    // The response arrives over mutual TLS or not at all. The shell is run by root and its only HTTP client
    // is this binary.
    let answer = project.stage.path("answer");
    let script = format!(
        "id -u >{0}; exec 3<>/dev/tcp/10.96.0.10/80; \
         printf 'GET / HTTP/1.1\\r\\nhost: web\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3 >>{0}; exit 42",
        answer.display()
    );
    let application = ["--", "bash", "-c", &script];
    let mut sidecar = project.sidecar("client", &client.host, &application);
    assert_eq!(sidecar.ended().await.code(), Some(42), "{}", sidecar.log());
    let said = fs::read_to_string(&answer).unwrap();
    assert!(said.starts_with("0\nHTTP/1.1 200"), "{said}");
    assert!(said.contains("sa/client"), "{said}");

    // SIGTERM: the application keeps running until inbound connections have ended, and is then stopped.
    let server = project.stage.stranger().serves(9080, "together").await;
    let script = "trap 'exit 7' TERM; while :; do sleep 0.1; done";
    let mut sidecar = project.sidecar(
        "web",
        &server.host,
        &["--app-user", "65534", "--", "bash", "-c", script],
    );
    sidecar.has_started_its_application().await;
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await.code(), Some(7), "{}", sidecar.log());
    let log = sidecar.log();
    assert!(log.find("draining inbound connections").unwrap() < log.find("the application exited").unwrap());
}

async fn a_sidecar_runs_without_root_on_a_read_only_file_system(plane: Plane) {
    let project = Project::start(plane).await;
    // Another process has applied the rules.
    let machine = project.stage.stranger().serves(9080, "web").await;
    machine.host.topsail(&["iptables", "apply"]);
    let (folder, tmp) = (project.stage.path(""), project.stage.path("tmp"));
    fs::create_dir(&tmp).unwrap();
    let (folder, tmp) = (folder.to_str().unwrap().trim_end_matches('/'), tmp.to_str().unwrap());
    let container = format!(
        "set -e; mount --make-rprivate /; mount --bind {folder} {folder}; mount -t tmpfs -o mode=1777 tmpfs {tmp}; \
         mount -o remount,bind,ro {folder}; mount -o remount,bind,ro /; if touch {folder}/file /file; then exit 1; fi; \
         TMPDIR={tmp} exec setpriv --reuid 1337 --regid 1337 --clear-groups \"$@\""
    );
    let mut sidecar = project.sidecar_within(
        &["unshare", "--mount", "sh", "-c", &container, "sh"],
        "web",
        &machine.host,
        &["--no-iptables"],
    );
    let (client, _client_sidecar) = project.machine("client", &[]).await;
    client.reaches(&web()).await;
    for pid in [Pid::from_child(&sidecar.child), sidecar.data_plane()] {
        assert_is_nobody_special(pid, NOTHING);
    }
    let there = format!("--mount=/proc/{}/ns/mnt", sidecar.child.id());
    let run = format!("{tmp}/{RUN_DIR}");
    let check = [
        project.topsail.to_str().unwrap(),
        "sidecar",
        "--check",
        "--run-dir",
        &run,
    ];
    machine.host.ran(&[&["nsenter", &there], &check[..]].concat());
    sidecar.signal(Signal::TERM);
    assert!(sidecar.ended().await.success(), "{}", sidecar.log());
}

#[tokio::test]
async fn missing_privileges_are_reported() {
    let project = Project::start(Plane::Topsail).await;
    let machine = project.stage.stranger();
    let join = project.stage.path("join/web");
    let (topsail, join) = (project.topsail.to_str().unwrap(), join.to_str().unwrap());
    let said = |words: &[&str]| {
        let server = [
            "--join",
            join,
            "--server",
            "10.9.0.1:15012",
            "--dataplane",
            "rust",
            "--wait",
            "1s",
        ];
        let output = machine.host.output(&[words, &server[..]].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let user = ["setpriv", "--reuid", "1338", "--regid", "1338", "--clear-groups"];
    let run = project.stage.path("tmp/run");
    fs::create_dir(project.stage.path("tmp")).unwrap();
    fs::set_permissions(project.stage.path("tmp"), Permissions::from_mode(0o1777)).unwrap();
    let run = ["--run-dir", run.to_str().unwrap()];
    let plain = said(&[&user[..], &[topsail, "sidecar"], &run].concat());
    assert!(plain.contains("NET_ADMIN") && plain.contains("cap_add"), "{plain}");
    // Another process applies the rules; the directory belongs to user 1337.
    let other = said(&[&user[..], &[topsail, "sidecar", "--no-iptables"], &run].concat());
    assert!(
        other.contains("not readable by user 1338") && other.contains("--owner"),
        "{other}"
    );
    let bounded = [
        "setpriv",
        "--bounding-set",
        "-setuid",
        topsail,
        "sidecar",
        "--no-iptables",
    ];
    let kept = said(&[&bounded[..], &run].concat());
    assert!(kept.contains("SETUID"), "{kept}");
}
