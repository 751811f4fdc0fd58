//! Interception: rules of the packet filter that lead the traffic of applications through the proxy beside them.
//!
//! The chains, and what each catches, are those of `istio-iptables`, so that who knows Istio's can read them. `rules` says
//! what they are, as text for `iptables-restore`; `routing` is what they need of the kernel's routing; `system` puts both
//! into the network namespace it runs in, and takes them away.

mod routing;
mod rules;
mod system;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use routing::RoutingError;
pub use rules::own_source;
pub use system::{SystemError, apply, clean, script};

/// What is caught, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How inbound connections come to the proxy.
    pub mode: Mode,
    /// Where the proxy takes what applications send (Istio's 15001).
    pub outbound_port: u16,
    /// Where the proxy takes what is sent to applications (Istio's 15006).
    pub inbound_port: u16,
    /// The users that the proxy runs as: what they send is not caught.
    pub proxy_uids: Vec<u32>,
    /// The groups that the proxy runs as.
    pub proxy_gids: Vec<u32>,
    /// Ports of applications whose inbound traffic is caught.
    pub inbound_ports: Which<u16>,
    /// Those of them that are not, besides the proxy's own ([`OWN_PORTS`]).
    pub inbound_ports_not: Vec<u16>,
    /// Ports whose outbound traffic is caught whatever the address.
    pub outbound_ports: Vec<u16>,
    /// Ports whose outbound traffic is not.
    pub outbound_ports_not: Vec<u16>,
    /// Addresses to which outbound traffic is caught.
    pub outbound_ranges: Which<IpNet>,
    /// Those of them to which it is not.
    pub outbound_ranges_not: Vec<IpNet>,
    /// Users whose outbound traffic is not caught.
    pub outbound_uids_not: Vec<u32>,
    /// Groups whose outbound traffic is not caught.
    pub outbound_gids_not: Vec<u32>,
    /// Network interfaces on which nothing is caught.
    pub interfaces_not: Vec<Interface>,
    /// Where queries of DNS go, if they are caught.
    pub dns: Option<Dns>,
    /// The mark and the routing table of [`Mode::Tproxy`].
    pub tproxy: Tproxy,
}

/// Ports that the proxy itself answers and that are never caught: HBONE, metrics, readiness and the agent's health.
pub const OWN_PORTS: [u16; 4] = [15008, 15020, 15021, 15090];

/// How inbound connections come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The packet filter changes where they go: the application sees the proxy as its client.
    Redirect,
    /// They keep both addresses; the proxy needs `CAP_NET_ADMIN`, and the application sees its client's address.
    Tproxy,
}

/// Some or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which<T> {
    /// All (`*`).
    All,
    /// These.
    These(Vec<T>),
}

/// Which queries of DNS go to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where (Istio's 15053).
    pub port: u16,
    /// Those to these servers.
    pub servers: Which<IpAddr>,
}

/// What tells the proxy's connections in [`Mode::Tproxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tproxy {
    /// The mark of its packets (Istio's 1337).
    pub mark: u32,
    /// The routing table that leads marked packets to it (Istio's 133).
    pub table: u32,
}

/// The name of a network interface, or the beginning of one and a `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

/// A text that is no interface's name.
#[derive(Debug, thiserror::Error)]
#[error("an interface has a name of 1 to 15 characters without blanks or `/`, like eth0 or docker+")]
pub struct NoInterface;

impl Interface {
    /// Reads a name.
    ///
    /// # Errors
    /// When no interface can have it.
    pub fn parse(name: &str) -> Result<Self, NoInterface> {
        let fits = (1..=15).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != '!');
        fits.then(|| Self(name.to_owned())).ok_or(NoInterface)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The flag by which `ip` is told.
    fn version(self) -> &'static str {
        match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        }
    }
}
