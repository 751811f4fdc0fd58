//! The criteria of filter chain matching.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::tree::Criterion;
use super::{ChainMatch, MatchInputs, SourceType};

/// The destination port.
#[derive(Debug, Default)]
pub(super) struct Port;

impl Criterion for Port {
    type Key = u16;

    fn wanted(chain: &ChainMatch) -> Vec<u16> {
        chain.port.into_iter().collect()
    }

    fn best<'a, T>(&self, asked: &'a HashMap<u16, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
        asked.get(&inputs.port)
    }
}

/// The prefix lengths in use for each IP version, for finding the longest prefix of an address.
#[derive(Debug, Default)]
struct Lengths {
    v4: BTreeSet<u8>,
    v6: BTreeSet<u8>,
}

impl Lengths {
    fn note(&mut self, prefix: &IpNet) {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix.prefix_len()),
            IpNet::V6(prefix) => self.v6.insert(prefix.prefix_len()),
        };
    }

    fn longest<'a, T>(&self, asked: &'a HashMap<IpNet, T>, address: IpAddr) -> Option<&'a T> {
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().rev().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?;
            asked.get(&prefix.trunc())
        })
    }
}

/// Defines a criterion on an address.
macro_rules! by_prefix {
    ($(#[$doc:meta])+ $name:ident, $wanted:ident, $address:ident) => {
        $(#[$doc])+
        #[derive(Debug, Default)]
        pub(super) struct $name(Lengths);

        impl Criterion for $name {
            type Key = IpNet;

            fn wanted(chain: &ChainMatch) -> Vec<IpNet> {
                chain.$wanted.clone()
            }

            fn note(&mut self, prefix: &IpNet) {
                self.0.note(prefix);
            }

            fn best<'a, T>(&self, asked: &'a HashMap<IpNet, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
                self.0.longest(asked, inputs.$address)
            }
        }
    };
}

by_prefix! {
    /// The destination address, by the longest prefix.
    Destination, prefixes, destination
}

by_prefix! {
    /// The peer's address, by the longest prefix.
    DirectSource, direct_sources, direct_source
}

by_prefix! {
    /// The client's address, by the longest prefix.
    Source, sources, source
}

/// The server name: exact, or its longest suffix of whole labels. `*.example.com` is stored as `.example.com`.
#[derive(Debug, Default)]
pub(super) struct ServerName;

impl Criterion for ServerName {
    type Key = Box<str>;

    fn wanted(chain: &ChainMatch) -> Vec<Box<str>> {
        let names = chain.server_names.iter();
        names
            .map(|name| name.strip_prefix('*').unwrap_or(name).into())
            .collect()
    }

    fn best<'a, T>(&self, asked: &'a HashMap<Box<str>, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
        let name = inputs.server_name?;
        let dots = name.char_indices().skip(1).filter(|(_, char)| *char == '.');
        let suffixes = dots.filter_map(|(at, _)| name.get(at..));
        std::iter::once(name).chain(suffixes).find_map(|name| asked.get(name))
    }
}

/// The transport protocol: `tls` or `raw_buffer`; a chain that asks for anything else never matches.
#[derive(Debug, Default)]
pub(super) struct Transport;

impl Criterion for Transport {
    type Key = Box<str>;

    fn wanted(chain: &ChainMatch) -> Vec<Box<str>> {
        chain.transport.iter().cloned().collect()
    }

    fn best<'a, T>(&self, asked: &'a HashMap<Box<str>, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
        asked.get(if inputs.tls { "tls" } else { "raw_buffer" })
    }
}

/// The application protocol: the first that the client offers and any chain asks for.
#[derive(Debug, Default)]
pub(super) struct Alpn;

impl Criterion for Alpn {
    type Key = Box<[u8]>;

    fn wanted(chain: &ChainMatch) -> Vec<Box<[u8]>> {
        chain.alpn.clone()
    }

    fn best<'a, T>(&self, asked: &'a HashMap<Box<[u8]>, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
        inputs.alpn.iter().find_map(|offered| asked.get(&**offered))
    }
}

/// The source type.
#[derive(Debug, Default)]
pub(super) struct Type;

impl Criterion for Type {
    type Key = bool;

    fn wanted(chain: &ChainMatch) -> Vec<bool> {
        match chain.source_type {
            SourceType::Any => Vec::new(),
            SourceType::Local => vec![true],
            SourceType::External => vec![false],
        }
    }

    fn best<'a, T>(&self, asked: &'a HashMap<bool, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
        asked.get(&inputs.is_local())
    }
}

/// The client's port.
#[derive(Debug, Default)]
pub(super) struct SourcePort;

impl Criterion for SourcePort {
    type Key = u16;

    fn wanted(chain: &ChainMatch) -> Vec<u16> {
        chain.source_ports.clone()
    }

    fn best<'a, T>(&self, asked: &'a HashMap<u16, T>, inputs: &MatchInputs<'_>) -> Option<&'a T> {
        asked.get(&inputs.source_port)
    }
}
