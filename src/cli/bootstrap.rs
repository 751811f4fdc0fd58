//! `topsail bootstrap`: generates an Envoy bootstrap.

pub(super) mod document;
mod listeners;
mod server;
mod stats;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::format::Format;
use super::output::Output;
use super::state::StateArguments;
use super::value::{self, Endpoint};
use super::workload::{Mode, WorkloadArguments};
use super::{Command, Outcome, Usage, file};
use crate::clock::Clock;
use crate::mesh::service::Locality;
use crate::name::WorkloadName;
use crate::pki::{Bearer, Ca, StateDir, TrustBundle};
use crate::xds::node::ProxyType;
use document::Bootstrap;

const EXAMPLES: &str = "\
On the server's host, the root certificate is read from the state directory, and a join token is created and \
stored there. On other hosts, --ca and --token-file name files copied from the server; run this command where Envoy \
runs, because it writes a small file next to the token that tells Envoy where the token is. The bootstrap itself \
contains no secrets.

To renew a token, replace its file with an atomic rename, as `topsail token create --out FILE` does: Envoy picks up \
the new token and presents it when it next connects. Files created by this command belong to the user who runs it; \
if Envoy runs as another user, that user must be able to read them.

In REDIRECT and TPROXY mode the proxy listens on all addresses and iptables redirects connections to it; in NONE \
mode it listens on --ip, so that several proxies can share a host.

Examples:
  On the server's host, then start Envoy:
    topsail bootstrap --workload reviews-v1.default --service-account reviews > envoy.yaml
    envoy -c envoy.yaml

  On another host, with root-cert.pem from the server's state directory and a token:
    topsail bootstrap --workload reviews-v1.default --service-account reviews \\
      --server mesh.example:15012 --ca root-cert.pem --token-file /etc/topsail/token > envoy.yaml

  For a replica in the group reviews-v1, which auto-registers with its address (--ip selects one if it has several):
    topsail bootstrap --group reviews-v1.default --ip 10.0.0.7 \\
      --server mesh.example:15012 --ca root-cert.pem --token-file /etc/topsail/token > envoy.yaml

  One of several workloads on one host, without root:
    topsail bootstrap --workload ratings-v1.default --mode NONE --ip 127.0.1.4 > envoy.yaml";

/// Arguments of `topsail bootstrap`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    workload: WorkloadArguments,

    /// Traffic interception mode: iptables (REDIRECT, TPROXY), or none, where applications connect to the proxy (NONE)
    #[arg(long, value_enum, ignore_case = true, default_value_t = Mode::Redirect)]
    mode: Mode,

    /// Proxy type: a workload's sidecar, or a gateway (router)
    #[arg(long = "type", value_enum, default_value_t = Kind::Sidecar)]
    kind: Kind,

    /// Locality of the proxy, for locality load balancing
    #[arg(long, value_name = "REGION[/ZONE[/SUBZONE]]", value_parser = locality, default_value = "", hide_default_value = true)]
    locality: Locality,

    /// xDS address of the control plane
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15012")]
    server: Endpoint,

    /// xDS protocol variant: incremental (delta) or state of the world (sotw)
    #[arg(long, value_name = "VARIANT", value_enum, default_value_t = Variant::Delta)]
    xds: Variant,

    /// Root certificates (PEM) for verifying the control plane, embedded in the bootstrap [default: those in the state
    /// directory]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Join token file, read by Envoy; must exist without --state, is created with --state [default:
    /// tokens/NAME.NAMESPACE.token in the state directory, tokens/groups/… for a group]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Lifetime of a newly created token (units: s, m, h, d) [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    ttl: Option<Duration>,

    #[command(flatten)]
    ports: PortArguments,

    /// Output format
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Format::Yaml)]
    output: Format,

    #[command(flatten)]
    state: StateArguments,
}

/// `--admin-port`, `--status-port` and `--metrics-port`.
#[derive(Args)]
pub(super) struct PortArguments {
    /// Port of the proxy's admin interface, on 127.0.0.1, or on --ip in NONE mode
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub admin_port: u16,

    /// Port that serves /healthz/ready
    #[arg(long, value_name = "PORT", default_value_t = 15021)]
    pub status_port: u16,

    /// Port that serves /stats/prometheus
    #[arg(long, value_name = "PORT", default_value_t = 15090)]
    pub metrics_port: u16,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Sidecar,
    Router,
}

