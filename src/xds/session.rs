//! What to tell one client, and when: the xDS protocol as a pure state machine.
//!
//! A [`Session`] is fed what the client says, what it should have (a [`Snapshot`]) and the time, and
//! answers with [`Push`]es. It does no I/O and reads no clock. [`delta`] and [`sotw`] translate
//! between it and the two variants of the protocol, which differ only in how a push is written.
//!
//! The rules, in order of precedence:
//!
//! 1. A resource goes out at most once at a time: the next push of a type waits for the ACK or NACK of
//!    the one before.
//! 2. What a client asks for by name is always answered, with an empty resource if need be, so that
//!    no listener or cluster waits for ever. (The real Envoy ignores `removed_resources` of routes
//!    and endpoints and waits on.)
//! 3. Make before break: clusters, then their endpoints and secrets, then listeners, then routes,
//!    each step after the ACK of the one before; a listener or route waits until every cluster it
//!    names is warm.
//! 4. Removals come last, in reverse, after every addition is ACKed; clusters some time later still,
//!    for requests that have chosen their route and not yet their endpoint.
//! 5. What a client refuses is not sent again until it changes, and the version before stays.

mod channel;
pub mod delta;
pub mod sotw;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use channel::Channel;
pub use wanted::Wanted;

use super::client::REFUSED;
use super::resource::{Resource, ResourceType, Version, Warming};
use super::snapshot::{ResourceSet, Snapshot, changed_names};
use crate::ir::ResourceName;

/// Waits that the protocol has no sign for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a route waits for a cluster whose names have to be looked up.
    pub dns: Duration,
    /// How long a route waits for the endpoints of a cluster to be asked for and ACKed.
    pub endpoints: Duration,
    /// How long a cluster that nothing names any more is kept.
    pub removal: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            dns: Duration::from_secs(1),
            endpoints: Duration::from_secs(5),
            removal: Duration::from_secs(2),
        }
    }
}

/// Envoy cuts its reasons off near 4,096 characters.
const ENVOY_MESSAGE_LIMIT: usize = 4_000;

/// Something to send: additions or removals of one type, never both.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The type.
    pub kind: ResourceType,
    /// Identifies the push in the client's ACK or NACK.
    pub nonce: u64,
    /// New and changed resources.
    pub upserts: Vec<Arc<Resource>>,
    /// Names that are gone.
    pub removals: Vec<ResourceName>,
}

/// A resource that the client refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The resource as it was sent.
    pub resource: Arc<Resource>,
    /// The client's reason.
    pub message: String,
}

/// How far a client is with one type (as `topsail status` shows it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// It has what it should have.
    Synced,
    /// Something is on its way or still to be sent.
    Stale,
    /// It refused something.
    Nacked,
    /// It never asked.
    NotSent,
}

impl SyncState {
    /// All of them.
    pub const ALL: [SyncState; 4] = [
        SyncState::Synced,
        SyncState::Stale,
        SyncState::Nacked,
        SyncState::NotSent,
    ];

    /// The state as it is serialised: `SYNCED`, `STALE`, `NACKED` or `NOT_SENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncState::Synced => "SYNCED",
            SyncState::Stale => "STALE",
            SyncState::Nacked => "NACKED",
            SyncState::NotSent => "NOT_SENT",
        }
    }
}

/// What a client refused, by type and name. It outlives a session: what a proxy refused is not sent to
/// it again when it reconnects.
pub type Refused = BTreeMap<(ResourceType, ResourceName), RefusedVersion>;

/// A version that a client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedVersion {
    /// The version.
    pub version: Version,
    /// The version that stays in force at the client, if it has one, and the clusters which that names:
    /// they are not removed as long as it is in force, on whichever stream.
    pub in_force: Option<(Version, Arc<[ResourceName]>)>,
}

/// The state of one client on one stream.
#[derive(Debug)]
pub struct Session {
    channels: [Channel; ResourceType::ALL.len()],
    target: Option<Arc<Snapshot>>,
    /// New clusters that are not known to be warm, and until when routes wait for them.
    warming: BTreeMap<ResourceName, Instant>,
    refused: Refused,
    patience: Patience,
    last_nonce: u64,
}

impl Session {
    /// A client that has just connected. `refused` is what it refused on earlier streams.
    pub fn new(patience: Patience, refused: Refused) -> Self {
        Self {
            channels: ResourceType::ALL.map(Channel::new),
            target: None,
            warming: BTreeMap::new(),
            refused,
            patience,
            last_nonce: 0,
        }
    }

