//! Which filter chain takes a connection.
//!
//! Envoy's order of criteria: destination port, destination address, server name, transport protocol, application
//! protocol, source. At each, the chains with the most specific value that the connection has go on; chains that
//! lose there are out, even if they would match better later. That is a tree with a level for each criterion.

mod criteria;
#[cfg(test)]
mod tests;
mod tree;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::FilterChain;
use tree::Tree;

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
    /// The destination port; 0 where there are no ports.
    pub(crate) port: u16,
    /// The destination address.
    pub(crate) destination: IpAddr,
    /// The server name, lower case.
    pub(crate) server_name: Option<&'a str>,
    /// Whether it is TLS.
    pub(crate) tls: bool,
    /// Application protocols that the client offers in its order, or what it was found to speak.
    pub(crate) alpn: &'a [Vec<u8>],
    /// The address of the peer, which may be a proxy.
    pub(crate) direct_source: IpAddr,
    /// The client's address.
    pub(crate) source: IpAddr,
    /// The client's port.
    pub(crate) source_port: u16,
}

impl Facts<'_> {
    fn is_local(&self) -> bool {
        self.source.is_loopback() || self.source == self.destination
    }
}

/// The chains of a listener.
#[derive(Debug, Default)]
pub(crate) struct ChainIndex {
    /// All of them. One may be replaced by another that matches the same.
    pub(crate) chains: Vec<Arc<FilterChain>>,
    /// What no chain matches.
    pub(crate) default: Option<Arc<FilterChain>>,
    tree: Tree,
}

impl ChainIndex {
    /// An index of these chains.
    ///
    /// # Errors
    /// The places of two chains that could both take a connection, neither being more specific.
    pub(crate) fn new(
        chains: Vec<Arc<FilterChain>>,
        default: Option<Arc<FilterChain>>,
    ) -> Result<Self, (usize, usize)> {
        let tree = Tree::new(chains.iter().map(|chain| &chain.matcher))?;
        Ok(Self { chains, default, tree })
    }

    /// The chain for a connection.
    pub(crate) fn find(&self, facts: &Facts<'_>) -> Option<&Arc<FilterChain>> {
        let found = self.tree.find(facts).and_then(|place| self.chains.get(place));
        found.or(self.default.as_ref())
    }
}
