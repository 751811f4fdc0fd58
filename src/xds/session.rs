//! The server side of the xDS protocol for one client, as a pure state machine.
//!
//! A [`Session`] is fed the client's requests, its target (a [`Snapshot`]) and the time, and
//! returns [`Push`]es. It does no I/O and reads no clock. [`delta`] and [`sotw`] translate to and
//! from the two protocol variants, which differ only in how a push is written.
//!
//! The rules, in order of precedence:
//!
//! 1. At most one push per type is in flight: the next one waits for the ACK or NACK.
//! 2. A subscription by name is always answered, so that no listener or cluster keeps warming: if
//!    the resource does not exist, with an empty route configuration or load assignment (Envoy
//!    ignores `removed_resources` for these and keeps waiting), otherwise with a removal.
//! 3. Make before break: clusters, their endpoints and secrets, listeners, routes, each step after
//!    the ACK of the previous one. A listener or route waits until all clusters it refers to are
//!    warm.
//! 4. Removals come last and in reverse order, after every addition is ACKed. Clusters are removed
//!    after an additional delay, for requests that have selected a route but no endpoint yet.
//! 5. A rejected resource is not sent again until it changes; the previous version stays in force.

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

/// Timeouts for events that xDS does not signal.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimeouts {
    /// How long a route waits for a cluster with DNS discovery.
    pub dns: Duration,
    /// How long a route waits for a cluster's endpoints to be requested and ACKed.
    pub endpoints: Duration,
    /// How long a cluster is kept after the last reference to it is removed.
    pub removal: Duration,
}

impl Default for SessionTimeouts {
    fn default() -> Self {
        Self {
            dns: Duration::from_secs(1),
            endpoints: Duration::from_secs(5),
            removal: Duration::from_secs(2),
        }
    }
}

/// Envoy truncates NACK messages at about 4,096 characters.
const ENVOY_MESSAGE_LIMIT: usize = 4_000;

/// Additions or removals of one type, never both.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The type.
    pub kind: ResourceType,
    /// Nonce, by which the client ACKs or NACKs the push.
    pub nonce: u64,
    /// New and changed resources.
    pub upserts: Vec<Arc<Resource>>,
    /// Names of removed resources.
    pub removals: Vec<ResourceName>,
}

/// A resource rejected by the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The resource as sent.
    pub resource: Arc<Resource>,
    /// The client's NACK message.
    pub message: String,
}

/// Sync state of a type, as shown by `topsail status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// Everything is ACKed.
    Synced,
    /// Something is in flight or has yet to be sent.
    Stale,
    /// Something was rejected.
    Nacked,
    /// The client has not subscribed.
    NotSent,
}

impl SyncState {
    /// All states.
    pub const ALL: [SyncState; 4] = [
        SyncState::Synced,
        SyncState::Stale,
        SyncState::Nacked,
        SyncState::NotSent,
    ];

    /// Serialized form: `SYNCED`, `STALE`, `NACKED` or `NOT_SENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncState::Synced => "SYNCED",
            SyncState::Stale => "STALE",
            SyncState::Nacked => "NACKED",
            SyncState::NotSent => "NOT_SENT",
        }
    }
}

/// Rejected resources by type and name. They outlive a session: a rejected resource is not sent
/// again when the proxy reconnects.
pub type Refused = BTreeMap<(ResourceType, ResourceName), RefusedVersion>;

/// A rejected version of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedVersion {
    /// The rejected version.
    pub version: Version,
    /// The version in force at the client, if any, and the clusters it refers to: these are not
    /// removed, on any stream, while it is in force.
    pub in_force: Option<(Version, Arc<[ResourceName]>)>,
}

/// State of one client on one stream.
#[derive(Debug)]
pub struct Session {
    channels: [Channel; ResourceType::ALL.len()],
    target: Option<Arc<Snapshot>>,
    /// New clusters not known to be warm, and until when routes wait for them.
    warming: BTreeMap<ResourceName, Instant>,
    refused: Refused,
    patience: SessionTimeouts,
    last_nonce: u64,
}