    /// What the client should have from now on.
    pub fn set_target(&mut self, target: Arc<Snapshot>) {
        for channel in &mut self.channels {
            let new = target.set(channel.kind);
            match &self.target {
                Some(old) => changed_names(old.set(channel.kind), new).for_each(|name| channel.touch(name)),
                None => channel.touch_all(new),
            }
        }
        self.refused.retain(|(kind, name), refused| {
            target
                .set(*kind)
                .get(name)
                .is_some_and(|resource| resource.version == refused.version)
        });
        self.target = Some(target);
    }

    /// The client asks for every resource of a type. `has` is what it says it has.
    pub fn subscribe_all(&mut self, kind: ResourceType, has: Vec<(ResourceName, Version)>) {
        self.forget_refusals(kind, has.is_empty());
        let target = self.target.clone();
        let set = target.as_ref().map(|target| target.set(kind));
        self.channels[kind as usize].subscribe_all(has, set);
        self.recall_clusters(kind);
    }

    /// The client asks for resources by name. `has` is what it says it has (on reconnecting); those
    /// names are answered only if the version differs, all others in any case.
    pub fn subscribe(&mut self, kind: ResourceType, names: Vec<ResourceName>, has: Vec<(ResourceName, Version)>) {
        self.forget_refusals(kind, has.is_empty());
        let target = self.target.clone();
        let set = target.as_ref().map(|target| target.set(kind));
        self.channels[kind as usize].subscribe(names, has, set);
        self.recall_clusters(kind);
    }

    /// Everything of the type is to be said at once the first time: in the state-of-the-world variant
    /// what is missing is gone.
    pub fn say_whole(&mut self, kind: ResourceType) {
        self.channels[kind as usize].whole = true;
    }

    /// What a reconnecting client has kept in force in the place of what it refused names the clusters
    /// that it named before.
    fn recall_clusters(&mut self, kind: ResourceType) {
        for ((_, name), refused) in self.refused.iter().filter(|((refused, _), _)| *refused == kind) {
            if let Some((version, clusters)) = &refused.in_force {
                self.channels[kind as usize].recall(name, version, clusters);
            }
        }
    }

    /// A client that has nothing of a type is another process than the one that refused something:
    /// what was wrong there (a port in use, a file that was missing) may be right here.
    fn forget_refusals(&mut self, kind: ResourceType, has_nothing: bool) {
        if has_nothing && !self.channels[kind as usize].started {
            self.refused.retain(|(refused, _), _| *refused != kind);
        }
    }

    /// The client no longer wants every resource of a type, only those it has named.
    pub fn unsubscribe_all(&mut self, kind: ResourceType) {
        self.channels[kind as usize].unsubscribe_all();
    }

    /// The client no longer wants these names.
    pub fn unsubscribe(&mut self, kind: ResourceType, names: &[ResourceName]) {
        self.channels[kind as usize].unsubscribe(names);
    }

    /// The names the client asks for, of a type that is asked for by name.
    pub fn subscribed(&self, kind: ResourceType) -> &Wanted {
        &self.channels[kind as usize].names
    }

    /// Whether the client has asked for anything of the type on this stream.
    pub fn started(&self, kind: ResourceType) -> bool {
        self.channels[kind as usize].started
    }

    /// What the client has of a type, as far as it has ACKed.
    pub fn held(&self, kind: ResourceType) -> &ResourceSet {
        &self.channels[kind as usize].held
    }

    /// The client accepted the push with this nonce. Other nonces are stale and mean nothing.
    pub fn ack(&mut self, kind: ResourceType, nonce: u64) {
        let Some(push) = self.channels[kind as usize].take_in_flight(nonce) else {
            return;
        };
        self.accept(kind, &push.upserts, &push.removals);
    }

    /// The client refused the push with this nonce. Returns what is to blame, if that is known
    /// already; else smaller pushes will tell.
    ///
    /// The real Envoy applies the good clusters and listeners of a push and names the bad ones; of
    /// the other types it drops the whole push and names none.
    pub fn nack(&mut self, kind: ResourceType, nonce: u64, message: &str) -> Vec<Refusal> {
        let Some(push) = self.channels[kind as usize].take_in_flight(nonce) else {
            return Vec::new();
        };
        // The bundled data plane names what it refuses of every type, and takes the rest.
        let names_all = kind.is_wildcard() || message.starts_with(REFUSED);
        let named = |resource: &&Arc<Resource>| names_all && names_resource(message, &resource.name);
        let (mut bad, good): (Vec<_>, Vec<_>) = push.upserts.iter().partition(named);
        let cut = message.len() >= ENVOY_MESSAGE_LIMIT;
        if bad.is_empty() && push.upserts.len() == 1 {
            bad.extend(&push.upserts);
        }
        if bad.is_empty() {
            self.channels[kind as usize].split(push.upserts.iter().map(|resource| resource.name.clone()).collect());
            return Vec::new();
        }
        if names_all {
            let good: Vec<_> = good
                .into_iter()
                .filter(|resource| !bad.contains(resource))
                .cloned()
                .collect();
            match cut {
                // More may be refused than the message has room for.
                true => self.channels[kind as usize].repeat_each(&good),
                false => self.accept(kind, &good, &push.removals),
            }
        }
        for resource in &bad {
            let wanted = self
                .target
                .as_ref()
                .and_then(|target| target.set(kind).get(&resource.name));
            if wanted.is_some_and(|wanted| wanted.version == resource.version) {
                let refused = RefusedVersion {
                    version: resource.version.clone(),
                    in_force: self.channels[kind as usize].in_force(&resource.name),
                };
                self.refused.insert((kind, resource.name.clone()), refused);
            }
            self.warming.remove(&resource.name);
        }
        bad.into_iter()
            .map(|resource| Refusal {
                resource: resource.clone(),
                message: message.to_owned(),
            })
            .collect()
    }

