//! Merges outbound listeners: services with the same address and port share a listener, or
//! conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::Conflict;
use super::chain::{self, HttpPart};
use super::naming;
use super::virtual_host::{Exposed, origins};
use crate::ir::ResourceName;
use crate::ir::listener::{ChainMatch, Direction, FilterChain, InspectExcept, Inspection, ListenAddress, Listener};
use crate::mesh::config::{MeshConfig, OutboundPolicy};
use crate::mesh::service::Protocol;
use crate::name::ObjectId;

/// The listeners of one port.
#[derive(Default)]
pub(super) struct Slots {
    slots: BTreeMap<ResourceName, Slot>,
    /// Services that lost an address conflict.
    pub(super) conflicts: Vec<Conflict>,
}

/// Where a listener listens.
#[derive(Clone, Debug)]
pub(super) struct ListenerSocket {
    /// The address.
    pub(super) address: ListenAddress,
    /// Whether it binds a socket.
    pub(super) bound: bool,
}

/// One listener being built.
struct Slot {
    socket: ListenerSocket,
    http: Option<HttpPart>,
    streams: Vec<FilterChain>,
    /// Match criteria already taken by TCP chains.
    claims: BTreeSet<Claim>,
    /// Whether some port uses a server-first protocol, which rules out protocol detection.
    server_first: bool,
    /// Owned by an egress listener of the Sidecar; services added later are ignored.
    locked: bool,
    owners: Vec<ObjectId>,
}

/// CIDR and SNI; `None` matches any.
type Claim = (Option<IpNet>, Option<Arc<str>>);

/// Settings for finished listeners.
pub(super) struct Finish<'a> {
    /// The mesh's settings.
    pub(super) config: &'a MeshConfig,
    /// Policy for destinations unknown to the mesh.
    pub(super) policy: OutboundPolicy,
    /// By route configuration: whether all its clusters use the downstream HTTP version.
    pub(super) follows_client: BTreeMap<ResourceName, bool>,
}

impl Slots {
    /// Adds HTTP. Services share it, distinguished by `Host`; ignored if a server-first protocol is
    /// present.
    pub(super) fn add_http(&mut self, socket: &ListenerSocket, exposed: &Exposed<'_>, part: HttpPart) {
        let Some(slot) = self.open(socket) else { return };
        let taken = slot.server_first || slot.http.as_ref().is_some_and(|http| http.routes != part.routes);
        if taken {
            return self.conflict(socket, exposed);
        }
        let grpc_web = part.grpc_web;
        slot.http.get_or_insert(part).grpc_web |= grpc_web;
        slot.owners.extend(exposed.service.origins.iter().cloned());
    }

    /// Adds TCP chains. Of chains with equal match criteria the first one wins, since Envoy rejects
    /// duplicates.
    pub(super) fn add_streams(&mut self, socket: &ListenerSocket, exposed: &Exposed<'_>, chains: Vec<FilterChain>) {
        let Some(slot) = self.open(socket) else { return };
        let server_first = matches!(exposed.protocol, Protocol::Mongo | Protocol::MySql);
        if server_first && slot.http.is_some() {
            return self.conflict(socket, exposed);
        }
        let mut dropped = false;
        for chain in chains {
            let again = slot.streams.contains(&chain);
            dropped |= !slot.add_stream(chain) && !again;
        }
        match dropped {
            true => self.conflict(socket, exposed),
            false => {
                slot.server_first |= server_first;
                slot.owners.extend(exposed.service.origins.iter().cloned());
                slot.owners.extend(exposed.rule.map(|rule| rule.id.clone()));
            }
        }
    }

    /// Closes all current listeners to further services.
    pub(super) fn lock(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.locked = true);
    }

    /// Names of the route configurations the listeners refer to.
    pub(super) fn routes(&self) -> impl Iterator<Item = &ResourceName> {
        self.slots.values().filter_map(|slot| Some(&slot.http.as_ref()?.routes))
    }

    /// The finished listeners.
    pub(super) fn finish(self, finish: &Finish<'_>) -> impl Iterator<Item = Listener> {
        let filled = self.slots.into_iter().filter(|(_, slot)| !slot.is_empty());
        filled.map(|(name, slot)| slot.finish(name, finish))
    }

    /// The listener at an address, unless it is locked by an egress listener: that is intended by
    /// the Sidecar and no conflict.
    fn open(&mut self, socket: &ListenerSocket) -> Option<&mut Slot> {
        let slot = self.slots.entry(naming::listener(&socket.address));
        Some(slot.or_insert_with(|| Slot::new(socket.clone()))).filter(|slot| !slot.locked)
    }

    fn conflict(&mut self, socket: &ListenerSocket, exposed: &Exposed<'_>) {
        let listener = naming::listener(&socket.address);
        let kept = self.slots.get(&listener).and_then(|slot| slot.owners.first());
        self.conflicts.push(Conflict {
            kept: kept.cloned(),
            dropped: exposed.service.origins.first().cloned(),
            listener,
        });
    }
}

