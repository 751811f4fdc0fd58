//! Traffic interception by iptables: redirects the traffic of applications to their sidecar.
//!
//! The chains and their semantics are those of `istio-iptables`. `rules` generates input for
//! `iptables-restore`; `routing` configures routes and rules by netlink; `system` applies both to
//! the current network namespace, and removes them.

mod routing;
mod rules;
mod system;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use routing::RoutingError;
pub use rules::own_source;
pub use system::{SystemError, apply, clean, script};

/// What to intercept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How inbound connections are redirected.
    pub mode: Mode,
    /// Port of the proxy for outbound traffic (Istio's 15001).
    pub outbound_port: u16,
    /// Port of the proxy for inbound traffic (Istio's 15006).
    pub inbound_port: u16,
    /// Users the proxy runs as; their traffic is not intercepted.
    pub proxy_uids: Vec<u32>,
    /// Groups the proxy runs as; their traffic is not intercepted.
    pub proxy_gids: Vec<u32>,
    /// Inbound ports to intercept.
    pub inbound_ports: Which<u16>,
    /// Inbound ports not to intercept, in addition to the proxy's own ([`OWN_PORTS`]).
    pub inbound_ports_not: Vec<u16>,
    /// Outbound ports to intercept regardless of the destination address.
    pub outbound_ports: Vec<u16>,
    /// Outbound ports not to intercept.
    pub outbound_ports_not: Vec<u16>,
    /// Outbound destinations to intercept.
    pub outbound_ranges: Which<IpNet>,
    /// Outbound destinations not to intercept.
    pub outbound_ranges_not: Vec<IpNet>,
    /// Users whose outbound traffic is not intercepted.
    pub outbound_uids_not: Vec<u32>,
    /// Groups whose outbound traffic is not intercepted.
    pub outbound_gids_not: Vec<u32>,
    /// Network interfaces to ignore.
    pub interfaces_not: Vec<Interface>,
    /// DNS interception, if enabled.
    pub dns: Option<Dns>,
    /// Mark and routing table for [`Mode::Tproxy`].
    pub tproxy: Tproxy,
}

/// Ports served by the proxy itself, never intercepted: HBONE, metrics, readiness and agent health.
pub const OWN_PORTS: [u16; 4] = [15008, 15020, 15021, 15090];

/// How inbound connections are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// iptables REDIRECT: the application sees the proxy's address as its client.
    Redirect,
    /// iptables TPROXY: preserves both addresses. The proxy needs `CAP_NET_ADMIN`.
    Tproxy,
}

/// A selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which<T> {
    /// All (`*`).
    All,
    /// These.
    These(Vec<T>),
}

/// DNS interception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Port of the proxy for DNS (Istio's 15053).
    pub port: u16,
    /// DNS servers whose queries are intercepted.
    pub servers: Which<IpAddr>,
}

/// How [`Mode::Tproxy`] recognises the proxy's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tproxy {
    /// Packet mark (Istio's 1337).
    pub mark: u32,
    /// Routing table for marked packets (Istio's 133).
    pub table: u32,
}

/// Name of a network interface, or a prefix followed by `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

/// The text is not a valid interface name.
#[derive(Debug, thiserror::Error)]
#[error("expected an interface name of 1 to 15 characters without spaces or `/`, such as eth0 or docker+")]
pub struct NoInterface;

impl Interface {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// If it is not a valid interface name.
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

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The corresponding flag of `ip`.
    fn version(self) -> &'static str {
        match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        }
    }
}