    /// What to send now. Call again after every event and when [`Session::wake_at`] has come.
    pub fn poll(&mut self, now: Instant) -> Vec<Push> {
        let Some(target) = self.target.clone() else {
            return Vec::new();
        };
        self.warming.retain(|_, until| *until > now);
        let mut pushes = Vec::new();
        let mut earlier_done = true;
        for kind in ResourceType::ALL {
            if let Some(push) = self.next_upserts(kind, &target, earlier_done, now) {
                pushes.push(push);
            }
            earlier_done &= self.channels[kind as usize].additions_done();
        }
        if earlier_done {
            pushes.extend(self.next_removals(now));
        }
        pushes
    }

    /// When to poll again even if nothing happens.
    pub fn wake_at(&self) -> Option<Instant> {
        let removals = self.channels.iter().filter(|_| self.up_to_date());
        let removals = removals.flat_map(|channel| channel.removals.values().flatten());
        self.warming.values().chain(removals).min().copied()
    }

    /// How far the client is with a type.
    pub fn state(&self, kind: ResourceType) -> SyncState {
        let channel = &self.channels[kind as usize];
        if !channel.started {
            SyncState::NotSent
        } else if self.refused.keys().any(|(refused, _)| *refused == kind) {
            SyncState::Nacked
        } else if channel.additions_done() && channel.removals.is_empty() {
            SyncState::Synced
        } else {
            SyncState::Stale
        }
    }

    /// Whether the client has everything it should have and will take.
    pub fn settled(&self) -> bool {
        self.target.is_some()
            && self
                .channels
                .iter()
                .all(|channel| channel.additions_done() && channel.removals.is_empty())
    }

    /// Whether every addition and change is ACKed; removals may still wait.
    pub fn up_to_date(&self) -> bool {
        self.target.is_some() && self.channels.iter().all(Channel::additions_done)
    }

    /// What the client refused, for its next session.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The generation of what the client should have.
    pub fn generation(&self) -> Option<u64> {
        self.target.as_ref().map(|target| target.generation)
    }

    fn accept(&mut self, kind: ResourceType, upserts: &[Arc<Resource>], removals: &[ResourceName]) {
        if kind == ResourceType::Endpoints {
            for resource in upserts {
                self.warming.remove(&resource.name);
            }
        }
        let set = self.target.as_ref().map(|target| target.set(kind));
        self.channels[kind as usize].accept(upserts, removals, set);
    }

    /// A changed cluster is warmed anew and needs its endpoints once more, but the client, having
    /// asked for them before, does not ask again (envoyproxy/envoy#13009). They follow the cluster without
    /// waiting for its ACK: Envoy gives none before every cluster is warm.
    fn repeat_endpoints(&mut self, clusters: &[Arc<Resource>]) {
        let held = &self.channels[ResourceType::Cluster as usize].held;
        let changed = clusters
            .iter()
            .filter(|c| c.warming == Warming::Endpoints && held.contains_key(&c.name));
        let names: Vec<_> = changed.map(|cluster| cluster.name.clone()).collect();
        self.channels[ResourceType::Endpoints as usize].repeat(&names);
    }

    /// The next additions and changes of a type. Answers to questions do not wait for earlier types;
    /// everything else does.
    fn next_upserts(
        &mut self,
        kind: ResourceType,
        target: &Snapshot,
        earlier_done: bool,
        now: Instant,
    ) -> Option<Push> {
        let clusters = self.channels[ResourceType::Cluster as usize]
            .started
            .then_some(ClustersInPlay {
                due: target.set(ResourceType::Cluster),
                held: self.channels[ResourceType::Cluster as usize].held.clone(),
                refused: &self.refused,
                warming: &self.warming,
            });
        let channel = &mut self.channels[kind as usize];
        if channel.in_flight.is_some() || !channel.started {
            return None;
        }
        let upserts = channel.take_batch(target.set(kind), |resource, asked| {
            let refused = self.refused.get(&(kind, resource.name.clone()));
            let refused = refused.is_some_and(|refused| refused.version == resource.version);
            let in_turn = earlier_done || (asked && !kind.is_wildcard());
            let ready = clusters.as_ref().is_none_or(|clusters| clusters.ready_for(resource));
            channel::Verdict::of(refused, in_turn && ready)
        });
        if upserts.is_empty() && !channel.owes_an_answer(earlier_done) {
            return None;
        }
        if kind == ResourceType::Cluster {
            self.note_warming(&upserts, now);
            self.repeat_endpoints(&upserts);
        }
        Some(self.push(kind, upserts, Vec::new()))
    }