/// The xDS protocol variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Variant {
    Delta,
    Sotw,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let source = self.source()?;
        let roots = self.roots(source)?;
        let token_file = self.token(source, output)?;
        // The file contains no secret, but files in the state directory are private to their owner.
        let mode = if self.token_file.is_some() { 0o644 } else { 0o600 };
        let secret_file = point_to(&token_file, mode).context("run this command on the host where Envoy runs")?;
        let addresses = match &self.workload.addresses[..] {
            [] => vec![own_address()],
            addresses => addresses.to_vec(),
        };
        let (workload, group, service_account) = match self.workload.bearer()? {
            Bearer::Workload { name, .. } => (name, None, Some(self.workload.account()?)),
            Bearer::Group(group) => {
                let account = self.workload.service_account.clone();
                (WorkloadName::member(&group, addresses[0])?, Some(group), account)
            }
        };
        let bootstrap = Bootstrap {
            kind: match self.kind {
                Kind::Sidecar => ProxyType::Sidecar,
                Kind::Router => ProxyType::Router,
            },
            labels: self.workload.labels(),
            workload,
            group,
            readiness_run: None,
            service_account,
            addresses,
            mode: self.mode.into(),
            locality: self.locality,
            server: self.server,
            variant: self.xds,
            roots,
            trust_domain: self.state.trust_domain,
            token_folder: parent(&token_file).to_owned(),
            secret_file,
            admin_port: self.ports.admin_port,
            status_port: self.ports.status_port,
            metrics_port: self.ports.metrics_port,
        };
        self.output.write(&document::document(&bootstrap), &mut output.out)?;
        Ok(Outcome::Fine)
    }
}

/// Where the root certificates and the join token come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The state directory, where a token is created.
    State,
    /// Existing files.
    Files { ca: &'a Path, token: &'a Path },
}

impl Arguments {
    fn source(&self) -> Result<Source<'_>, Usage> {
        match (&self.state.state, &self.ca, &self.token_file) {
            (Some(_), _, _) | (None, None, None) => Ok(Source::State),
            (None, Some(ca), Some(token)) => Ok(Source::Files { ca, token }),
            (None, Some(_), None) => Err(Usage("--ca without --state needs --token-file as well".to_owned())),
            (None, None, Some(_)) => Err(Usage("--token-file without --state needs --ca as well".to_owned())),
        }
    }

    fn roots(&self, source: Source<'_>) -> anyhow::Result<TrustBundle> {
        let path = match (source, &self.ca) {
            (Source::Files { ca, .. }, _) => ca,
            (Source::State, Some(ca)) => ca,
            (Source::State, None) => {
                let ca = Ca::load_or_create(&self.state.open()?, &self.state.trust_domain, &Clock::system())?;
                return Ok(ca.bundle().clone());
            }
        };
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        TrustBundle::from_pem(&pem).with_context(|| format!("{} cannot be used as --ca", path.display()))
    }

    /// Creates the token if it comes from the state directory, and returns the path of its file.
    fn token(&self, source: Source<'_>, output: &mut Output) -> anyhow::Result<PathBuf> {
        if let Source::Files { token, .. } = source {
            if !token.exists() {
                let token = token.display();
                writeln!(
                    output.err,
                    "warning: {token} does not exist yet; Envoy cannot connect before it does"
                )?;
            }
            return Ok(std::path::absolute(token)?);
        }
        let token = self.workload.token(&self.state, self.ttl)?.text;
        let Some(path) = &self.token_file else {
            return self.keep(&self.state.open()?, &token);
        };
        let path = std::path::absolute(path)?;
        file::replace(&path, token.as_bytes(), 0o600)?;
        Ok(path)
    }

    fn keep(&self, state: &StateDir, token: &str) -> anyhow::Result<PathBuf> {
        let name = match self.workload.bearer()? {
            Bearer::Workload { name, .. } => format!("tokens/{name}.token"),
            Bearer::Group(group) => format!("tokens/groups/{group}.token"),
        };
        state.write(&name, token.as_bytes())?;
        Ok(state.path().join(name))
    }
}

/// Writes the SDS resource file that refers to the token file. Envoy reloads a secret only if it comes from
/// SDS, here a file with a `Secret` resource; it then watches the file that the resource names.
///
/// # Errors
/// If the file cannot be written next to the token.
pub(super) fn point_to(token_file: &Path, mode: u32) -> anyhow::Result<PathBuf> {
    // A hidden file is ignored as configuration, should the token be in the configuration directory.
    let mut name = OsString::from(".");
    name.push(token_file.file_name().unwrap_or_default());
    name.push(".envoy.json");
    let path = token_file.with_file_name(name);
    let text = format!("{}\n", server::token_secret(token_file));
    if !std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
        file::replace(&path, text.as_bytes(), mode)?;
    }
    Ok(path)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The source address of connections to other hosts. Sends no packets.
pub(super) fn own_address() -> IpAddr {
    // Documentation addresses (RFC 5737 and RFC 3849): routed like any other, but assigned to nobody.
    let v4 = address_towards(Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = || address_towards(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    v4.or_else(v6).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// The source address of connections to `to`, if there is a route to it. Sends no packets.
pub(super) fn address_towards(to: IpAddr) -> Option<IpAddr> {
    let from: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Parses `REGION[/ZONE[/SUBZONE]]`.
pub(super) fn locality(text: &str) -> Result<Locality, String> {
    let mut parts = text.split('/');
    let mut next = || parts.next().unwrap_or_default().into();
    let locality = Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    };
    match parts.next() {
        None => Ok(locality),
        Some(_) => Err("REGION, REGION/ZONE or REGION/ZONE/SUBZONE is needed".to_owned()),
    }
}
