//! `topsail iptables`: sets up and removes traffic interception.

pub(super) mod traffic;

use std::fs;
use std::io;
use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::output::Output;
use super::{Command, Outcome};
use crate::interception::{self, Dns, Mode, Plan, Which};
use crate::lifecycle::StopSignals;
use traffic::{Families, TproxyArguments, Traffic, port};

/// Arguments of `topsail iptables`.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Install rules that redirect the traffic of this network namespace to the sidecar
    Apply(Box<Apply>),
    /// Remove the rules
    #[command(visible_alias = "cleanup")]
    Clean(Clean),
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        match self.action {
            Action::Apply(apply) => apply.run(output),
            Action::Clean(clean) => clean.run(output),
        }
    }
}

const EXAMPLES: &str = "\
The rules are the same as Istio's, in chains of the same names, and apply to the current network namespace. Applying \
them again replaces them; on failure, all are removed. This requires the capability NET_ADMIN and the iptables package. \
Flags are named after Istio's annotations; the flag names of istio-iptables are accepted, too.

Examples:
  Redirect traffic to a proxy that runs as user 1337, as `topsail bootstrap --mode REDIRECT` expects:
    topsail iptables apply

  Exclude SSH and a database:
    topsail iptables apply --exclude-inbound-ports 22 --exclude-outbound-ports 5432

  Run as a pod container that keeps the network of a sidecar and its application across restarts of either:
    topsail iptables apply --hold

  Print the rules without applying them:
    topsail iptables apply --mode TPROXY --dry-run";

/// Arguments of `topsail iptables apply`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Apply {
    /// Inbound interception mode: NAT (REDIRECT), or transparent proxying that preserves source and destination (TPROXY)
    #[arg(long, short = 'm', value_name = "MODE", default_value = "REDIRECT", ignore_case = true,
          aliases = ["istio-inbound-interception-mode", "interception-mode"])]
    mode: ModeArgument,

    /// Proxy port for outbound traffic
    #[arg(long, short = 'p', value_name = "PORT", default_value_t = 15001, alias = "envoy-port", value_parser = port())]
    outbound_port: u16,

    /// Proxy port for inbound traffic
    #[arg(long, short = 'z', value_name = "PORT", default_value_t = 15006, alias = "inbound-capture-port", value_parser = port())]
    inbound_port: u16,

    /// User IDs of the proxy, whose traffic is not redirected [default: 1337; none with TPROXY, where it runs as root]
    #[arg(long, short = 'u', value_name = "UID,…", value_delimiter = ',')]
    proxy_uid: Option<Vec<u32>>,

    /// Group IDs of the proxy, whose traffic is not redirected
    #[arg(
        long,
        short = 'g',
        value_name = "GID,…",
        value_delimiter = ',',
        default_value = "1337"
    )]
    proxy_gid: Vec<u32>,

    #[command(flatten)]
    traffic: Traffic,

    /// Also redirect DNS queries to --dns-port, where a DNS server must be listening
    #[arg(long)]
    redirect_dns: bool,

    /// Port to redirect DNS queries to
    #[arg(long, value_name = "PORT", default_value_t = 15053, requires = "redirect_dns", value_parser = port())]
    dns_port: u16,

    /// With --redirect-dns, redirect queries to any server, not only to those in /etc/resolv.conf
    #[arg(long, requires = "redirect_dns", alias = "capture-all-dns")]
    redirect_all_dns: bool,

    #[command(flatten)]
    families: Families,

    #[command(flatten)]
    tproxy: TproxyArguments,

    /// Print the rules as a shell script without applying them
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Keep running until SIGTERM or SIGINT, to keep the network namespace for containers that share it
    #[arg(long, conflicts_with = "dry_run")]
    hold: bool,
}

const CLEAN_EXAMPLES: &str = "\
Rules of other programs are not touched. If there are no rules to remove, nothing is done.

Examples:
  Undo `topsail iptables apply`:
    topsail iptables clean";

/// Arguments of `topsail iptables clean`.
#[derive(Args)]
#[command(after_help = CLEAN_EXAMPLES)]
struct Clean {
    #[command(flatten)]
    families: Families,

    #[command(flatten)]
    tproxy: TproxyArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum ModeArgument {
    Redirect,
    Tproxy,
}

impl Command for Apply {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let (families, dry_run, hold) = (self.families.families(), self.dry_run, self.hold);
        let plan = self.plan();
        if dry_run {
            write!(output.out, "{}", interception::script(&plan, &families))?;
            return Ok(Outcome::Fine);
        }
        interception::apply(&plan, &families)?;
        output.note("traffic is redirected to the sidecar; run `topsail iptables clean` to remove the rules")?;
        if hold {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(async { io::Result::Ok(StopSignals::catch()?.next().await) })?;
        }
        Ok(Outcome::Fine)
    }
}

impl Apply {
    fn plan(self) -> Plan {
        let mode = match self.mode {
            ModeArgument::Redirect => Mode::Redirect,
            ModeArgument::Tproxy => Mode::Tproxy,
        };
        let dns = self.redirect_dns.then(|| Dns {
            port: self.dns_port,
            servers: match self.redirect_all_dns {
                true => Which::All,
                false => Which::These(name_servers()),
            },
        });
        let usual = self.traffic.plan(mode, &self.tproxy);
        Plan {
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            proxy_uids: self.proxy_uid.unwrap_or(usual.proxy_uids),
            proxy_gids: self.proxy_gid,
            dns,
            ..usual
        }
    }
}

impl Command for Clean {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        interception::clean(self.tproxy.tproxy(), &self.families.families())?;
        output.note("traffic is no longer redirected")?;
        Ok(Outcome::Fine)
    }
}

/// The name servers in `/etc/resolv.conf`.
fn name_servers() -> Vec<IpAddr> {
    let file = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|server| server.trim().parse().ok()).collect()
}