    fn note_warming(&mut self, clusters: &[Arc<Resource>], now: Instant) {
        let held = &self.channels[ResourceType::Cluster as usize].held;
        for cluster in clusters.iter().filter(|cluster| !held.contains_key(&cluster.name)) {
            let patience = match cluster.warming {
                Warming::None => continue,
                Warming::Endpoints => self.patience.endpoints,
                Warming::Dns => self.patience.dns,
            };
            self.warming.insert(cluster.name.clone(), now + patience);
        }
    }

    /// Removals, once every addition is ACKed: listeners at once, secrets when asked, clusters after
    /// the listeners and [`Patience::removal`]. A cluster that something in force still names stays.
    fn next_removals(&mut self, now: Instant) -> Option<Push> {
        let due = now + self.patience.removal;
        for (kind, at) in [
            (ResourceType::Listener, now),
            (ResourceType::Secret, now),
            (ResourceType::Cluster, due),
        ] {
            let still_named = if kind == ResourceType::Cluster {
                self.named_by_refusals()
            } else {
                Some(Vec::new())
            };
            let Some(still_named) = still_named else { continue };
            let channel = &mut self.channels[kind as usize];
            channel.schedule_removals(at);
            let names = channel.take_removals(now, &still_named);
            if !names.is_empty() {
                return Some(self.push(kind, Vec::new(), names));
            }
            if !self.channels[kind as usize].removals.is_empty() && kind == ResourceType::Listener {
                return None;
            }
        }
        None
    }

    /// Clusters named by listeners and routes that stay in force because their successor was refused.
    /// `None` if it is not known which those are: a client that reconnects to another server can have
    /// something in force that this server has never seen. Any cluster may be named by it then.
    fn named_by_refusals(&self) -> Option<Vec<ResourceName>> {
        let of_clusters = |kind: ResourceType| matches!(kind, ResourceType::Listener | ResourceType::Route);
        let mut named = Vec::new();
        for ((kind, name), refused) in self.refused.iter().filter(|((kind, _), _)| of_clusters(*kind)) {
            let channel = &self.channels[*kind as usize];
            let clusters = match channel.held.get(name) {
                Some(held) if held.body.is_empty() && held.clusters.is_empty() => return None,
                Some(held) => Some(&held.clusters),
                // It has not said yet what it has.
                None if !channel.started => refused.in_force.as_ref().map(|(_, clusters)| clusters),
                None => None,
            };
            named.extend(clusters.into_iter().flat_map(|clusters| clusters.iter().cloned()));
        }
        Some(named)
    }

    fn push(&mut self, kind: ResourceType, upserts: Vec<Arc<Resource>>, removals: Vec<ResourceName>) -> Push {
        self.last_nonce += 1;
        let push = Push {
            kind,
            nonce: self.last_nonce,
            upserts,
            removals,
        };
        self.channels[kind as usize].sent(push.clone());
        push
    }
}

/// Which clusters the client has, of those it should have.
struct ClustersInPlay<'a> {
    due: &'a ResourceSet,
    held: ResourceSet,
    refused: &'a Refused,
    warming: &'a BTreeMap<ResourceName, Instant>,
}

impl ClustersInPlay<'_> {
    /// Whether the client has every cluster that the resource names, warm, as far as it can have it.
    fn ready_for(&self, resource: &Resource) -> bool {
        resource.clusters.iter().all(|name| {
            let missing = self.due.get(name).is_some_and(|cluster| {
                let refused = self.refused.get(&(ResourceType::Cluster, name.clone()));
                !self.held.contains_key(name) && refused.is_none_or(|refused| refused.version != cluster.version)
            });
            !missing && !self.warming.contains_key(name)
        })
    }
}

/// Whether Envoy's reason for refusing clusters or listeners names this one:
/// `Error adding/updating cluster(s) a: why, b: why`.
fn names_resource(message: &str, name: &str) -> bool {
    message.match_indices(name).any(|(at, _)| {
        let before = message[..at].chars().next_back();
        before.is_none_or(char::is_whitespace) && message[at + name.len()..].starts_with(':')
    })
}

#[cfg(test)]
mod tests;
