//! Which traffic is caught: the flags that `topsail iptables apply` and `topsail sidecar` have in common.

use std::fs;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::interception::{Family, Interface, Mode, NoInterface, Plan, Tproxy, Which};

/// The user and the group of a sidecar in Istio.
pub(in crate::cli) const PROXY: u32 = 1337;

/// What is caught and what is not, by the names of Istio's annotations.
#[derive(Args)]
pub(in crate::cli) struct Traffic {
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
}

impl Traffic {
    /// A plan with Istio's ports and users, and without DNS.
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
    /// Which versions of IP; `auto` is those that this network namespace has
    #[arg(long, value_name = "VERSION", default_value = "auto")]
    ip_family: FamilyArgument,
}

/// `--tproxy-mark` and `--tproxy-table`.
#[derive(Args)]
pub(in crate::cli) struct TproxyArguments {
    /// With TPROXY, the mark of the proxy's packets
    #[arg(
        long,
        short = 't',
        value_name = "MARK",
        default_value_t = 1337,
        value_parser = clap::value_parser!(u32).range(1..),
        alias = "istio-inbound-tproxy-mark"
    )]
    tproxy_mark: u32,

    /// With TPROXY, the routing table that leads them to the proxy
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

/// Whether anything here has an IPv6 address, if only its loopback interface.
fn has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.trim().is_empty())
}

pub(super) fn port() -> clap::builder::RangedI64ValueParser<u16> {
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
