//! A compose project on the Docker engine of this machine.

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process};

/// What the images that `.ci/docker` makes are tagged with.
pub const TAG: &str = "test";

/// The versions of Compose that projects are run with. `.ci/docker` sees to it that both are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compose {
    /// 1.29, `docker-compose`; `$TOPSAIL_COMPOSE_1` says how it is called.
    First,
    /// From 2.24.4 on, `docker compose`; `$TOPSAIL_COMPOSE_2` says how it is called.
    Second,
}

impl Compose {
    /// How it is called.
    pub fn command(self) -> String {
        let (variable, usual) = match self {
            Self::First => ("TOPSAIL_COMPOSE_1", "docker-compose"),
            Self::Second => ("TOPSAIL_COMPOSE_2", "docker compose"),
        };
        std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
    }

    /// `$PATH` with a `docker` first, made in this folder, whose `compose` is this one.
    pub fn path(self, folder: &Path) -> String {
        let shim = folder.join("docker");
        let real = output(Command::new("which").arg("docker"));
        let compose = self.command().replace("docker ", &format!("{real} "));
        let script = format!("#!/bin/sh\n[ \"$1\" = compose ] || exec {real} \"$@\"\nshift\nexec {compose} \"$@\"\n");
        fs::write(&shim, script).unwrap();
        fs::set_permissions(&shim, Permissions::from_mode(0o755)).unwrap();
        format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
    }
}

/// What the names of the projects of this run begin with: `.ci/docker` says it, and removes what is left of them when a
/// test has been killed.
pub static PROJECTS: LazyLock<String> = LazyLock::new(|| {
    std::env::var("TOPSAIL_PROJECTS").unwrap_or_else(|_| format!("topsail-test-{}", std::process::id()))
});

/// Runs a program to its end: what it printed. Fails the test when it fails.
pub fn output(command: &mut Command) -> String {
    attempt(command).unwrap_or_else(|why| panic!("{why}"))
}

/// Runs a program to its end: what it printed, or how it failed.
pub fn attempt(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    match output.status.success() {
        true => Ok(out.trim().to_owned()),
        false => Err(format!("{command:?} ended with {}: {out}{err}", output.status)),
    }
}

/// `docker …`, to its end.
pub fn docker(arguments: &[&str]) -> String {
    output(Command::new("docker").args(arguments))
}

/// A project. Dropping it removes all that is left of it.
pub struct Project {
    name: String,
    files: Vec<PathBuf>,
    directory: PathBuf,
    compose: Compose,
    variables: Vec<(&'static str, String)>,
}

impl Project {
    /// The project of these files, whose relative paths are below `directory`. Nothing is started.
    pub fn new(name: &str, compose: Compose, files: &[&Path], directory: &Path) -> Self {
        Self {
            name: format!("{}-{name}", *PROJECTS),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            directory: directory.to_owned(),
            compose,
            variables: vec![("TOPSAIL_TAG", TAG.to_owned())],
        }
    }

