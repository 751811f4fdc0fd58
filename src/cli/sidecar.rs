//! `topsail sidecar`: the entry point of a sidecar's container.

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

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures::future::OptionFuture;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::timeout;

use super::bootstrap::document::Bootstrap;
use super::bootstrap::{self, PortArguments, Variant};
use super::iptables::traffic::{Families, TproxyArguments, Traffic};
use super::join::{Join, Token};
use super::log::LogArguments;
use super::output::Output;
use super::value::{self, Endpoint, Host, Owner};
use super::workload::Mode;
use super::{Command, Outcome, Usage};
use crate::envoy::Finder;
use crate::interception::{self, OWN_PORTS};
use crate::lifecycle::StopSignals;
use crate::mesh::service::Locality;
use crate::name::WorkloadName;
use crate::pki::Bearer;
use crate::xds::node::ProxyType;
use application::Together;
use children::Children;
use control_plane::ControlPlane;
use plane::{DataPlane, LogLevel, Program};
use probe::Probe;
use readiness::{Readiness, STARTED, Sign};
use renewal::Renewal;
use run_dir::RunDir;

/// How long the name of the control plane may take to be found before the way to the world decides which address is
/// this container's: a control plane that is away has no name in Docker's DNS.
const LOOKUP: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
It waits for the folder --join, which `topsail init` fills, and reads in the token who it is; finds its address; puts the \
rules of interception in force (as root, with the capability NET_ADMIN); becomes the user 1337; and runs Envoy, or the \
bundled proxy, which it starts again when it dies. At SIGTERM inbound connections are told to end, for at most --drain-time, \
before the data plane is ended; a second signal ends it at once.

A sidecar of its own container shares the network of the application's (`network_mode: service:NAME` in a compose file). \
With `-- COMMAND` the application runs in the same container: it is started when the data plane has its first configuration, \
its exit code is the container's, and at SIGTERM it is asked to end when inbound connections have ended, and before the \
data plane. The application runs as the user that the container was started with, and has to be another one than the data \
plane's. A member of a group is an endpoint once its application has been started, or, with --app-probe, once it listens.

Nothing but --run-dir is written to, so that the file system of the container may be read-only with a tmpfs at /tmp. \
Without root nothing is intercepted, unless `topsail iptables apply` did so before, which --no-iptables says.

Examples:
  A container of its own, and its health check:
    topsail sidecar --join /join/reviews-v1 --server topsail:15012
    topsail sidecar --check

  The entry point of an image with the application, with the bundled proxy:
    topsail sidecar --join /join/ratings-v1 --server topsail:15012 --dataplane rust --app-probe tcp:9080 \
      -- node ratings.js 9080

  Where the application dials its sidecar, without root:
    topsail sidecar --join /join/client --server topsail:15012 --intercept none --ip 127.0.0.1";

