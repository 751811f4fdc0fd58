//! Client side of the xDS protocol, for the bundled proxy: subscriptions, accepted resources and
//! pending requests.
//!
//! A [`Client`] is a pure state machine: it is fed subscriptions and responses and returns
//! requests, which [`stream`] transports. Both protocol variants yield the same [`Update`]s; their
//! differences are in [`message`].

pub mod joining;
pub mod keep;
pub mod message;
pub mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use message::{Heartbeat, Received, Request, Response, Variant};

pub use super::pb::core::Node;
use super::resource::{ResourceType, Version};

/// Name of a resource.
pub type Name = Arc<str>;

/// The subscription to a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// Not subscribed.
    #[default]
    None,
    /// Wildcard. Like Envoy, subscribes with an empty list of names.
    All,
    /// By name.
    Names(BTreeSet<Name>),
}

/// Changes carried by a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The type.
    pub kind: ResourceType,
    /// Subscribed resources that are new or changed, in the order of the response.
    pub upserts: Vec<Received>,
    /// Subscribed resources that the server does not have (any more).
    pub removals: Vec<Name>,
    /// Errors of the response itself, by resource; an empty name is an error of the whole response.
    pub malformed: Vec<Refused>,
    /// Unchanged resources, with their new TTLs.
    unchanged: Vec<(Name, Option<Duration>)>,
    version: String,
    nonce: String,
}

impl Update {
    /// An update that changes nothing yet.
    fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            upserts: Vec::new(),
            removals: Vec::new(),
            malformed: Vec::new(),
            unchanged: Vec::new(),
            version: String::new(),
            nonce: String::new(),
        }
    }

    /// Version of the response (`version_info` or `system_version_info`).
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// A rejected resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: Name,
    /// Why it was rejected, with the field.
    pub why: String,
}

/// State of the client.
#[derive(Debug)]
pub struct Client {
    variant: Variant,
    /// Sent in the first request of each stream.
    node: Node,
    node_said: bool,
    topics: [Topic; ResourceType::ALL.len()],
}

/// State of one resource type.
#[derive(Debug, Default)]
struct Topic {
    interest: Subscription,
    /// Whether a request for the type was sent on this stream.
    started: bool,
    /// Names subscribed to on this stream.
    asked: BTreeSet<Name>,
    /// Accepted resources.
    held: BTreeMap<Name, Version>,
    /// When accepted resources with a TTL expire.
    expiries: BTreeMap<Name, Instant>,
    /// SotW only: version of the last accepted response, and the last nonce on this stream.
    version: String,
    nonce: String,
}

impl Client {
    /// A client without subscriptions.
    pub fn new(variant: Variant, node: Node) -> Self {
        Self {
            variant,
            node,
            node_said: false,
            topics: Default::default(),
        }
    }

    /// The protocol variant.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Starts a new stream; all subscriptions must be sent again.
    pub fn open(&mut self) {
        self.node_said = false;
        for topic in &mut self.topics {
            topic.started = false;
            topic.asked.clear();
            topic.nonce.clear();
        }
    }

    /// Sets the subscription to a type. Resources that are no longer subscribed to are forgotten,
    /// so that they are sent again when they are subscribed to later.
    pub fn want(&mut self, kind: ResourceType, interest: Subscription) {
        let topic = &mut self.topics[kind as usize];
        if let Subscription::Names(names) = &interest {
            topic.held.retain(|name, _| names.contains(name));
            topic.expiries.retain(|name, _| names.contains(name));
        }
        topic.interest = interest;
    }

    /// The subscription to a type.
    pub fn wanted(&self, kind: ResourceType) -> &Subscription {
        &self.topics[kind as usize].interest
    }

    /// Records a resource that was accepted before this process started.
    pub fn remember(&mut self, kind: ResourceType, name: Name, version: Version) {
        self.topics[kind as usize].held.insert(name, version);
    }

    /// The accepted resources of a type, with their versions.
    pub fn held(&self, kind: ResourceType) -> &BTreeMap<Name, Version> {
        &self.topics[kind as usize].held
    }

