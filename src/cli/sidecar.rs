//! `topsail sidecar`: entry point of a sidecar container.

mod application;
mod children;
mod control_plane;
mod network;
mod plane;
mod privileges;
mod probe;
mod readiness;
mod renewal;
mod run_dir;
mod start;

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::bootstrap::{self, PortArguments};
use super::iptables::traffic::{Families, TproxyArguments, Traffic};
use super::log::LogArguments;
use super::output::Output;
use super::value::{self, Endpoint, Owner};
use super::workload::Mode;
use super::{Command, Outcome, Usage};
use crate::envoy::Finder;
use crate::interception::{self, OWN_PORTS};
use crate::mesh::service::Locality;
use application::Supervised;
use plane::{DataPlane, LogLevel, Program};
use probe::Probe;
use run_dir::RunDir;
use start::Sidecar;

const EXAMPLES: &str = "\
The sidecar waits for the --join directory, which `topsail init` populates, and takes its identity from the token; \
determines its address; installs the iptables rules (as root, with the capability NET_ADMIN); switches to user 1337; and \
runs Envoy or the bundled proxy, restarting it if it exits. On SIGTERM, inbound connections are drained for at most \
--drain-time before the data plane is stopped; a second signal stops it immediately.

A sidecar in a separate container shares the network of the application's container (`network_mode: service:NAME` in a \
Compose file). With `-- COMMAND` the application runs in the same container: it is started once the data plane has \
received its first configuration, its exit code becomes the container's, and on SIGTERM it is stopped after inbound \
connections have drained and before the data plane. The application runs as the user the container was started with, \
which must differ from the data plane's user. A member of a group becomes an endpoint once its application has been \
started or, with --app-probe or a `probe` in its WorkloadGroup, once the probe succeeds.

Only --run-dir is written to, so the container's file system can be read-only with a tmpfs at /tmp. Without root, traffic \
is not intercepted unless `topsail iptables apply` was run beforehand; use --no-iptables in that case.

Examples:
  Run in a separate container, and check its health:
    topsail sidecar --join /join/reviews-v1 --server topsail:15012
    topsail sidecar --check

  Run the application and the bundled proxy in one container:
    topsail sidecar --join /join/ratings-v1 --server topsail:15012 --dataplane rust --app-probe tcp:9080 \
      -- node ratings.js 9080

  Run without root, where the application connects to its sidecar explicitly:
    topsail sidecar --join /join/client --server topsail:15012 --intercept none --ip 127.0.0.1";