/// What `topsail sidecar` is called with.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The folder with what the sidecar joins with: the workload's or group's of `topsail init`
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    join: Option<PathBuf>,

    /// Where the control plane serves xDS
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "check")]
    server: Option<Endpoint>,

    /// Only say whether the data plane has its configuration, for a health check: exit code 0 or 1
    #[arg(long, conflicts_with_all = ["join", "server", "command"])]
    check: bool,

    /// What runs: Envoy, or the bundled proxy (rust)
    #[arg(long, value_name = "PROGRAM", value_enum, default_value_t = Plane::Envoy)]
    dataplane: Plane,

    /// The Envoy to run [default: `envoy` on $PATH]
    #[arg(long, value_name = "PATH", env = "TOPSAIL_ENVOY", hide_env_values = true)]
    envoy: Option<PathBuf>,

    /// How many worker threads the data plane has
    #[arg(long, value_name = "N", default_value = "2")]
    concurrency: NonZero<u16>,

    /// How much the data plane logs
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warning)]
    proxy_log_level: LogLevel,

    /// How traffic reaches the data plane: by iptables (REDIRECT, TPROXY) or because applications dial it (NONE)
    #[arg(long, value_name = "MODE", value_enum, ignore_case = true, default_value_t = Mode::Redirect)]
    intercept: Mode,

    /// Leave the rules of interception to somebody else: `topsail iptables apply` in a container before this one
    #[arg(long)]
    no_iptables: bool,

    /// Whom the data plane runs as; another one than this runs as takes root [default: 1337:1337 for root, else who runs
    /// this]
    #[arg(long, value_name = "UID[:GID]")]
    user: Option<Owner>,

    /// Whom the application runs as; another one than this runs as takes root [default: who runs this]
    #[arg(long, value_name = "UID[:GID]", requires = "command")]
    app_user: Option<Owner>,

    /// What says that the application is ready, asked for on the loopback interface for as long as this runs: a connection
    /// (tcp:PORT) or a status from 200 to 399 (http:PORT[/PATH]), within a second. A member of a group is an endpoint from
    /// then on, until three probes in a row have failed, 10 seconds apart [default: that it has been started, if COMMAND is
    /// given; else nothing is waited for]
    #[arg(long, value_name = "PROBE")]
    app_probe: Option<Probe>,

    /// Called with an application by a parent, which says when it has started it
    #[arg(long, hide = true)]
    with_application: bool,

    /// The address of the workload [default: the one from which it reaches the control plane]
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,

    /// Register the other addresses that the container has, too: in several networks it is reached at each. Its
    /// WorkloadGroup has to allow that with the annotation topsail.io/addresses: "*"
    #[arg(long)]
    all_addresses: bool,

    /// End when the network is gone that is shared with the application's container, as it is when that container is
    /// started again: the engine then starts this one again, in the new network
    #[arg(long)]
    shared_network: bool,

    /// Where the workload runs, for locality load balancing
    #[arg(long, value_name = "REGION[/ZONE[/SUBZONE]]", value_parser = bootstrap::locality, default_value = "", hide_default_value = true)]
    locality: Locality,

    #[command(flatten)]
    ports: PortArguments,

    /// How long the folder --join is waited for; units are s, m, h and d
    #[arg(long, value_name = "TIME", value_parser = value::span, default_value = "60s")]
    wait: Duration,

    /// How long inbound connections may go on at the end; units are s, m, h and d
    #[arg(long, value_name = "TIME", value_parser = value::span, default_value = "5s")]
    drain_time: Duration,

    /// Where the bootstrap and the token in use are written; it is made [default: topsail-sidecar in $TMPDIR or /tmp]
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

    /// An application to run in the same container, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The data planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Plane {
    Envoy,
    Rust,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        if self.check {
            return self.tell_readiness(output);
        }
        self.log.start()?;
        if self.command.is_empty() {
            return self.alone();
        }
        let together = self.together()?;
        let code = runtime()?.block_on(together.run())?;
        Ok(match code {
            0 => Outcome::Fine,
            code => Outcome::Ended(code),
        })
    }
}

/// One thread: its privileges are those of the process.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime cannot be started")
}

impl Arguments {
    fn run_dir(&self) -> PathBuf {
        let usual = || std::env::temp_dir().join("topsail-sidecar");
        self.run_dir.clone().unwrap_or_else(usual)
    }

    fn tell_readiness(&self, output: &mut Output) -> anyhow::Result<Outcome> {
        let admin = RunDir::at(&self.run_dir()).admin()?;
        match runtime()?.block_on(plane::readiness(admin)) {
            Ok(()) => {
                writeln!(output.out, "ready")?;
                Ok(Outcome::Fine)
            }
            Err(why) => bail!("the data plane is not ready: {why}"),
        }
    }

    /// The sidecar without an application.
    fn alone(self) -> anyhow::Result<Outcome> {
        let user = privileges::of_proxy(self.user)?;
        let program = self.program()?;
        let arguments = Sidecar {
            run_dir: self.run_dir(),
            plane: DataPlane {
                program,
                concurrency: self.concurrency,
                log_level: self.proxy_log_level,
            },
            join: self.join.context("--join is needed")?,
            server: self.server.context("--server is needed")?,
            sign: match self.app_probe {
                Some(probe) => Some(Sign::Probe(probe)),
                None => self.with_application.then_some(Sign::Started),
            },
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
            // Who runs as root is known by its group alone: the application may be root, too.
            plan.proxy_uids = [user.uid].into_iter().filter(|uid| *uid != 0).collect();
            plan.proxy_gids = vec![user.gid];
            let own = [arguments.ports.status_port, arguments.ports.metrics_port];
            plan.inbound_ports_not
                .extend(own.into_iter().filter(|port| !OWN_PORTS.contains(port)));
            interception::apply(&plan, &self.families.families())?;
            tracing::info!("traffic goes through the sidecar");
        }
        privileges::become_user(user, matches!(self.intercept, Mode::Tproxy))?;
        runtime()?.block_on(arguments.run())?;
        Ok(Outcome::Fine)
    }