    /// Requests for the changes of subscriptions since the last call, in order of types.
    pub fn requests(&mut self) -> Vec<Request> {
        let due = ResourceType::ALL.into_iter().filter_map(|kind| self.ask(kind));
        due.collect::<Vec<_>>()
            .into_iter()
            .map(|request| self.introduce(request))
            .collect()
    }

    /// Processes a response.
    pub fn receive(&self, response: Response) -> Update {
        let topic = &self.topics[response.kind as usize];
        let mut update = Update {
            malformed: response.malformed,
            version: response.version,
            nonce: response.nonce,
            ..Update::new(response.kind)
        };
        if let Some(twice) = duplicate(&response.resources, &response.removed) {
            let why = format!("duplicate name {twice} found in the union of added+removed resources");
            update.malformed.push(Refused { name: "".into(), why });
            return update;
        }
        for beat in response.heartbeats {
            let held = topic.held.get(&beat.name);
            if held.is_some_and(|held| beat.version.is_none_or(|meant| meant == *held)) {
                update.unchanged.push((beat.name, beat.ttl));
            } else if topic.wants(&beat.name) {
                let (name, why) = (
                    beat.name,
                    "has no content, but its version is not the one held".to_owned(),
                );
                update.malformed.push(Refused { name, why });
            }
        }
        update.removals = match self.variant {
            Variant::Delta => response.removed,
            Variant::Sotw if response.kind.is_wildcard() => {
                let unchanged = update.unchanged.iter().map(|(name, _)| name);
                let present: BTreeSet<_> = response
                    .resources
                    .iter()
                    .map(|one| &one.name)
                    .chain(unchanged)
                    .collect();
                let malformed = |name: &Name| update.malformed.iter().any(|refused| refused.name == *name);
                let gone = topic.held.keys();
                gone.filter(|name| !present.contains(name) && !malformed(name))
                    .cloned()
                    .collect()
            }
            Variant::Sotw => Vec::new(),
        };
        update.removals.retain(|name| topic.wants(name));
        // In delta every resource in a response counts as changed, whatever its version: istiod
        // sends no per-resource versions.
        let is_new = |one: &Received| match self.variant {
            Variant::Delta => true,
            Variant::Sotw => topic.held.get(&one.name) != Some(&one.version),
        };
        let wanted = response.resources.into_iter().filter(|one| topic.wants(&one.name));
        let (new, same): (Vec<_>, Vec<_>) = wanted.partition(is_new);
        update.upserts = new;
        update.unchanged.extend(same.into_iter().map(|one| (one.name, one.ttl)));
        update
    }

    /// The ACK for an update, or, if resources were rejected, a NACK that names them. All others
    /// count as accepted, and their TTLs start `now`.
    pub fn answer(&mut self, update: &Update, refused: &[Refused], now: Instant) -> Request {
        let topic = &mut self.topics[update.kind as usize];
        let is_refused = |name: &Name| refused.iter().any(|one| one.name == *name);
        for one in update.upserts.iter().filter(|one| !is_refused(&one.name)) {
            topic.held.insert(one.name.clone(), one.version.clone());
            topic.expires(&one.name, one.ttl, now);
        }
        for (name, ttl) in &update.unchanged {
            topic.expires(name, *ttl, now);
        }
        for name in &update.removals {
            topic.held.remove(name);
            topic.expiries.remove(name);
        }
        topic.nonce.clone_from(&update.nonce);
        let error = reason(update.kind, update.malformed.iter().chain(refused));
        if error.is_none() {
            topic.version.clone_from(&update.version);
        }
        let request = match self.variant {
            Variant::Delta => Request::delta(update.kind, &update.nonce),
            Variant::Sotw => topic.whole(update.kind),
        };
        self.introduce(request.with_error(error))
    }

    /// When the next resource expires.
    pub fn expires_at(&self) -> Option<Instant> {
        self.topics
            .iter()
            .flat_map(|topic| topic.expiries.values())
            .min()
            .copied()
    }

