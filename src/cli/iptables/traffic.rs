//! Flags that select the traffic to intercept, shared by `topsail iptables apply` and `topsail sidecar`.

use std::fs;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::interception::{Family, Interface, Mode, NoInterface, Plan, Tproxy, Which};

/// User and group ID of Istio's sidecar.
pub(in crate::cli) const PROXY: u32 = 1337;

/// Traffic to include and exclude, named after Istio's annotations.
#[derive(Args)]
pub(in crate::cli) struct Traffic {
    /// Inbound ports to redirect; `*` for all, an empty string for none
    #[arg(long, short = 'b', value_name = "PORT,…", default_value = "*", alias = "istio-inbound-ports", value_parser = which_ports)]
    include_inbound_ports: Which<u16>,

    /// Inbound ports to exclude; the proxy's own ports (15008, 15020, 15021, 15090) are always excluded
    #[arg(long, short = 'd', value_name = "PORT,…", value_delimiter = ',', alias = "istio-local-exclude-ports", value_parser = port())]
    exclude_inbound_ports: Vec<u16>,

    /// Outbound ports to redirect regardless of the destination address
    #[arg(long, short = 'q', value_name = "PORT,…", value_delimiter = ',', alias = "istio-outbound-ports", value_parser = port())]
    include_outbound_ports: Vec<u16>,

    /// Outbound ports to exclude
    #[arg(long, short = 'o', value_name = "PORT,…", value_delimiter = ',', alias = "istio-local-outbound-ports-exclude",
          value_parser = port())]
    exclude_outbound_ports: Vec<u16>,

    /// Outbound IP ranges to redirect; `*` for all, an empty string for none
    #[arg(long, short = 'i', value_name = "CIDR,…", default_value = "*", alias = "istio-service-cidr", value_parser = which_ranges)]
    include_outbound_ip_ranges: Which<IpNet>,

    /// Outbound IP ranges to exclude
    #[arg(long, short = 'x', value_name = "CIDR,…", value_delimiter = ',', alias = "istio-service-exclude-cidr", value_parser = range)]
    exclude_outbound_ip_ranges: Vec<IpNet>,

    /// User IDs whose outbound traffic is excluded
    #[arg(long, value_name = "UID,…", value_delimiter = ',')]
    exclude_outbound_uids: Vec<u32>,

    /// Group IDs whose outbound traffic is excluded
    #[arg(long, value_name = "GID,…", value_delimiter = ',')]
    exclude_outbound_gids: Vec<u32>,

    /// Network interfaces to exclude; a trailing `+` matches any interface with that prefix
    #[arg(long, short = 'c', value_name = "NAME,…", value_delimiter = ',', alias = "istio-exclude-interfaces", value_parser = interface)]
    exclude_interfaces: Vec<Interface>,
}

impl Traffic {
    /// An interception plan with Istio's ports and users, without DNS redirection.
    pub(in crate::cli) fn plan(self, mode: Mode, tproxy: &TproxyArguments) -> Plan {
        Plan {
            mode,
            outbound_port: 15001,
            inbound_port: 15006,
            proxy_uids: match mode {
                Mode::Redirect => vec![PROXY],
                Mode::Tproxy => Vec::new(),
            },
            proxy_gids: vec![PROXY],
            inbound_ports: self.include_inbound_ports,
            inbound_ports_not: self.exclude_inbound_ports,
            outbound_ports: self.include_outbound_ports,
            outbound_ports_not: self.exclude_outbound_ports,
            outbound_ranges: self.include_outbound_ip_ranges,
            outbound_ranges_not: self.exclude_outbound_ip_ranges,
            outbound_uids_not: self.exclude_outbound_uids,
            outbound_gids_not: self.exclude_outbound_gids,
            interfaces_not: self.exclude_interfaces,
            dns: None,
            tproxy: tproxy.tproxy(),
        }
    }
}

/// `--ip-family`.
#[derive(Args)]
pub(in crate::cli) struct Families {
    /// IP versions to install rules for; `auto` for those available in this network namespace
    #[arg(long, value_name = "VERSION", default_value = "auto")]
    ip_family: FamilyArgument,
}

/// `--tproxy-mark` and `--tproxy-table`.
#[derive(Args)]
pub(in crate::cli) struct TproxyArguments {
    /// Packet mark used for TPROXY
    #[arg(
        long,
        short = 't',
        value_name = "MARK",
        default_value_t = 1337,
        value_parser = clap::value_parser!(u32).range(1..),
        alias = "istio-inbound-tproxy-mark"
    )]
    tproxy_mark: u32,

    /// Routing table used for TPROXY
    #[arg(
        long,
        short = 'r',
        value_name = "TABLE",
        default_value_t = 133,
        value_parser = clap::value_parser!(u32).range(1..),
        alias = "istio-inbound-tproxy-route-table"
    )]
    tproxy_table: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FamilyArgument {
    Auto,
    Ipv4,
    Ipv6,
    Both,
}

impl Families {
    pub(in crate::cli) fn families(&self) -> Vec<Family> {
        match self.ip_family {
            FamilyArgument::Auto if has_ipv6() => vec![Family::V4, Family::V6],
            FamilyArgument::Auto | FamilyArgument::Ipv4 => vec![Family::V4],
            FamilyArgument::Ipv6 => vec![Family::V6],
            FamilyArgument::Both => vec![Family::V4, Family::V6],
        }
    }
}

impl TproxyArguments {
    pub(in crate::cli) fn tproxy(&self) -> Tproxy {
        Tproxy {
            mark: self.tproxy_mark,
            table: self.tproxy_table,
        }
    }
}

/// Whether any interface has an IPv6 address, including loopback.
fn has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.trim().is_empty())
}

pub(super) fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn which_ports(text: &str) -> Result<Which<u16>, String> {
    which(text, |port| match u16::from_str(port) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("invalid port `{port}`: expected 1 to 65535, or a single `*`")),
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

/// Parses an IP range or a single address.
fn range(text: &str) -> Result<IpNet, String> {
    let range = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    range.map_err(|_| format!("`{text}` is neither an IP range, such as 10.0.0.0/8, nor an IP address"))
}

fn interface(text: &str) -> Result<Interface, NoInterface> {
    Interface::parse(text)
}