impl Slot {
    fn new(socket: ListenerSocket) -> Self {
        Self {
            socket,
            http: None,
            streams: Vec::new(),
            claims: BTreeSet::new(),
            server_first: false,
            locked: false,
            owners: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.http.is_none() && self.streams.is_empty()
    }

    /// Adds a chain restricted to criteria not yet taken. False if none is left.
    fn add_stream(&mut self, chain: FilterChain) -> bool {
        let mut by_names: BTreeMap<Vec<Option<Arc<str>>>, Vec<Option<IpNet>>> = BTreeMap::new();
        for range in any_of(chain.matcher.prefix_ranges.iter().map(IpNet::trunc)) {
            let names = any_of(chain.matcher.server_names.iter().cloned());
            let free: Vec<_> = names
                .into_iter()
                .filter(|name| self.claims.insert((range, name.clone())))
                .collect();
            by_names.entry(free).or_default().push(range);
        }
        by_names.remove([].as_slice());
        for (names, ranges) in &by_names {
            let matcher = ChainMatch {
                server_names: names.iter().flatten().cloned().collect(),
                prefix_ranges: ranges.iter().flatten().copied().collect(),
                ..chain.matcher.clone()
            };
            self.streams.push(FilterChain {
                matcher,
                ..chain.clone()
            });
        }
        !by_names.is_empty()
    }

    /// Whether it accepts connections for which no more specific listener exists.
    fn is_wildcard(&self) -> bool {
        let any = match &self.socket.address {
            ListenAddress::Ip(ip, _) => ip.is_unspecified(),
            ListenAddress::Unix(_) => false,
        };
        any && !self.socket.bound
    }

    fn finish(mut self, name: ResourceName, finish: &Finish<'_>) -> Listener {
        let wildcard = self.is_wildcard();
        let mut chains = self.http_chains(&name, finish);
        chains.append(&mut self.streams);
        let everything = ChainMatch::default();
        let mut default_chain = None;
        if let Some(at) = chains.iter().position(|chain| chain.matcher == everything) {
            if chains.len() > 1 {
                default_chain = Some(chains.remove(at));
            }
        } else if wildcard {
            default_chain = Some(chain::fallthrough(&finish.policy));
        }
        Listener {
            name,
            address: self.socket.address,
            bind: self.socket.bound,
            use_original_dst: false,
            transparent: false,
            direction: Direction::Outbound,
            inspection: inspection(&chains, finish.config),
            chains,
            default_chain,
            origins: origins(self.owners.iter()),
        }
    }

    /// HTTP is detected where the listener may also carry other protocols.
    fn http_chains(&self, name: &str, finish: &Finish<'_>) -> Vec<FilterChain> {
        let Some(http) = &self.http else {
            return Vec::new();
        };
        if self.streams.is_empty() && !self.is_wildcard() {
            return vec![http.chain(name, finish.config)];
        }
        let follows_client = finish.follows_client.get(&http.routes).copied().unwrap_or(false);
        http.sniffing(name, follows_client, finish.config)
    }
}

/// The distinct values, or a single `None` if there are none, which matches any.
fn any_of<T: Ord + Clone>(values: impl Iterator<Item = T>) -> Vec<Option<T>> {
    let mut seen = BTreeSet::new();
    let values: Vec<Option<T>> = values.filter(|value| seen.insert(value.clone())).map(Some).collect();
    if values.is_empty() { vec![None] } else { values }
}

/// The listener filters that the chains' match criteria need.
pub(super) fn inspection(chains: &[FilterChain], config: &MeshConfig) -> Inspection {
    let http = chains
        .iter()
        .any(|chain| !chain.matcher.application_protocols.is_empty());
    let tls = http || chains.iter().any(|chain| !chain.matcher.server_names.is_empty());
    Inspection {
        tls: tls.then(InspectExcept::default),
        http: http.then(InspectExcept::default),
        timeout: http.then_some(config.protocol_detection_timeout),
        ..Inspection::default()
    }
}
