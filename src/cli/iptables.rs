//! `topsail iptables`: interception.

use std::fs;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::output::Output;
use super::{Command, Outcome};
use crate::interception::{self, Dns, Family, Interface, Mode, NoInterface, Plan, Tproxy, Which};

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
replaces them; if it fails, none are left. It takes the capability NET_ADMIN and the tools of the package iptables (and \
iproute2 for TPROXY and IPv6). The flags have the names of Istio's annotations; those of istio-iptables are taken, too.

Examples:
  What `topsail bootstrap --mode REDIRECT` counts on, with a proxy that runs as user 1337:
    topsail iptables apply

  Leave ssh and a database alone:
    topsail iptables apply --exclude-inbound-ports 22 --exclude-outbound-ports 5432

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

    /// Catch what is sent to these ports of applications; `*` is all, an empty text none
    #[arg(long, short = 'b', value_name = "PORT,…", default_value = "*", alias = "istio-inbound-ports", value_parser = which_ports)]
    include_inbound_ports: Which<u16>,

    /// Do not catch what is sent to these ports; the proxy's own (15008, 15020, 15021, 15090) never are
    #[arg(long, short = 'd', value_name = "PORT,…", value_delimiter = ',', alias = "istio-local-exclude-ports", value_parser = port())]
    exclude_inbound_ports: Vec<u16>,

    /// Catch what applications send to these ports, whatever the address
    #[arg(long, short = 'q', value_name = "PORT,…", value_delimiter = ',', alias = "istio-outbound-ports", value_parser = port())]
    include_outbound_ports: Vec<u16>,

    /// Do not catch what applications send to these ports
    #[arg(long, short = 'o', value_name = "PORT,…", value_delimiter = ',', alias = "istio-local-outbound-ports-exclude",
          value_parser = port())]
    exclude_outbound_ports: Vec<u16>,

    /// Catch what applications send to these addresses; `*` is all, an empty text none
    #[arg(long, short = 'i', value_name = "CIDR,…", default_value = "*", alias = "istio-service-cidr", value_parser = which_ranges)]
    include_outbound_ip_ranges: Which<IpNet>,

    /// Do not catch what applications send to these addresses
    #[arg(long, short = 'x', value_name = "CIDR,…", value_delimiter = ',', alias = "istio-service-exclude-cidr", value_parser = range)]
    exclude_outbound_ip_ranges: Vec<IpNet>,

    /// Do not catch what these users send
    #[arg(long, value_name = "UID,…", value_delimiter = ',')]
    exclude_outbound_uids: Vec<u32>,

    /// Do not catch what these groups send
    #[arg(long, value_name = "GID,…", value_delimiter = ',')]
    exclude_outbound_gids: Vec<u32>,

    /// Catch nothing on these network interfaces; a name may end in `+` for all that begin so
    #[arg(long, short = 'c', value_name = "NAME,…", value_delimiter = ',', alias = "istio-exclude-interfaces", value_parser = interface)]
    exclude_interfaces: Vec<Interface>,

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

#[derive(Args)]
struct Families {
    /// Which versions of IP; `auto` is those that this network namespace has
    #[arg(long, value_name = "VERSION", default_value = "auto")]
    ip_family: FamilyArgument,
}

#[derive(Args)]
struct TproxyArguments {
    /// With TPROXY, the mark of the proxy's packets
    #[arg(
        long,
        short = 't',
        value_name = "MARK",
        default_value_t = 1337,
        alias = "istio-inbound-tproxy-mark"
    )]
    tproxy_mark: u32,

    /// With TPROXY, the routing table that leads them to the proxy
    #[arg(
        long,
        short = 'r',
        value_name = "TABLE",
        default_value_t = 133,
        alias = "istio-inbound-tproxy-route-table"
    )]
    tproxy_table: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum ModeArgument {
    Redirect,
    Tproxy,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FamilyArgument {
    Auto,
    Ipv4,
    Ipv6,
    Both,
}

impl Families {
    fn families(&self) -> Vec<Family> {
        match self.ip_family {
            FamilyArgument::Auto if has_ipv6() => vec![Family::V4, Family::V6],
            FamilyArgument::Auto | FamilyArgument::Ipv4 => vec![Family::V4],
            FamilyArgument::Ipv6 => vec![Family::V6],
            FamilyArgument::Both => vec![Family::V4, Family::V6],
        }
    }
}

impl TproxyArguments {
    fn tproxy(&self) -> Tproxy {
        Tproxy {
            mark: self.tproxy_mark,
            table: self.tproxy_table,
        }
    }
}

impl Command for Apply {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let (families, dry_run) = (self.families.families(), self.dry_run);
        let plan = self.plan();
        if dry_run {
            write!(output.out, "{}", interception::script(&plan, &families))?;
            return Ok(Outcome::Fine);
        }
        interception::apply(&plan, &families)?;
        output.note("traffic goes through the sidecar; `topsail iptables clean` takes the rules away")?;
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
        let usual = || match mode {
            Mode::Redirect => vec![1337],
            Mode::Tproxy => Vec::new(),
        };
        Plan {
            mode,
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            proxy_uids: self.proxy_uid.unwrap_or_else(usual),
            proxy_gids: self.proxy_gid,
            inbound_ports: self.include_inbound_ports,
            inbound_ports_not: self.exclude_inbound_ports,
            outbound_ports: self.include_outbound_ports,
            outbound_ports_not: self.exclude_outbound_ports,
            outbound_ranges: self.include_outbound_ip_ranges,
            outbound_ranges_not: self.exclude_outbound_ip_ranges,
            outbound_uids_not: self.exclude_outbound_uids,
            outbound_gids_not: self.exclude_outbound_gids,
            interfaces_not: self.exclude_interfaces,
            dns,
            tproxy: self.tproxy.tproxy(),
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

/// Whether anything here has an IPv6 address, if only its loopback interface.
fn has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.trim().is_empty())
}

/// The servers that programs here ask.
fn name_servers() -> Vec<IpAddr> {
    let file = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|server| server.trim().parse().ok()).collect()
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn which_ports(text: &str) -> Result<Which<u16>, String> {
    which(text, |port| match u16::from_str(port) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("`{port}` is no port: 1 to 65535, or `*` alone")),
    })
}

fn which_ranges(text: &str) -> Result<Which<IpNet>, String> {
    which(text, range)
}

fn which<T>(text: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<Which<T>, String> {
    match text.trim() {
        "*" => Ok(Which::All),
        "" => Ok(Which::These(Vec::new())),
        list => list
            .split(',')
            .map(|item| one(item.trim()))
            .collect::<Result<_, _>>()
            .map(Which::These),
    }
}

/// A range of addresses, or one address.
fn range(text: &str) -> Result<IpNet, String> {
    let range = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    range.map_err(|_| format!("`{text}` is no range of addresses, such as 10.0.0.0/8, and no address"))
}

fn interface(text: &str) -> Result<Interface, NoInterface> {
    Interface::parse(text)
}
