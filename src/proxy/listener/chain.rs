//! Filter chain matching.
//!
//! Envoy tests criteria in order: destination port, destination address, server name, transport protocol, application
//! protocol, source. At each criterion, only the chains with the most specific matching value remain, even if another
//! chain would match better later. This is a tree with one level for each criterion.

mod criteria;
#[cfg(test)]
mod tests;
mod tree;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::FilterChain;
use tree::Tree;

/// Which connections a filter chain matches (`FilterChainMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainMatch {
    /// The destination port.
    pub(crate) port: Option<u16>,
    /// Destination addresses.
    pub(crate) prefixes: Vec<IpNet>,
    /// Server names in lower case, some with a leading `*.`.
    pub(crate) server_names: Vec<Box<str>>,
    /// `tls` or `raw_buffer`.
    pub(crate) transport: Option<Box<str>>,
    /// Application protocols.
    pub(crate) alpn: Vec<Box<[u8]>>,
    /// `direct_source_prefix_ranges`: addresses of the peer itself.
    pub(crate) direct_sources: Vec<IpNet>,
    /// Client addresses.
    pub(crate) sources: Vec<IpNet>,
    /// Client ports.
    pub(crate) source_ports: Vec<u16>,
    /// `source_type`.
    pub(crate) source_type: SourceType,
}

/// Whether a client is on this host (`ConnectionSourceType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SourceType {
    /// Any client.
    #[default]
    Any,
    /// Clients on this host: on a loopback address, or on the destination address.
    Local,
    /// Other clients.
    External,
}

/// The properties of a connection that filter chains match.
#[derive(Clone, Debug)]
pub(crate) struct MatchInputs<'a> {
    /// The destination port; 0 for Unix domain sockets.
    pub(crate) port: u16,
    /// The destination address.
    pub(crate) destination: IpAddr,
    /// The server name, lower case.
    pub(crate) server_name: Option<&'a str>,
    /// Whether it is TLS.
    pub(crate) tls: bool,
    /// Application protocols: the client's ALPN list, or what inspection found.
    pub(crate) alpn: &'a [Vec<u8>],
    /// The peer's address, which may be a proxy's.
    pub(crate) direct_source: IpAddr,
    /// The client's address.
    pub(crate) source: IpAddr,
    /// The client's port.
    pub(crate) source_port: u16,
}

impl MatchInputs<'_> {
    fn is_local(&self) -> bool {
        self.source.is_loopback() || self.source == self.destination
    }
}

/// The chains of a listener.
#[derive(Debug, Default)]
pub(crate) struct ChainIndex {
    /// All of them. A chain may be replaced by one with the same match.
    pub(crate) chains: Vec<Arc<FilterChain>>,
    /// `default_filter_chain`.
    pub(crate) default: Option<Arc<FilterChain>>,
    tree: Tree,
}

impl ChainIndex {
    /// An index of these chains.
    ///
    /// # Errors
    /// The positions of two chains that match the same connections.
    pub(crate) fn new(
        chains: Vec<Arc<FilterChain>>,
        default: Option<Arc<FilterChain>>,
    ) -> Result<Self, (usize, usize)> {
        let tree = Tree::new(chains.iter().map(|chain| &chain.matcher))?;
        Ok(Self { chains, default, tree })
    }

    /// The chain for a connection.
    pub(crate) fn find(&self, inputs: &MatchInputs<'_>) -> Option<&Arc<FilterChain>> {
        let found = self.tree.find(inputs).and_then(|place| self.chains.get(place));
        found.or(self.default.as_ref())
    }
}