    fn program(&self) -> anyhow::Result<Program> {
        if self.dataplane == Plane::Rust {
            let this = std::env::current_exe().context("this program cannot be found")?;
            return Ok(Program::Topsail(this));
        }
        let finder = Finder {
            named: self.envoy.clone(),
            ..Finder::from_env()
        };
        match finder.installed()? {
            Some(path) => Ok(Program::Envoy(path)),
            None => bail!(
                "there is no `envoy` on $PATH: name one with --envoy, or run the bundled proxy with --dataplane rust"
            ),
        }
    }

    /// The application, and this program once more as its sidecar.
    fn together(self) -> anyhow::Result<Together> {
        let (proxy, user) = (
            privileges::of_proxy(self.user)?,
            privileges::of_application(self.app_user)?,
        );
        let intercepts = interception_mode(self.intercept).is_some();
        if intercepts && (proxy.uid != 0 && user.uid == proxy.uid || user.gid == proxy.gid) {
            let why = format!(
                "the application would run as {}:{}, whose traffic is not intercepted since the data plane runs as {}:{}: \
                 start the container as root, or name other users with --user and --app-user",
                user.uid, user.gid, proxy.uid, proxy.gid
            );
            return Err(Usage(why).into());
        }
        Ok(Together {
            user,
            sidecar: alone(std::env::args_os().skip(1)),
            run: RunDir::at(&self.run_dir()),
            drain: self.drain_time,
            application: self.command,
        })
    }
}

