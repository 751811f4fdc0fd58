//! Compose projects on this machine's Docker engine.

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process};

/// Tag of the images built by `.ci/docker`.
pub const TAG: &str = "test";

/// The Compose versions that the tests use. `.ci/docker` ensures that both are available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compose {
    /// 1.29, `docker-compose` or `$TOPSAIL_COMPOSE_1`.
    First,
    /// 2.24.4 or later, `docker compose` or `$TOPSAIL_COMPOSE_2`.
    Second,
}

impl Compose {
    /// The command that runs it.
    pub fn command(self) -> String {
        let (variable, usual) = match self {
            Self::First => ("TOPSAIL_COMPOSE_1", "docker-compose"),
            Self::Second => ("TOPSAIL_COMPOSE_2", "docker compose"),
        };
        std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
    }

    /// `$PATH` preceded by a `docker` in this directory whose `compose` subcommand is this version.
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

/// Prefix of this run's project names. Set by `.ci/docker`, which removes what is left of them if a test is
/// killed.
pub static PROJECTS: LazyLock<String> = LazyLock::new(|| {
    std::env::var("TOPSAIL_PROJECTS").unwrap_or_else(|_| format!("topsail-test-{}", std::process::id()))
});

/// Runs a program to completion and returns its output. Panics if it fails.
pub fn output(command: &mut Command) -> String {
    attempt(command).unwrap_or_else(|why| panic!("{why}"))
}

/// Runs a program to completion and returns its output, or an error.
pub fn attempt(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    match output.status.success() {
        true => Ok(out.trim().to_owned()),
        false => Err(format!("{command:?} ended with {}: {out}{err}", output.status)),
    }
}

/// Runs `docker …` to completion.
pub fn docker(arguments: &[&str]) -> String {
    output(Command::new("docker").args(arguments))
}

/// A project, removed on drop.
pub struct Project {
    name: String,
    files: Vec<PathBuf>,
    directory: PathBuf,
    compose: Compose,
    variables: Vec<(&'static str, String)>,
}

impl Project {
    /// A project of these files with relative paths below `directory`. Starts nothing.
    pub fn new(name: &str, compose: Compose, files: &[&Path], directory: &Path) -> Self {
        Self {
            name: format!("{}-{name}", *PROJECTS),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            directory: directory.to_owned(),
            compose,
            variables: vec![("TOPSAIL_TAG", TAG.to_owned())],
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a variable of the Compose file.
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

    /// Runs a Compose command to completion on a blocking thread and returns its output.
    pub async fn compose(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap()
    }

    /// The published address of a service's port.
    pub async fn published(&self, service: &str, port: u16) -> SocketAddr {
        let at = self.compose(&["port", service, &port.to_string()]).await;
        at.parse().unwrap_or_else(|error| panic!("`{at}`: {error}"))
    }

    /// The containers of a service, including exited ones.
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

    /// The network interface of the project's network on this machine.
    pub fn bridge(&self) -> String {
        let network = docker(&["network", "ls", "--quiet", "--filter", &self.label()]);
        format!("br-{network}")
    }

    /// This machine's address on that network, the source address of connections to published ports.
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

    /// The project's containers, networks and volumes.
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
        // Errors are ignored: a test that has failed must not panic again.
        let _ = self
            .command(&["down", "--volumes", "--remove-orphans", "--timeout", "1"])
            .output();
    }
}

/// A container.
pub struct Container(String);

impl Container {
    /// Its ID.
    pub fn id(&self) -> &str {
        &self.0
    }

    fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.0])
    }

    /// Its address on the project's network; `None` if it is not running or shares another container's
    /// network.
    pub fn ip(&self) -> Option<IpAddr> {
        let address = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}");
        address.split_whitespace().next()?.parse().ok()
    }

    /// Whether it is running and healthy.
    pub fn is_healthy(&self) -> Result<(), String> {
        match self.inspect("{{.State.Status}} {{.State.Health.Status}}").as_str() {
            "running healthy" => Ok(()),
            other => Err(other.to_owned()),
        }
    }

    /// Whether it exited successfully.
    pub fn has_ended(&self) -> Result<(), String> {
        match self.inspect("{{.State.Status}} {{.State.ExitCode}}").as_str() {
            "exited 0" => Ok(()),
            other => Err(format!("{other}: {}", self.logs())),
        }
    }

    /// Its logs.
    pub fn logs(&self) -> String {
        docker(&["logs", &self.0])
    }

    /// Runs a program in it to completion and returns its output.
    pub fn exec(&self, command: &[&str]) -> String {
        docker(&[&["exec", &self.0], command].concat())
    }

    /// How often the engine has restarted it.
    pub fn restarts(&self) -> u32 {
        self.inspect("{{.RestartCount}}").parse().unwrap()
    }

    /// The processes in it whose command line contains `text`.
    pub fn processes(&self, text: &str) -> Vec<Pid> {
        let table = docker(&["top", &self.0, "-eo", "pid,args"]);
        let lines = table.lines().skip(1).filter(|line| line.contains(text));
        let ids = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
        ids.filter_map(Pid::from_raw).collect()
    }

    /// Kills the only process in it whose command line contains `text`, like the OOM killer. After `docker
    /// kill` the engine would not restart the container, as it considers it stopped by the user.
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
