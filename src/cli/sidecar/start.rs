//! Life of a sidecar after privileges are dropped: it joins, runs its data plane, and leaves.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::OptionFuture;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use super::children::Children;
use super::control_plane::ControlPlane;
use super::network;
use super::plane::{self, DataPlane};
use super::probe::Probe;
use super::readiness::{Readiness, STARTED};
use super::renewal::Renewal;
use super::run_dir::RunDir;
use crate::cli::bootstrap::document::Bootstrap;
use crate::cli::bootstrap::{PortArguments, Variant};
use crate::cli::join::{Join, Token};
use crate::cli::value::Endpoint;
use crate::cli::workload::Mode;
use crate::lifecycle::StopSignals;
use crate::mesh::service::Locality;
use crate::name::WorkloadName;
use crate::pki::Bearer;
use crate::xds::node::ProxyType;

/// A sidecar whose privileges have been dropped.
pub(super) struct Sidecar {
    /// The data plane.
    pub plane: DataPlane,
    /// The join directory.
    pub join: PathBuf,
    /// xDS address of the control plane.
    pub server: Endpoint,
    /// The probe of `--app-probe`, which overrides that of the WorkloadGroup.
    pub probe: Option<Probe>,
    /// Whether a parent process starts the application and announces it.
    pub with_application: bool,
    /// Interception mode.
    pub mode: Mode,
    /// The workload's address; `None` to detect it.
    pub ip: Option<IpAddr>,
    /// Whether to register the container's other addresses as well.
    pub all_addresses: bool,
    /// Whether to exit when the network namespace is gone.
    pub shared_network: bool,
    /// Locality of the workload.
    pub locality: Locality,
    /// The data plane's own ports.
    pub ports: PortArguments,
    /// How long to wait for the join directory.
    pub wait: Duration,
    /// Drain time for inbound connections on shutdown.
    pub drain_time: Duration,
    /// The run directory.
    pub run_dir: PathBuf,
}

impl Sidecar {
    /// Runs until a signal arrives.
    ///
    /// # Errors
    /// If it cannot join, or its data plane cannot be run.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut signals = StopSignals::catch().context("failed to install signal handlers")?;
        let children = Children::collect().context("failed to install signal handlers")?;
        // Always caught: the default action would terminate this process.
        let started = catch(STARTED)?;
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
            Some(never) = OptionFuture::from(readiness.map(|readiness| readiness.run(started))) => match never {},
            never = leave_on_signal(&control_plane, &run) => match never? {},
            () = network::address_lost(control_plane.from), if self.shared_network => {
                let address = control_plane.from;
                bail!("the network with the address {address} is gone: the container it belonged to has exited");
            }
        }
    }

    /// Waits for the join directory and writes the data plane's bootstrap and token.
    async fn set_up(&self, run: &RunDir) -> anyhow::Result<(Renewal, Option<Readiness>)> {
        let Join { token, roots } = Join::wait(&self.join, self.wait).await?;
        let token = newest(token, run);
        run.put_token(&token.text)?;
        let address = match self.ip {
            Some(ip) => ip,
            None => network::own_address(&self.server).await?,
        };
        let mut addresses = vec![address];
        if self.all_addresses {
            addresses.extend(network::other_addresses(address));
        }
        let (workload, group) = match &token.claims.grant.bearer {
            Bearer::Workload { name, .. } => (name.clone(), None),
            Bearer::Group(group) => (WorkloadName::member(group, address)?, Some(group.clone())),
        };
        tracing::info!(%workload, %address, "joining the mesh");
        let control_plane = ControlPlane {
            server: self.server.clone(),
            roots: roots.clone(),
            trust_domain: token.claims.trust_domain.clone(),
            from: address,
        };
        let is_member = group.is_some();
        if !is_member && (self.with_application || self.probe.is_some()) {
            tracing::info!("{workload} is not a member of a group: its WorkloadEntry already makes it an endpoint");
        }
        let number = fastrand::u64(..);
        let bootstrap = Bootstrap {
            kind: ProxyType::Sidecar,
            workload,
            // For a group, the WorkloadGroup decides; it may have changed since the token was issued.
            service_account: group.is_none().then(|| token.claims.grant.service_account.clone()),
            group,
            readiness_run: is_member.then_some(number),
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
        let readiness = is_member.then(|| Readiness {
            control_plane: control_plane.clone(),
            run: run.clone(),
            admin,
            probe: self.probe.clone(),
            with_application: self.with_application,
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

/// Announces the shutdown of an auto-registered workload. If this fails, the control plane notices when the
/// data plane closes its connection.
async fn leave(control_plane: &ControlPlane, run: &RunDir) {
    let Ok(token) = Token::read(&run.token()) else { return };
    if let Bearer::Group(_) = token.claims.grant.bearer
        && let Err(error) = control_plane.leave(&token).await
    {
        tracing::info!("failed to notify the control plane of the shutdown: {error}");
    }
}

/// Signal by which the parent process announces that it is about to stop the application.
pub(super) const LEAVE: Signal = Signal::USR1;

/// Announces the shutdown on each such signal.
async fn leave_on_signal(control_plane: &ControlPlane, run: &RunDir) -> anyhow::Result<Infallible> {
    let mut signals = catch(LEAVE)?;
    loop {
        signals.recv().await;
        leave(control_plane, run).await;
    }
}

fn catch(wanted: Signal) -> anyhow::Result<unix::Signal> {
    signal(SignalKind::from_raw(wanted.as_raw())).context("failed to install signal handlers")
}

/// The token in the join directory, unless a previous run left a renewed one.
fn newest(joined: Token, run: &RunDir) -> Token {
    match Token::read(&run.token()) {
        Ok(renewed) if renewed.succeeds(&joined) => renewed,
        Ok(_) | Err(_) => joined,
    }
}