/// Arguments of `topsail sidecar`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory with the join token and root certificate, created by `topsail init`
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    join: Option<PathBuf>,

    /// xDS address of the control plane
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "check")]
    server: Option<Endpoint>,

    /// Only check whether the data plane has its configuration, for health checks: exit code 0 or 1
    #[arg(long, conflicts_with_all = ["join", "server", "command"])]
    check: bool,

    /// Data plane to run: Envoy, or the bundled proxy (rust)
    #[arg(long, value_name = "PROGRAM", value_enum, default_value_t = Plane::Envoy)]
    dataplane: Plane,

    /// Envoy binary [default: `envoy` on $PATH]
    #[arg(long, value_name = "PATH", env = "TOPSAIL_ENVOY", hide_env_values = true)]
    envoy: Option<PathBuf>,

    /// Number of worker threads of the data plane
    #[arg(long, value_name = "N", default_value = "2")]
    concurrency: NonZero<u16>,

    /// Log level of the data plane
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warning)]
    proxy_log_level: LogLevel,

    /// Traffic interception mode: iptables (REDIRECT, TPROXY), or none, where applications connect to the proxy (NONE)
    #[arg(long, value_name = "MODE", value_enum, ignore_case = true, default_value_t = Mode::Redirect)]
    intercept: Mode,

    /// Do not install iptables rules; another container runs `topsail iptables apply` beforehand
    #[arg(long)]
    no_iptables: bool,

    /// User and group of the data plane; switching to another user requires root [default: 1337:1337 for root, otherwise
    /// the current user]
    #[arg(long, value_name = "UID[:GID]")]
    user: Option<Owner>,

    /// User and group of the application; switching to another user requires root [default: the current user]
    #[arg(long, value_name = "UID[:GID]", requires = "command")]
    app_user: Option<Owner>,

    /// Readiness probe for the application on the loopback interface: a TCP connection (tcp:PORT) or an HTTP status from
    /// 200 to 399 (http:PORT[/PATH]), within 1s. A member of a group becomes an endpoint when the probe succeeds and stays
    /// one until three consecutive probes fail, 10s apart [default: the `probe` of its WorkloadGroup; without one, the
    /// start of COMMAND if given, otherwise none]
    #[arg(long, value_name = "PROBE")]
    app_probe: Option<Probe>,

    /// Run as the child of a sidecar with an application, which reports when the application has started
    #[arg(long, hide = true)]
    with_application: bool,

    /// Workload address [default: the source address of connections to the control plane]
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,

    /// Also register the container's other addresses, so that it can be reached in each of its networks. Its WorkloadGroup
    /// must allow this with the annotation topsail.io/addresses: "*"
    #[arg(long)]
    all_addresses: bool,

    /// Exit when the network namespace shared with the application's container is gone, as after a restart of that
    /// container, so that the engine restarts this one in the new namespace
    #[arg(long)]
    shared_network: bool,

    /// Locality of the workload, for locality load balancing
    #[arg(long, value_name = "REGION[/ZONE[/SUBZONE]]", value_parser = bootstrap::locality, default_value = "", hide_default_value = true)]
    locality: Locality,

    #[command(flatten)]
    ports: PortArguments,

    /// How long to wait for the --join directory (units: s, m, h, d)
    #[arg(long, value_name = "TIME", value_parser = value::span, default_value = "60s")]
    wait: Duration,

    /// How long to drain inbound connections on shutdown (units: s, m, h, d)
    #[arg(long, value_name = "TIME", value_parser = value::span, default_value = "5s")]
    drain_time: Duration,

    /// Directory for the bootstrap and the token in use; created if missing [default: topsail-sidecar in $TMPDIR or /tmp]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,

    #[command(flatten)]
    traffic: Traffic,

    #[command(flatten)]
    families: Families,

    #[command(flatten)]
    tproxy: TproxyArguments,

    #[command(flatten)]
    log: LogArguments,

    /// Application to run in the same container, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The supported data planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Plane {
    Envoy,
    Rust,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        if self.check {
            return self.print_readiness(output);
        }
        self.log.start()?;
        if self.command.is_empty() {
            return self.run_sidecar();
        }
        let together = self.together()?;
        let code = runtime()?.block_on(together.run())?;
        Ok(match code {
            0 => Outcome::Fine,
            code => Outcome::Ended(code),
        })
    }
}

/// A single-threaded runtime, because Linux privileges are per thread.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start the async runtime")
}

impl Arguments {
    fn run_dir(&self) -> PathBuf {
        let usual = || std::env::temp_dir().join("topsail-sidecar");
        self.run_dir.clone().unwrap_or_else(usual)
    }

    fn print_readiness(&self, output: &mut Output) -> anyhow::Result<Outcome> {
        let admin = RunDir::at(&self.run_dir()).admin()?;
        match runtime()?.block_on(plane::readiness(admin)) {
            Ok(()) => {
                writeln!(output.out, "ready")?;
                Ok(Outcome::Fine)
            }
            Err(why) => bail!("the data plane is not ready: {why}"),
        }
    }

