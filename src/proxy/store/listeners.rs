//! Listeners: warming, live, removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clusters::{are_given_up, given_up_at, missing_secrets};
use super::{Changes, Name, Store};
use crate::proxy::config::{self, At, Compiled, Refusal, same_name};
use crate::proxy::connection::Address;
use crate::proxy::listener::{FilterChain, Listener};
use crate::xds::ResourceType;

/// A listener with this name.
#[derive(Debug)]
pub(super) struct ListenerEntry {
    bytes: Bytes,
    live: Option<Arc<Listener>>,
    /// A version that is not live yet, and since when it has been warming.
    warming: Option<(Arc<Listener>, Instant)>,
    /// Whether it is static.
    fixed: bool,
}

impl ListenerEntry {
    pub(super) fn live(&self) -> Option<&Arc<Listener>> {
        self.live.as_ref()
    }

    /// Whether it is static.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the warming version waits for.
    pub(super) fn missing(&self) -> Vec<(ResourceType, &Name)> {
        let listeners = self.warming.iter().map(|(listener, _)| &**listener);
        let mut missing = Vec::new();
        for listener in listeners {
            missing.extend(missing_secrets_of(listener).map(|(name, _)| (ResourceType::Secret, name)));
            let managers = listener.managers().filter(|manager| manager.routes.get().is_none());
            missing.extend(managers.map(|manager| (ResourceType::Route, manager.routes.name())));
        }
        missing.dedup();
        missing
    }

    /// When the warming version becomes live without what it waits for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (listener, since) = self.warming.as_ref()?;
        given_up_at(*since, waits(listener))
    }
}

impl Store {
    /// Compiles a listener. Nothing changes until it is passed to [`Store::put_listener`], for which its sockets must
    /// be bound. `None`: nothing has changed.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn listener(&mut self, name: Option<&str>, bytes: &[u8]) -> Compiled<Option<Listener>> {
        let message = config::listener::read(bytes)?;
        if let Some(name) = name {
            same_name(name, &message.name).at("name")?;
        }
        let before = self.listeners.get(&*message.name);
        if name.is_some() && before.is_some_and(|before| before.fixed) {
            return Err(Refusal::new("the bootstrap has a listener of this name").within("name"));
        }
        if before.is_some_and(|before| before.bytes == bytes) {
            return Ok(None);
        }
        let listener = config::listener::listener(&message, &mut self.names)?;
        let taken = |entry: &ListenerEntry| {
            let one = entry.warming.as_ref().map(|(one, _)| one).or(entry.live.as_ref())?;
            let apart = one.name == listener.name || one.bind.is_none() || listener.bind.is_none();
            let theirs = |address: &Address| one.addresses.iter().any(|one| one.address == *address);
            let mut ours = listener.addresses.iter().map(|one| &one.address);
            ours.find(|address| !apart && theirs(address)).cloned()
        };
        if let Some(address) = self.listeners.values().find_map(taken) {
            let why = format!(
                "error adding listener: '{}' has duplicate address '{address}' as existing listener",
                message.name
            );
            return Err(Refusal::new(why));
        }
        Ok(Some(listener))
    }

    /// Adds a compiled listener. Filter chains that have not changed are kept.
    pub(crate) fn put_listener(&mut self, mut listener: Listener, bytes: Bytes, fixed: bool, now: Instant) {
        let live = self.listeners.get(&listener.name).and_then(|entry| entry.live.clone());
        if let Some(live) = &live {
            listener.stats = live.stats.clone();
            let before: Vec<_> = live.filter_chains().cloned().collect();
            let new = listener.chains.chains.iter_mut().chain(&mut listener.chains.default);
            for chain in new {
                if let Some(same) = before.iter().find(|one| one.content == chain.content) {
                    *chain = same.clone();
                }
            }
        }
        let name = listener.name.clone();
        let entry = ListenerEntry {
            bytes,
            live,
            warming: Some((Arc::new(listener), now)),
            fixed,
        };
        self.listeners.insert(name.clone(), entry);
        self.warming.listeners.insert(name);
    }

    /// Removes a listener and drains its connections. Returns whether there was one.
    pub(crate) fn remove_listener(&mut self, name: &str) -> bool {
        if self.listeners.get(name).is_none_or(|entry| entry.fixed) {
            return false;
        }
        if let Some(entry) = self.listeners.remove(name) {
            entry
                .live
                .iter()
                .flat_map(|live| live.filter_chains())
                .for_each(|chain| chain.draining.begin());
        }
        self.warming.listeners.remove(name);
        self.stale = true;
        true
    }

    /// Drains the connections of these listeners.
    pub(crate) fn drain_only<'a>(&'a self, those: impl Fn(&Listener) -> bool + 'a) -> impl Iterator<Item = &'a Name> {
        let live = self
            .listeners
            .values()
            .filter_map(ListenerEntry::live)
            .filter(move |live| those(live));
        live.map(|live| {
            live.filter_chains().for_each(|chain| chain.draining.begin());
            &live.name
        })
    }

    /// Drains all connections.
    pub(crate) fn drain(&self) {
        let live = self.listeners.values().filter_map(ListenerEntry::live);
        live.flat_map(|live| live.filter_chains())
            .for_each(|chain| chain.draining.begin());
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> u64 {
        let live = self.listeners.values().filter_map(ListenerEntry::live);
        live.map(|live| live.stats.cx_active.load(std::sync::atomic::Ordering::Relaxed))
            .sum()
    }

    /// Makes listeners live that are warm.
    pub(super) fn settle_listeners(&mut self, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let Self { listeners, warming, .. } = self;
        warming.listeners.retain(|name: &Name| {
            let Some(entry) = listeners.get_mut(name) else {
                return false;
            };
            let Some((listener, _)) = entry
                .warming
                .take_if(|(listener, since)| are_given_up(*since, waits(listener), now))
            else {
                return entry.warming.is_some();
            };
            if let Some(before) = entry.live.replace(listener.clone()) {
                let stays = |chain: &Arc<FilterChain>| listener.filter_chains().any(|one| Arc::ptr_eq(one, chain));
                before
                    .filter_chains()
                    .filter(|chain| !stays(chain))
                    .for_each(|chain| chain.draining.begin());
            }
            changes.live.push(listener);
            false
        });
        self.stale |= !changes.live.is_empty();
        changes
    }
}

/// The timeouts of what a listener waits for.
fn waits(listener: &Listener) -> impl Iterator<Item = Option<Duration>> {
    let routes = listener.managers().filter(|manager| manager.routes.get().is_none());
    let routes = routes.map(|manager| manager.routes_timeout);
    missing_secrets_of(listener).map(|(_, timeout)| timeout).chain(routes)
}

/// The secrets that have not been received, and their timeouts.
fn missing_secrets_of(listener: &Listener) -> impl Iterator<Item = (&Name, Option<Duration>)> {
    let contexts = listener.filter_chains().filter_map(|chain| chain.tls.as_ref());
    contexts.flat_map(|tls| missing_secrets(Some((&tls.certificate, tls.certificate_timeout)), &tls.verification))
}