    /// Removes the resources whose TTL has passed without a heartbeat. Returns an update for each type that has any; no
    /// request answers it. The resources stay subscribed to.
    pub fn expire(&mut self, now: Instant) -> Vec<Update> {
        let mut updates = Vec::new();
        for (kind, topic) in ResourceType::ALL.into_iter().zip(&mut self.topics) {
            let passed = topic.expiries.extract_if(.., |_, at| *at <= now);
            let removals: Vec<_> = passed.map(|(name, _)| name).collect();
            if removals.is_empty() {
                continue;
            }
            for name in &removals {
                topic.held.remove(name);
            }
            updates.push(Update {
                removals,
                ..Update::new(kind)
            });
        }
        updates
    }

    /// The request due for a type, if its subscription changed.
    fn ask(&mut self, kind: ResourceType) -> Option<Request> {
        let topic = &mut self.topics[kind as usize];
        let nothing = BTreeSet::new();
        let wanted = match &topic.interest {
            Subscription::None => return None,
            Subscription::All => &nothing,
            Subscription::Names(names) if names.is_empty() && !topic.started => return None,
            Subscription::Names(names) => names,
        };
        if topic.started && topic.asked == *wanted {
            return None;
        }
        let request = match self.variant {
            Variant::Delta => {
                let new = wanted.difference(&topic.asked);
                let gone = topic.asked.difference(wanted);
                let known = topic.held.iter().filter(|_| !topic.started);
                Request::delta(kind, "").subscribing(new, gone, known)
            }
            Variant::Sotw => topic.whole(kind),
        };
        topic.asked = wanted.clone();
        topic.started = true;
        Some(request)
    }

    /// Adds the node to the first request of a stream.
    fn introduce(&mut self, request: Request) -> Request {
        if std::mem::replace(&mut self.node_said, true) {
            return request;
        }
        request.with_node(self.node.clone())
    }
}

impl Topic {
    fn wants(&self, name: &Name) -> bool {
        match &self.interest {
            Subscription::None => false,
            Subscription::All => true,
            Subscription::Names(names) => names.contains(name),
        }
    }

    /// Restarts the TTL of a resource, or drops it.
    fn expires(&mut self, name: &Name, ttl: Option<Duration>, now: Instant) {
        match ttl.and_then(|ttl| now.checked_add(ttl)) {
            Some(at) => self.expiries.insert(name.clone(), at),
            None => self.expiries.remove(name),
        };
    }

    /// SotW: a request with the whole subscription, which also ACKs the last response.
    fn whole(&self, kind: ResourceType) -> Request {
        let names = match &self.interest {
            Subscription::None | Subscription::All => Vec::new(),
            Subscription::Names(names) => names.iter().map(ToString::to_string).collect(),
        };
        Request::sotw(kind, names, &self.version, &self.nonce)
    }
}

/// A name that occurs more than once.
fn duplicate(resources: &[Received], removed: &[Name]) -> Option<Name> {
    let mut seen = BTreeSet::new();
    let mut names = resources.iter().map(|one| &one.name).chain(removed);
    names.find(|name| !seen.insert(*name)).cloned()
}

/// The message of a NACK, which lists the rejected resources in Envoy's format for clusters and
/// listeners.
fn reason<'a>(kind: ResourceType, refused: impl Iterator<Item = &'a Refused>) -> Option<String> {
    let plural = match kind {
        ResourceType::Cluster => "cluster(s)",
        ResourceType::Endpoints => "endpoints",
        ResourceType::Secret => "secret(s)",
        ResourceType::Listener => "listener(s)",
        ResourceType::Route => "route configuration(s)",
    };
    let reasons: Vec<_> = refused
        .map(|Refused { name, why }| {
            if name.is_empty() {
                return why.clone();
            }
            format!("{name}: {why}")
        })
        .collect();
    (!reasons.is_empty()).then(|| format!("{REFUSED}{plural} {}", reasons.join(", ")))
}

/// Prefix of NACK messages that list all rejected resources.
pub(super) const REFUSED: &str = "Error adding/updating ";