    /// Runs the sidecar without an application.
    fn run_sidecar(self) -> anyhow::Result<Outcome> {
        let user = privileges::of_proxy(self.user)?;
        let program = self.program()?;
        let arguments = Sidecar {
            run_dir: self.run_dir(),
            plane: DataPlane {
                program,
                concurrency: self.concurrency,
                log_level: self.proxy_log_level,
            },
            join: self.join.context("--join is required")?,
            server: self.server.context("--server is required")?,
            probe: self.app_probe,
            with_application: self.with_application,
            mode: self.intercept,
            ip: self.ip,
            all_addresses: self.all_addresses,
            shared_network: self.shared_network,
            locality: self.locality,
            ports: self.ports,
            wait: self.wait,
            drain_time: self.drain_time,
        };
        if let Some(mode) = interception_mode(self.intercept).filter(|_| !self.no_iptables) {
            let mut plan = self.traffic.plan(mode, &self.tproxy);
            // A data plane that runs as root is recognised by its group alone, as the application may be root
            // as well.
            plan.proxy_uids = [user.uid].into_iter().filter(|uid| *uid != 0).collect();
            plan.proxy_gids = vec![user.gid];
            let own = [arguments.ports.status_port, arguments.ports.metrics_port];
            plan.inbound_ports_not
                .extend(own.into_iter().filter(|port| !OWN_PORTS.contains(port)));
            interception::apply(&plan, &self.families.families())?;
            tracing::info!("traffic is redirected to the sidecar");
        }
        privileges::become_user(user, matches!(self.intercept, Mode::Tproxy))?;
        runtime()?.block_on(arguments.run())?;
        Ok(Outcome::Fine)
    }

    fn program(&self) -> anyhow::Result<Program> {
        if self.dataplane == Plane::Rust {
            let this = std::env::current_exe().context("cannot determine the path of this executable")?;
            return Ok(Program::Topsail(this));
        }
        let finder = Finder {
            named: self.envoy.clone(),
            ..Finder::from_env()
        };
        match finder.installed()? {
            Some(path) => Ok(Program::Envoy(path)),
            None => bail!(
                "no `envoy` found on $PATH: specify one with --envoy, or use the bundled proxy with --dataplane rust"
            ),
        }
    }

    /// The application, with this program started a second time as its sidecar.
    fn together(self) -> anyhow::Result<Supervised> {
        let (proxy, user) = (
            privileges::of_proxy(self.user)?,
            privileges::of_application(self.app_user)?,
        );
        let intercepts = interception_mode(self.intercept).is_some();
        if intercepts && (proxy.uid != 0 && user.uid == proxy.uid || user.gid == proxy.gid) {
            let why = format!(
                "the application would run as {}:{}, whose traffic is not intercepted because the data plane runs as {}:{}: \
                 start the container as root, or choose different users with --user and --app-user",
                user.uid, user.gid, proxy.uid, proxy.gid
            );
            return Err(Usage(why).into());
        }
        Ok(Supervised {
            user,
            sidecar: sidecar_arguments(std::env::args_os().skip(1)),
            run: RunDir::at(&self.run_dir()),
            drain: self.drain_time,
            application: self.command,
        })
    }
}

/// Converts the arguments for a sidecar with an application to those of the sidecar alone. The parent drains
/// it before it is stopped, so it does not drain itself.
fn sidecar_arguments(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.take_while(|argument| argument != "--").collect();
    let mut kept = Vec::new();
    let mut all = arguments.drain(..);
    while let Some(argument) = all.next() {
        match argument.to_str() {
            // Also skip the flag's value.
            Some("--drain-time" | "--app-user") => drop(all.next()),
            Some(text) if text.starts_with("--drain-time=") || text.starts_with("--app-user=") => {}
            Some(_) | None => kept.push(argument),
        }
    }
    kept.extend(["--drain-time", "0s", "--with-application"].map(Into::into));
    kept
}

fn interception_mode(mode: Mode) -> Option<interception::Mode> {
    match mode {
        Mode::Redirect => Some(interception::Mode::Redirect),
        Mode::Tproxy => Some(interception::Mode::Tproxy),
        Mode::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_gets_no_application_arguments() {
        let call = |arguments: &[&str]| sidecar_arguments(arguments.iter().map(Into::into));
        assert_eq!(
            call(&[
                "sidecar",
                "--join",
                "j",
                "--drain-time",
                "9s",
                "--app-user=5",
                "--",
                "app",
                "--drain-time",
                "1s"
            ]),
            ["sidecar", "--join", "j", "--drain-time", "0s", "--with-application"]
        );
        assert_eq!(
            call(&["sidecar", "--app-user", "5", "-c", "eth1"]),
            ["sidecar", "-c", "eth1", "--drain-time", "0s", "--with-application"]
        );
    }
}