impl Session {
    /// A new session. `refused` are resources the client rejected on earlier streams.
    pub fn new(patience: SessionTimeouts, refused: Refused) -> Self {
        Self {
            channels: ResourceType::ALL.map(Channel::new),
            target: None,
            warming: BTreeMap::new(),
            refused,
            patience,
            last_nonce: 0,
        }
    }

    /// Sets the target of the client.
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

    /// Wildcard subscription. `has` are the versions the client reports to have.
    pub fn subscribe_all(&mut self, kind: ResourceType, has: Vec<(ResourceName, Version)>) {
        self.forget_refusals(kind, has.is_empty());
        let target = self.target.clone();
        let set = target.as_ref().map(|target| target.set(kind));
        self.channels[kind as usize].subscribe_all(has, set);
        self.recall_clusters(kind);
    }

    /// Subscription by name. `has` are the versions the client reports on reconnecting; these names
    /// are answered only if the version differs, all others always.
    pub fn subscribe(&mut self, kind: ResourceType, names: Vec<ResourceName>, has: Vec<(ResourceName, Version)>) {
        self.forget_refusals(kind, has.is_empty());
        let target = self.target.clone();
        let set = target.as_ref().map(|target| target.set(kind));
        self.channels[kind as usize].subscribe(names, has, set);
        self.recall_clusters(kind);
    }

    /// Makes the first push of the type complete: in the SotW variant, absence means removal.
    pub fn say_whole(&mut self, kind: ResourceType) {
        self.channels[kind as usize].whole = true;
    }

    /// Restores the clusters referred to by what a reconnecting client keeps in force in place of
    /// rejected resources.
    fn recall_clusters(&mut self, kind: ResourceType) {
        for ((_, name), refused) in self.refused.iter().filter(|((refused, _), _)| *refused == kind) {
            if let Some((version, clusters)) = &refused.in_force {
                self.channels[kind as usize].recall(name, version, clusters);
            }
        }
    }

    /// Clears rejections if the client has no resources of the type: it is then a new process, for
    /// which the cause (a port in use, a missing file) may be gone.
    fn forget_refusals(&mut self, kind: ResourceType, has_nothing: bool) {
        if has_nothing && !self.channels[kind as usize].started {
            self.refused.retain(|(refused, _), _| *refused != kind);
        }
    }

    /// Ends the wildcard subscription; only named resources remain.
    pub fn unsubscribe_all(&mut self, kind: ResourceType) {
        self.channels[kind as usize].unsubscribe_all();
    }

    /// Removes names from the subscription.
    pub fn unsubscribe(&mut self, kind: ResourceType, names: &[ResourceName]) {
        self.channels[kind as usize].unsubscribe(names);
    }

    /// The names subscribed to, for a type that is subscribed to by name.
    pub fn subscribed(&self, kind: ResourceType) -> &Wanted {
        &self.channels[kind as usize].names
    }

    /// Whether the client has subscribed to the type on this stream.
    pub fn started(&self, kind: ResourceType) -> bool {
        self.channels[kind as usize].started
    }

    /// The resources of a type that the client has ACKed.
    pub fn held(&self, kind: ResourceType) -> &ResourceSet {
        &self.channels[kind as usize].held
    }

    /// The client ACKed the push with this nonce. Other nonces are stale and ignored.
    pub fn ack(&mut self, kind: ResourceType, nonce: u64) {
        let Some(push) = self.channels[kind as usize].take_in_flight(nonce) else {
            return;
        };
        self.accept(kind, &push.upserts, &push.removals);
    }

