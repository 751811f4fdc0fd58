//! Which filter chain takes a connection.
//!
//! Envoy's order of criteria: destination port, destination address, server name, transport protocol, application
//! protocol, source. At each, the chains with the most specific value that the connection has go on; chains that
//! lose there are out, even if they would match better later.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::FilterChain;

/// Which connections a chain takes (`FilterChainMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainMatch {
    /// The destination port.
    pub(crate) port: Option<u16>,
    /// Destination addresses.
    pub(crate) prefixes: Vec<IpNet>,
    /// Server names, `*.` before some, lower case.
    pub(crate) server_names: Vec<Box<str>>,
    /// `tls` or `raw_buffer`.
    pub(crate) transport: Option<Box<str>>,
    /// Application protocols.
    pub(crate) alpn: Vec<Box<[u8]>>,
    /// The peer's own addresses (`direct_source_prefix_ranges`).
    pub(crate) direct_sources: Vec<IpNet>,
    /// Client addresses.
    pub(crate) sources: Vec<IpNet>,
    /// Client ports.
    pub(crate) source_ports: Vec<u16>,
    /// Whether the client is on this host.
    pub(crate) source_type: SourceType,
}

/// Whether the client is on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SourceType {
    /// Does not matter.
    #[default]
    Any,
    /// It is, or has the address it connects to.
    Local,
    /// It is not.
    External,
}

/// What is known of a connection when a chain is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    /// The destination port.
    pub(crate) port: u16,
    /// The destination address.
    pub(crate) destination: IpAddr,
    /// The server name, lower case.
    pub(crate) server_name: Option<&'a str>,
    /// Whether it is TLS.
    pub(crate) tls: bool,
    /// Application protocols that the client offers, or what it was found to speak.
    pub(crate) alpn: &'a [Vec<u8>],
    /// The client's address.
    pub(crate) source: IpAddr,
    /// The client's port.
    pub(crate) source_port: u16,
}

/// The chains of a listener.
#[derive(Debug, Default)]
pub(crate) struct ChainIndex {
    /// All of them.
    pub(crate) chains: Vec<Arc<FilterChain>>,
    /// What no chain matches.
    pub(crate) default: Option<Arc<FilterChain>>,
}

impl ChainIndex {
    /// The chain for a connection.
    pub(crate) fn find(&self, facts: &Facts<'_>) -> Option<&Arc<FilterChain>> {
        let mut left: Vec<_> = self.chains.iter().collect();
        for score in CRITERIA {
            let best = left.iter().filter_map(|chain| score(&chain.matcher, facts)).max();
            match best {
                Some(best) => left.retain(|chain| score(&chain.matcher, facts) == Some(best)),
                None => return self.default.as_ref(),
            }
        }
        left.first().copied().or(self.default.as_ref())
    }
}

/// How specifically a chain asks for what a connection has: more is better, 0 is not at all, none is no match.
type Criterion = fn(&ChainMatch, &Facts<'_>) -> Option<u32>;

/// In Envoy's order.
const CRITERIA: [Criterion; 9] = [
    |chain, facts| given(chain.port.as_ref(), |port| *port == facts.port),
    |chain, facts| longest(&chain.prefixes, facts.destination),
    |chain, facts| server_name(&chain.server_names, facts.server_name),
    |chain, facts| {
        let wanted = if facts.tls { "tls" } else { "raw_buffer" };
        given(chain.transport.as_ref(), |transport| **transport == *wanted)
    },
    |chain, facts| {
        any(&chain.alpn, |protocol| {
            facts.alpn.iter().any(|offered| **offered == **protocol)
        })
    },
    |chain, facts| longest(&chain.direct_sources, facts.source),
    |chain, facts| source_type(chain.source_type, facts),
    |chain, facts| longest(&chain.sources, facts.source),
    |chain, facts| any(&chain.source_ports, |port| *port == facts.source_port),
];

fn given<T>(wanted: Option<&T>, is: impl Fn(&T) -> bool) -> Option<u32> {
    match wanted {
        None => Some(0),
        Some(wanted) => is(wanted).then_some(1),
    }
}

fn any<T>(wanted: &[T], is: impl Fn(&T) -> bool) -> Option<u32> {
    match wanted {
        [] => Some(0),
        wanted => wanted.iter().any(is).then_some(1),
    }
}

/// The longest of the prefixes that hold the address; one bit more than it, so that `0.0.0.0/0` is better than none.
fn longest(prefixes: &[IpNet], address: IpAddr) -> Option<u32> {
    if prefixes.is_empty() {
        return Some(0);
    }
    let holding = prefixes.iter().filter(|prefix| prefix.contains(&address));
    holding.map(|prefix| u32::from(prefix.prefix_len()) + 1).max()
}

fn server_name(wanted: &[Box<str>], name: Option<&str>) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let name = name?;
    let specific = |wanted: &Box<str>| match wanted.strip_prefix('*') {
        Some(suffix) if name.len() > suffix.len() && name.ends_with(suffix) => u32::try_from(suffix.len()).ok(),
        Some(_) => None,
        None => (**wanted == *name).then_some(u32::MAX),
    };
    wanted.iter().filter_map(specific).max()
}

fn source_type(wanted: SourceType, facts: &Facts<'_>) -> Option<u32> {
    let local = facts.source.is_loopback() || facts.source == facts.destination;
    match wanted {
        SourceType::Any => Some(0),
        SourceType::Local => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}
