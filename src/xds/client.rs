//! The client's side of the xDS protocol, for the bundled data plane: what is asked for, what is had, and what is to
//! be said next.
//!
//! A [`Client`] is a pure state machine: it is told what is wanted and what the server said, and answers with
//! requests. [`stream`] moves them. Both variants of the protocol come out of it as the same [`Update`]s; the
//! differences are in [`message`].

pub mod joining;
pub mod keep;
pub mod message;
pub mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use message::{Received, Request, Response, Variant};

pub use super::pb::core::Node;
use super::resource::{ResourceType, Version};

/// A resource's name.
pub type Name = Arc<str>;

/// What is wanted of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    /// Nothing yet: the type is not mentioned.
    #[default]
    None,
    /// Whatever there is. Said by naming nothing, as Envoy does.
    All,
    /// These.
    Names(BTreeSet<Name>),
}

/// What a response changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The type.
    pub kind: ResourceType,
    /// New or changed resources that are wanted, in the order of the response.
    pub upserts: Vec<Received>,
    /// Wanted resources that the server does not have, or no longer.
    pub removals: Vec<Name>,
    /// What is wrong with the response whatever the resources are, by resource; of the whole if the name is empty.
    pub malformed: Vec<Refused>,
    version: String,
    nonce: String,
}

impl Update {
    /// The version of the whole.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// A resource that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: Name,
    /// Why, with the field.
    pub why: String,
}

/// The state.
#[derive(Debug)]
pub struct Client {
    variant: Variant,
    /// Taken when it is said for the first time on a stream.
    node: Node,
    node_said: bool,
    topics: [Topic; ResourceType::ALL.len()],
}

/// One type.
#[derive(Debug, Default)]
struct Topic {
    interest: Interest,
    /// The type has been mentioned on this stream.
    started: bool,
    /// The names the server knows to be wanted, on this stream.
    asked: BTreeSet<Name>,
    /// What was accepted.
    held: BTreeMap<Name, Version>,
    /// SotW: the version of the last response that was accepted, and the last nonce on this stream.
    version: String,
    nonce: String,
}

impl Client {
    /// A client without wishes.
    pub fn new(variant: Variant, node: Node) -> Self {
        Self {
            variant,
            node,
            node_said: false,
            topics: Default::default(),
        }
    }

    /// The variant spoken.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// A new stream begins: everything has to be said again.
    pub fn open(&mut self) {
        self.node_said = false;
        for topic in &mut self.topics {
            topic.started = false;
            topic.asked.clear();
            topic.nonce.clear();
        }
    }

    /// States what is wanted of a type from now on. What is no longer wanted is forgotten, so that it is sent again when
    /// it is wanted again.
    pub fn want(&mut self, kind: ResourceType, interest: Interest) {
        let topic = &mut self.topics[kind as usize];
        if let Interest::Names(names) = &interest {
            topic.held.retain(|name, _| names.contains(name));
        }
        topic.interest = interest;
    }

    /// What is wanted of a type.
    pub fn wanted(&self, kind: ResourceType) -> &Interest {
        &self.topics[kind as usize].interest
    }

    /// Takes note of something that is had already, from before this process began.
    pub fn remember(&mut self, kind: ResourceType, name: Name, version: Version) {
        self.topics[kind as usize].held.insert(name, version);
    }

    /// What was accepted of a type, with the versions.
    pub fn held(&self, kind: ResourceType) -> &BTreeMap<Name, Version> {
        &self.topics[kind as usize].held
    }

    /// The requests that the changes of interest since the last call take, in the order of types.
    pub fn requests(&mut self) -> Vec<Request> {
        let due = ResourceType::ALL.into_iter().filter_map(|kind| self.ask(kind));
        due.collect::<Vec<_>>()
            .into_iter()
            .map(|request| self.introduce(request))
            .collect()
    }

    /// Takes in a response.
    pub fn receive(&self, response: Response) -> Update {
        let topic = &self.topics[response.kind as usize];
        let mut update = Update {
            kind: response.kind,
            upserts: Vec::new(),
            removals: Vec::new(),
            malformed: response.malformed,
            version: response.version,
            nonce: response.nonce,
        };
        if let Some(twice) = duplicate(&response.resources, &response.removed) {
            let why = format!("duplicate name {twice} found in the union of added+removed resources");
            update.malformed.push(Refused { name: "".into(), why });
            return update;
        }
        update.removals = match self.variant {
            Variant::Delta => response.removed,
            Variant::Sotw if response.kind.is_wildcard() => {
                let present: BTreeSet<_> = response.resources.iter().map(|one| &one.name).collect();
                let malformed = |name: &Name| update.malformed.iter().any(|refused| refused.name == *name);
                let gone = topic.held.keys();
                gone.filter(|name| !present.contains(name) && !malformed(name))
                    .cloned()
                    .collect()
            }
            Variant::Sotw => Vec::new(),
        };
        update.removals.retain(|name| topic.wants(name));
        // Delta sends what is new, whatever version it has: istiod gives none to single resources.
        let is_new = |one: &Received| match self.variant {
            Variant::Delta => true,
            Variant::Sotw => topic.held.get(&one.name) != Some(&one.version),
        };
        let all = response.resources.into_iter();
        update.upserts = all.filter(|one| topic.wants(&one.name) && is_new(one)).collect();
        update
    }

    /// The answer to an update of which these resources were refused: an ACK if there are none, else a NACK that names
    /// each. Everything else counts as had.
    pub fn answer(&mut self, update: &Update, refused: &[Refused]) -> Request {
        let topic = &mut self.topics[update.kind as usize];
        let is_refused = |name: &Name| refused.iter().any(|one| one.name == *name);
        for one in update.upserts.iter().filter(|one| !is_refused(&one.name)) {
            topic.held.insert(one.name.clone(), one.version.clone());
        }
        for name in &update.removals {
            topic.held.remove(name);
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

    /// What is due to be said of a type's interest.
    fn ask(&mut self, kind: ResourceType) -> Option<Request> {
        let topic = &mut self.topics[kind as usize];
        let nothing = BTreeSet::new();
        let wanted = match &topic.interest {
            Interest::None => return None,
            Interest::All => &nothing,
            Interest::Names(names) if names.is_empty() && !topic.started => return None,
            Interest::Names(names) => names,
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

    /// Adds who we are to the first request of a stream.
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
            Interest::None => false,
            Interest::All => true,
            Interest::Names(names) => names.contains(name),
        }
    }

    /// SotW: everything that is wanted, which is also the answer to the last response.
    fn whole(&self, kind: ResourceType) -> Request {
        let names = match &self.interest {
            Interest::None | Interest::All => Vec::new(),
            Interest::Names(names) => names.iter().map(ToString::to_string).collect(),
        };
        Request::sotw(kind, names, &self.version, &self.nonce)
    }
}

/// A name that is there twice.
fn duplicate(resources: &[Received], removed: &[Name]) -> Option<Name> {
    let mut seen = BTreeSet::new();
    let mut names = resources.iter().map(|one| &one.name).chain(removed);
    names.find(|name| !seen.insert(*name)).cloned()
}

/// The reason of a NACK, in the form that Envoy uses for clusters and listeners: every refused resource by name.
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

/// How the reason of a NACK begins that names every refused resource.
pub(super) const REFUSED: &str = "Error adding/updating ";