    /// The client NACKed the push with this nonce. Returns the rejected resources, if they are
    /// known; otherwise the push is bisected.
    ///
    /// Envoy applies the valid clusters and listeners of a push and names the invalid ones; of
    /// other types it drops the whole push and names none.
    pub fn nack(&mut self, kind: ResourceType, nonce: u64, message: &str) -> Vec<Refusal> {
        let Some(push) = self.channels[kind as usize].take_in_flight(nonce) else {
            return Vec::new();
        };
        // The bundled proxy names rejected resources of every type, and applies the others.
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
                // The message is truncated, so more resources may be rejected than it names.
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

    /// Returns the pushes to send now. Must be called again after every event, and at
    /// [`Session::wake_at`].
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

    /// When to poll again in the absence of events.
    pub fn wake_at(&self) -> Option<Instant> {
        let removals = self.channels.iter().filter(|_| self.up_to_date());
        let removals = removals.flat_map(|channel| channel.removals.values().flatten());
        self.warming.values().chain(removals).min().copied()
    }

    /// Sync state of a type.
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

    /// Whether the client has everything in the target that it does not reject.
    pub fn settled(&self) -> bool {
        self.target.is_some()
            && self
                .channels
                .iter()
                .all(|channel| channel.additions_done() && channel.removals.is_empty())
    }

    /// Whether every addition and change is ACKed or NACKed; removals may be pending.
    pub fn up_to_date(&self) -> bool {
        self.target.is_some() && self.channels.iter().all(Channel::additions_done)
    }

    /// The rejected resources, for the client's next session.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The target generation.
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

    /// A changed cluster is warmed again and needs its endpoints again, but the client is already
    /// subscribed to them and does not request them again (envoyproxy/envoy#13009). They are sent
    /// after the cluster without waiting for its ACK, which Envoy sends only when all clusters are
    /// warm.
    fn repeat_endpoints(&mut self, clusters: &[Arc<Resource>]) {
        let held = &self.channels[ResourceType::Cluster as usize].held;
        let changed = clusters
            .iter()
            .filter(|c| c.warming == Warming::Endpoints && held.contains_key(&c.name));
        let names: Vec<_> = changed.map(|cluster| cluster.name.clone()).collect();
        self.channels[ResourceType::Endpoints as usize].repeat(&names);
    }

    /// The next additions and changes of a type. Responses to new subscriptions by name do not wait
    /// for earlier types; everything else does.
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
            channel::Delivery::of(refused, in_turn && ready)
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

    /// Removals, once every addition is ACKed: listeners and nonexistent secrets at once, clusters
    /// after the listeners and [`SessionTimeouts::removal`]. A cluster that something in force still
    /// refers to is kept.
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

    /// Clusters referred to by listeners and routes that stay in force because a newer version was
    /// rejected. `None` if unknown: a client that reconnects to another server can have resources
    /// in force that this server has never seen, and which may refer to any cluster.
    fn named_by_refusals(&self) -> Option<Vec<ResourceName>> {
        let of_clusters = |kind: ResourceType| matches!(kind, ResourceType::Listener | ResourceType::Route);
        let mut named = Vec::new();
        for ((kind, name), refused) in self.refused.iter().filter(|((kind, _), _)| of_clusters(*kind)) {
            let channel = &self.channels[*kind as usize];
            let clusters = match channel.held.get(name) {
                Some(held) if held.body.is_empty() && held.clusters.is_empty() => return None,
                Some(held) => Some(&held.clusters),
                // The client has not reported its resources yet.
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

/// The clusters of the target and their state at the client.
struct ClustersInPlay<'a> {
    due: &'a ResourceSet,
    held: ResourceSet,
    refused: &'a Refused,
    warming: &'a BTreeMap<ResourceName, Instant>,
}

impl ClustersInPlay<'_> {
    /// Whether the client has all clusters that the resource refers to, warm, except those it
    /// rejects.
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

/// Whether Envoy's NACK message for clusters or listeners names this one: `Error adding/updating
/// cluster(s) a: why, b: why`.
fn names_resource(message: &str, name: &str) -> bool {
    message.match_indices(name).any(|(at, _)| {
        let before = message[..at].chars().next_back();
        before.is_none_or(char::is_whitespace) && message[at + name.len()..].starts_with(':')
    })
}

#[cfg(test)]
mod tests;