    /// What Compose calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With a variable of the file.
    pub fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let compose = self.compose.command();
        let mut words = compose.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["--project-name", &self.name]);
        command.arg("--project-directory").arg(&self.directory);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        command.args(arguments).envs(self.variables.iter().cloned());
        command
    }

    /// A command of Compose, to its end, on a thread of its own: what it printed.
    pub async fn compose(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap()
    }

    /// Where a port of a service is published.
    pub async fn published(&self, service: &str, port: u16) -> SocketAddr {
        let at = self.compose(&["port", service, &port.to_string()]).await;
        at.parse().unwrap_or_else(|error| panic!("`{at}`: {error}"))
    }

    /// The containers of a service, those that ended included.
    pub fn containers(&self, service: &str) -> Vec<Container> {
        let service = format!("label=com.docker.compose.service={service}");
        let ids = docker(&[
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &self.label(),
            "--filter",
            &service,
        ]);
        ids.lines().map(|id| Container(id.to_owned())).collect()
    }

    /// The only container of a service.
    pub fn container(&self, service: &str) -> Container {
        let mut containers = self.containers(service);
        assert_eq!(containers.len(), 1, "containers of {service}");
        containers.remove(0)
    }

    /// The network interface on this machine that is the project's network.
    pub fn bridge(&self) -> String {
        let network = docker(&["network", "ls", "--quiet", "--filter", &self.label()]);
        format!("br-{network}")
    }

    /// The address of this machine on that network, from which published ports are reached.
    pub fn gateway(&self) -> IpAddr {
        let network = docker(&["network", "ls", "--quiet", "--filter", &self.label()]);
        let gateway = docker(&[
            "network",
            "inspect",
            "--format",
            "{{(index .IPAM.Config 0).Gateway}}",
            &network,
        ]);
        gateway.parse().unwrap()
    }

    /// The containers, networks and volumes there are.
    pub fn leftovers(&self) -> Vec<String> {
        let label = self.label();
        let of = |kind: &str, arguments: &[&str]| {
            let all = docker(&[arguments, &["--quiet", "--filter", &label]].concat());
            all.lines().map(|id| format!("{kind} {id}")).collect::<Vec<_>>()
        };
        [
            of("container", &["ps", "--all"]),
            of("network", &["network", "ls"]),
            of("volume", &["volume", "ls"]),
        ]
        .concat()
    }

    fn label(&self) -> String {
        format!("label=com.docker.compose.project={}", self.name)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if self.leftovers().is_empty() {
            return;
        }
        if std::thread::panicking() {
            let logs = self.command(&["logs", "--no-color", "--tail", "40"]).output();
            eprintln!(
                "{}",
                String::from_utf8_lossy(&logs.map(|logs| logs.stdout).unwrap_or_default())
            );
            eprintln!("{}", docker(&["ps", "--all", "--filter", &self.label()]));
        }
        // A test that has failed already fails of nothing more.
        let _ = self
            .command(&["down", "--volumes", "--remove-orphans", "--timeout", "1"])
            .output();
    }
}

/// A container.
pub struct Container(String);

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.0
    }

    fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.0])
    }

    /// Its address on the project's network; `None` while it is not running, or has the network of another.
    pub fn ip(&self) -> Option<IpAddr> {
        let address = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}");
        address.split_whitespace().next()?.parse().ok()
    }

    /// Whether it runs and its health check passes.
    pub fn is_healthy(&self) -> Result<(), String> {
        match self.inspect("{{.State.Status}} {{.State.Health.Status}}").as_str() {
            "running healthy" => Ok(()),
            other => Err(other.to_owned()),
        }
    }

    /// Whether it ran to a good end.
    pub fn has_ended(&self) -> Result<(), String> {
        match self.inspect("{{.State.Status}} {{.State.ExitCode}}").as_str() {
            "exited 0" => Ok(()),
            other => Err(format!("{other}: {}", self.logs())),
        }
    }

    /// What it printed.
    pub fn logs(&self) -> String {
        docker(&["logs", &self.0])
    }

    /// Runs a program in it, to its end: what it printed.
    pub fn exec(&self, command: &[&str]) -> String {
        docker(&[&["exec", &self.0], command].concat())
    }

    /// How often the engine has started it again.
    pub fn restarts(&self) -> u32 {
        self.inspect("{{.RestartCount}}").parse().unwrap()
    }

    /// The processes in it whose command line holds `text`.
    pub fn processes(&self, text: &str) -> Vec<Pid> {
        let table = docker(&["top", &self.0, "-eo", "pid,args"]);
        let lines = table.lines().skip(1).filter(|line| line.contains(text));
        let ids = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
        ids.filter_map(Pid::from_raw).collect()
    }

    /// Kills the only process in it whose command line holds `text`, as the kernel does when memory runs out: the
    /// engine does not take it for the user's wish, as it does `docker kill`.
    pub fn kill_process(&self, text: &str) {
        let processes = self.processes(text);
        assert_eq!(
            processes.len(),
            1,
            "processes with `{text}` in {}",
            docker(&["top", &self.0])
        );
        kill_process(processes[0], Signal::KILL).unwrap();
    }
}
