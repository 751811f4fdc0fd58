//! `topsail iptables`: interception.

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

/// What `topsail iptables` is called with.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lead the traffic of this network namespace through its sidecar
    Apply(Box<Apply>),
    /// Take the rules away
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
The rules are Istio's, in chains of the same names, and apply to the network namespace that this runs in. Applying them again \
replaces them; if it fails, none are left. It takes the capability NET_ADMIN and the tools of the package iptables. The flags \
have the names of Istio's annotations; those of istio-iptables are taken, too.

Examples:
  What `topsail bootstrap --mode REDIRECT` counts on, with a proxy that runs as user 1337:
    topsail iptables apply

  Leave ssh and a database alone:
    topsail iptables apply --exclude-inbound-ports 22 --exclude-outbound-ports 5432

  A container that holds the network of a sidecar and its application, whichever of them ends and starts again:
    topsail iptables apply --hold

  Look at the rules first:
    topsail iptables apply --mode TPROXY --dry-run";

/// What `topsail iptables apply` is called with.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Apply {
    /// How inbound connections come to the proxy: by changing where they go (REDIRECT), or as they are (TPROXY)
    #[arg(long, short = 'm', value_name = "MODE", default_value = "REDIRECT", ignore_case = true,
          aliases = ["istio-inbound-interception-mode", "interception-mode"])]
    mode: ModeArgument,

    /// Where the proxy takes what applications send
    #[arg(long, short = 'p', value_name = "PORT", default_value_t = 15001, alias = "envoy-port", value_parser = port())]
    outbound_port: u16,

    /// Where the proxy takes what is sent to applications
    #[arg(long, short = 'z', value_name = "PORT", default_value_t = 15006, alias = "inbound-capture-port", value_parser = port())]
    inbound_port: u16,

    /// Users the proxy runs as, whose traffic is not caught [default: 1337; none with TPROXY, where it is root]
    #[arg(long, short = 'u', value_name = "UID,…", value_delimiter = ',')]
    proxy_uid: Option<Vec<u32>>,

    /// Groups the proxy runs as, whose traffic is not caught
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

    /// Lead queries of DNS to the proxy's port 15053, too; something has to answer there
    #[arg(long)]
    redirect_dns: bool,

    /// Where queries of DNS go
    #[arg(long, value_name = "PORT", default_value_t = 15053, requires = "redirect_dns", value_parser = port())]
    dns_port: u16,

    /// With --redirect-dns, queries to all servers and not only to those of /etc/resolv.conf
    #[arg(long, requires = "redirect_dns", alias = "capture-all-dns")]
    redirect_all_dns: bool,

    #[command(flatten)]
    families: Families,

    #[command(flatten)]
    tproxy: TproxyArguments,

    /// Print the rules as a shell script and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Stay until SIGTERM or SIGINT, to hold the network for containers that share it
    #[arg(long, conflicts_with = "dry_run")]
    hold: bool,
}

const CLEAN_EXAMPLES: &str = "\
What other programs have put into the tables stays. Where there are no rules, nothing is done.

Examples:
  After `topsail iptables apply`:
    topsail iptables clean";

/// What `topsail iptables clean` is called with.
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
        output.note("traffic goes through the sidecar; `topsail iptables clean` takes the rules away")?;
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
        output.note("nothing is caught any more")?;
        Ok(Outcome::Fine)
    }
}

/// The servers that programs here ask.
fn name_servers() -> Vec<IpAddr> {
    let file = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|server| server.trim().parse().ok()).collect()
}