/// The arguments of a call with an application as those of its sidecar, which has been drained when it is to end.
fn alone(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.take_while(|argument| argument != "--").collect();
    let mut kept = Vec::new();
    let mut all = arguments.drain(..);
    while let Some(argument) = all.next() {
        match argument.to_str() {
            // Its value follows.
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

/// A sidecar that has the privileges it keeps.
struct Sidecar {
    plane: DataPlane,
    join: PathBuf,
    server: Endpoint,
    sign: Option<Sign>,
    mode: Mode,
    ip: Option<IpAddr>,
    all_addresses: bool,
    shared_network: bool,
    locality: Locality,
    ports: PortArguments,
    wait: Duration,
    drain_time: Duration,
    run_dir: PathBuf,
}

impl Sidecar {
    /// Runs until a signal asks for the end.
    async fn run(self) -> anyhow::Result<()> {
        let mut signals = StopSignals::catch().context("signals cannot be caught")?;
        let children = Children::collect().context("signals cannot be caught")?;
        // In any case: it would end this process.
        let started = caught(STARTED)?;
        let run = RunDir::make(&self.run_dir)?;
        let (renewal, readiness) = tokio::select! {
            set_up = self.set_up(&run) => set_up?,
            signal = signals.next() => {
                tracing::info!("stopped by {signal}");
                return Ok(());
            }
        };
        let admin = run.admin()?;
        let (control_plane, drain_time) = (renewal.control_plane.clone(), self.drain_time);
        let drain = async || {
            if !drain_time.is_zero() {
                tokio::join!(leave(&control_plane, &run), plane::drain_inbound(admin, drain_time));
            }
        };
        tokio::select! {
            ended = self.plane.keep(&run, &children, &mut signals, drain) => ended,
            never = renewal.keep() => match never {},
            Some(never) = OptionFuture::from(readiness.map(|readiness| readiness.tell(started))) => match never {},
            never = leave_when_told(&control_plane, &run) => match never? {},
            () = network::lost(control_plane.from), if self.shared_network => {
                let address = control_plane.from;
                bail!("the network with the address {address} is gone: the container that it was made for has ended");
            }
        }
    }

    /// Waits for what is needed and writes what the data plane reads.
    async fn set_up(&self, run: &RunDir) -> anyhow::Result<(Renewal, Option<Readiness>)> {
        let Join { token, roots } = Join::wait(&self.join, self.wait).await?;
        let token = newest(token, run);
        run.put_token(&token.text)?;
        let address = match self.ip {
            Some(ip) => ip,
            None => address(&self.server).await?,
        };
        let mut addresses = vec![address];
        if self.all_addresses {
            addresses.extend(network::other_addresses(address));
        }
        let (workload, group) = match &token.claims.grant.bearer {
            Bearer::Workload { name, .. } => (name.clone(), None),
            Bearer::Group(group) => (WorkloadName::member(group, address)?, Some(group.clone())),
        };
        tracing::info!(%workload, %address, "joins the mesh");
        let control_plane = ControlPlane {
            server: self.server.clone(),
            roots: roots.clone(),
            trust_domain: token.claims.trust_domain.clone(),
            from: address,
        };
        let sign = self.sign.as_ref().filter(|_| group.is_some());
        if self.sign.is_some() && sign.is_none() {
            tracing::info!("{workload} is no member of a group: its WorkloadEntry says that it is an endpoint");
        }
        let number = fastrand::u64(..);
        let bootstrap = Bootstrap {
            kind: ProxyType::Sidecar,
            workload,
            // The WorkloadGroup may have come to say another since the token was made.
            service_account: group.is_none().then(|| token.claims.grant.service_account.clone()),
            group,
            readiness_run: sign.map(|_| number),
            labels: token.claims.grant.labels.clone(),
            addresses,
            mode: self.mode.into(),
            locality: self.locality.clone(),
            server: self.server.clone(),
            variant: Variant::Delta,
            roots,
            trust_domain: token.claims.trust_domain.clone(),
            token_folder: run.path().to_owned(),
            secret_file: run.point_to_token()?,
            admin_port: self.ports.admin_port,
            status_port: self.ports.status_port,
            metrics_port: self.ports.metrics_port,
        };
        run.put_bootstrap(&bootstrap)?;
        let admin = run.admin()?;
        let readiness = sign.map(|sign| Readiness {
            control_plane: control_plane.clone(),
            run: run.clone(),
            admin,
            sign: sign.clone(),
            number,
        });
        let renewal = Renewal {
            control_plane,
            run: run.clone(),
            join: self.join.clone(),
            token,
        };
        Ok((renewal, readiness))
    }
}

/// Tells the control plane that the workload is about to end, if it registered itself. What cannot be told it hears of
/// when the data plane closes its connection.
async fn leave(control_plane: &ControlPlane, run: &RunDir) {
    let Ok(token) = Token::read(&run.token()) else { return };
    if let Bearer::Group(_) = token.claims.grant.bearer
        && let Err(error) = control_plane.leave(&token).await
    {
        tracing::info!("the control plane cannot be told of the end: {error}");
    }
}

/// The signal by which the process that has the application says that the application is about to end.
const LEAVE: Signal = Signal::USR1;

/// Leaves whenever that signal comes.
async fn leave_when_told(control_plane: &ControlPlane, run: &RunDir) -> anyhow::Result<Infallible> {
    let mut told = caught(LEAVE)?;
    loop {
        told.recv().await;
        leave(control_plane, run).await;
    }
}

fn caught(wanted: Signal) -> anyhow::Result<unix::Signal> {
    signal(SignalKind::from_raw(wanted.as_raw())).context("signals cannot be caught")
}

/// The token of the folder --join, unless one that came of it is still there from a run before.
fn newest(joined: Token, run: &RunDir) -> Token {
    match Token::read(&run.token()) {
        Ok(renewed) if renewed.succeeds(&joined) => renewed,
        Ok(_) | Err(_) => joined,
    }
}

/// The address from which the control plane is reached, or, while it has no name, the world.
async fn address(server: &Endpoint) -> anyhow::Result<IpAddr> {
    let found = match &server.host {
        Host::Address(address) => Some(*address),
        Host::Name(name) => match timeout(LOOKUP, look_up(name.as_str(), server.port)).await {
            Ok(address) => Some(address),
            Err(_) => {
                tracing::warn!(
                    "{name} is not found: the address of this workload is the one towards the default route"
                );
                None
            }
        },
    };
    let towards = found.and_then(bootstrap::address_towards);
    let usable = |address: &IpAddr| !address.is_loopback();
    let address = towards.filter(usable).unwrap_or_else(bootstrap::own_address);
    if usable(&address) {
        return Ok(address);
    }
    bail!("this container has no address but that of its loopback interface: name the workload's with --ip")
}

async fn look_up(name: &str, port: u16) -> IpAddr {
    loop {
        match tokio::net::lookup_host((name, port)).await {
            Ok(mut found) => {
                if let Some(found) = found.next() {
                    return found.ip();
                }
            }
            Err(error) => tracing::debug!(name, %error, "the control plane is not found"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_of_an_application_is_called_without_it() {
        let call = |arguments: &[&str]| alone(arguments.iter().map(Into::into));
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
