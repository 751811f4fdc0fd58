//! One resource type of a session: subscriptions, ACKed resources and pending changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use prost::Message;

use super::{Push, Wanted};
use crate::ir::ResourceName;
use crate::xds::resource::{Resource, ResourceType, Version};
use crate::xds::snapshot::{ResourceSet, changed_names};

/// Maximum size of a push in bytes, unless a single resource is larger: gRPC implementations limit
/// messages to 4 MiB by default.
const PUSH_BYTES: usize = 2 << 20;

/// State of one type.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) kind: ResourceType,
    /// Whether the client has subscribed to anything.
    pub(super) started: bool,
    /// Whether there is a wildcard subscription.
    pub(super) all: bool,
    /// Names subscribed to.
    pub(super) names: Wanted,
    /// Resources ACKed by the client. If equal to the target it *is* the target's map, so that a
    /// thousand synced proxies share one.
    pub(super) held: ResourceSet,
    pub(super) in_flight: Option<Push>,
    /// Removed names, and from when the removal may be sent.
    pub(super) removals: BTreeMap<ResourceName, Option<Instant>>,
    /// Names that may differ between the target and the client.
    dirty: BTreeSet<ResourceName>,
    /// Names that must be answered even if the client has them.
    asked: BTreeSet<ResourceName>,
    /// After a NACK that does not name every rejected resource: groups to be sent one at a time.
    suspects: VecDeque<Vec<ResourceName>>,
    /// The wildcard subscription has not been answered yet.
    unanswered: bool,
    /// The first push must be complete: what is missing counts as removed.
    pub(super) whole: bool,
}

/// What to do with a pending resource.
pub(super) enum Delivery {
    /// Send it.
    Send,
    /// Send it later.
    Wait,
    /// The client rejected this version.
    Skip,
}

impl Delivery {
    pub(super) fn of(refused: bool, ready: bool) -> Self {
        match (refused, ready) {
            (true, _) => Delivery::Skip,
            (false, true) => Delivery::Send,
            (false, false) => Delivery::Wait,
        }
    }
}

impl Channel {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            started: false,
            all: false,
            names: Wanted::default(),
            held: ResourceSet::new(),
            in_flight: None,
            removals: BTreeMap::new(),
            dirty: BTreeSet::new(),
            asked: BTreeSet::new(),
            suspects: VecDeque::new(),
            unanswered: false,
            whole: false,
        }
    }

    pub(super) fn subscribe_all(&mut self, has: Vec<(ResourceName, Version)>, target: Option<&ResourceSet>) {
        if self.all {
            return;
        }
        self.unanswered = has.is_empty() && !self.started;
        (self.started, self.all) = (true, true);
        self.learn(has, target);
        if let Some(target) = target {
            self.touch_all(target);
        }
    }

    pub(super) fn subscribe(
        &mut self,
        names: Vec<ResourceName>,
        has: Vec<(ResourceName, Version)>,
        target: Option<&ResourceSet>,
    ) {
        self.started = true;
        let known: BTreeSet<ResourceName> = has.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let name = target
                .and_then(|target| target.get_key_value(&name))
                .map_or(name, |(shared, _)| shared.clone());
            if known.contains(&name) {
                self.dirty.insert(name.clone());
            } else {
                self.asked.insert(name.clone());
            }
            self.names.insert(name);
        }
        self.learn(has, target);
    }

    /// Ends the wildcard subscription; only named resources remain.
    pub(super) fn unsubscribe_all(&mut self) {
        if !std::mem::take(&mut self.all) {
            return;
        }
        let names = &self.names;
        self.held = self
            .held
            .iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, resource)| (name.clone(), resource.clone()))
            .collect();
        self.dirty.retain(|name| names.contains(name));
        self.asked.retain(|name| names.contains(name));
        self.removals.retain(|name, _| names.contains(name));
    }

    /// Removes names from the subscription. With a wildcard subscription it is unknown whether the
    /// client has dropped them, so they are sent once more.
    pub(super) fn unsubscribe(&mut self, names: &[ResourceName]) {
        for name in names {
            let named = self.names.remove(name);
            if self.all {
                self.asked.extend(named.then(|| name.clone()));
                continue;
            }
            self.dirty.remove(name);
            self.asked.remove(name);
            self.held.remove(name);
        }
    }

    /// The resource with this name changed in the target.
    pub(super) fn touch(&mut self, name: &ResourceName) {
        if self.all || self.names.contains(name) {
            self.dirty.insert(name.clone());
            self.removals.remove(name);
        }
    }

    pub(super) fn touch_all(&mut self, target: &ResourceSet) {
        if self.all {
            self.dirty.extend(changed_names(&self.held, target).cloned());
        }
        self.dirty.extend(self.names.iter().cloned());
    }

    /// Sends resources the client has once more, if subscribed to.
    pub(super) fn repeat(&mut self, names: &[ResourceName]) {
        self.asked
            .extend(names.iter().filter(|name| self.names.contains(name)).cloned());
    }

    /// Sends each of these once more, in separate pushes.
    pub(super) fn repeat_each(&mut self, resources: &[Arc<Resource>]) {
        for resource in resources {
            self.asked.insert(resource.name.clone());
            self.suspects.push_back(vec![resource.name.clone()]);
        }
    }

    /// The additions of the next push: pending and allowed, up to [`PUSH_BYTES`]. Those that the
    /// client already has or rejected are cleared.
    pub(super) fn take_batch(
        &mut self,
        target: &ResourceSet,
        verdict: impl Fn(&Resource, bool) -> Delivery,
    ) -> Vec<Arc<Resource>> {
        while let Some(group) = self.suspects.pop_front() {
            let batch = self.take_of(group, target, &verdict);
            if !batch.is_empty() {
                return batch;
            }
        }
        let due = self
            .asked
            .iter()
            .chain(self.dirty.difference(&self.asked))
            .cloned()
            .collect();
        self.take_of(due, target, &verdict)
    }

    fn take_of(
        &mut self,
        due: Vec<ResourceName>,
        target: &ResourceSet,
        verdict: &impl Fn(&Resource, bool) -> Delivery,
    ) -> Vec<Arc<Resource>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let first_and_whole = self.whole && self.held.is_empty();
        for name in due {
            let asked = self.asked.contains(&name);
            let Some(resource) = self.due(&name, target, asked) else {
                self.cross_off(&name);
                continue;
            };
            let resource = match verdict(&resource, asked) {
                Delivery::Wait if first_and_whole => return Vec::new(),
                Delivery::Wait => continue,
                Delivery::Skip if asked => self.held.get(&name).cloned().or_else(|| self.placeholder(&name)),
                Delivery::Skip => None,
                Delivery::Send if !first_and_whole && bytes > 0 && bytes + resource.body.len() > PUSH_BYTES => break,
                Delivery::Send => Some(resource),
            };
            if resource.is_none() {
                self.cross_off(&name);
            }
            bytes += resource.as_ref().map_or(0, |resource| resource.body.len());
            batch.extend(resource);
        }
        batch.iter().for_each(|resource| self.cross_off(&resource.name));
        batch
    }

    /// Whether every addition and change is sent and ACKed or NACKed.
    pub(super) fn additions_done(&self) -> bool {
        !self.started
            || (self.in_flight.is_none() && self.dirty.is_empty() && self.asked.is_empty() && self.suspects.is_empty())
    }

    /// Whether the client waits for a first response although there is nothing to send.
    pub(super) fn owes_an_answer(&self, earlier_done: bool) -> bool {
        self.unanswered && earlier_done && self.dirty.is_empty()
    }

    pub(super) fn sent(&mut self, push: Push) {
        self.unanswered = false;
        self.in_flight = Some(push);
    }

    /// Takes the push in flight with this nonce.
    pub(super) fn take_in_flight(&mut self, nonce: u64) -> Option<Push> {
        self.in_flight.take_if(|push| push.nonce == nonce)
    }

    /// Records resources as ACKed.
    pub(super) fn accept(
        &mut self,
        upserts: &[Arc<Resource>],
        removals: &[ResourceName],
        target: Option<&ResourceSet>,
    ) {
        for resource in upserts {
            if self.all || self.names.contains(&resource.name) {
                self.held.insert(resource.name.clone(), resource.clone());
            }
        }
        for name in removals {
            self.held.remove(name);
        }
        if let Some(target) = target {
            self.share(target);
        }
    }

    /// Bisects a push after a NACK without names.
    pub(super) fn split(&mut self, mut names: Vec<ResourceName>) {
        let second = names.split_off(names.len() / 2);
        self.asked.extend(names.iter().chain(&second).cloned());
        self.suspects.push_front(second);
        self.suspects.push_front(names);
    }

    /// Allows removals that are not scheduled yet to be sent from `at` on.
    pub(super) fn schedule_removals(&mut self, at: Instant) {
        for since in self.removals.values_mut() {
            since.get_or_insert(at);
        }
    }

    /// Takes the removals that are due, except `kept`.
    pub(super) fn take_removals(&mut self, now: Instant, kept: &[ResourceName]) -> Vec<ResourceName> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let due = self.removals.iter().filter(|(_, at)| at.is_some_and(|at| at <= now));
        let (kept, due): (Vec<_>, Vec<_>) = due.map(|(name, _)| name.clone()).partition(|name| kept.contains(name));
        self.removals.extend(kept.into_iter().map(|name| (name, None)));
        for name in &due {
            self.removals.remove(name);
        }
        due
    }

    /// Records the versions that a reconnecting client reports.
    fn learn(&mut self, has: Vec<(ResourceName, Version)>, target: Option<&ResourceSet>) {
        for (name, version) in has {
            if !self.all && !self.names.contains(&name) {
                continue;
            }
            let same = target
                .and_then(|target| target.get(&name))
                .filter(|resource| resource.version == version);
            let resource = same
                .cloned()
                .unwrap_or_else(|| Arc::new(self.unknown(name.clone(), version)));
            self.held.insert(resource.name.clone(), resource);
        }
    }

    /// The version of a resource in force at the client, and the clusters it refers to.
    pub(super) fn in_force(&self, name: &ResourceName) -> Option<(Version, Arc<[ResourceName]>)> {
        let held = self.held.get(name)?;
        Some((held.version.clone(), held.clusters.clone()))
    }

    /// Records the clusters a resource refers to, if the client has this version and its content is
    /// unknown.
    pub(super) fn recall(&mut self, name: &ResourceName, version: &Version, clusters: &Arc<[ResourceName]>) {
        let held = self.held.get(name);
        if held.is_some_and(|held| held.body.is_empty() && held.version == *version) {
            let known = Resource {
                clusters: clusters.clone(),
                ..self.unknown(name.clone(), version.clone())
            };
            self.held.insert(name.clone(), Arc::new(known));
        }
    }

    /// Placeholder for a resource with a known version and unknown content.
    fn unknown(&self, name: ResourceName, version: Version) -> Resource {
        Resource {
            version,
            ..Resource::new(self.kind, name, bytes::Bytes::new(), [].into())
        }
    }

    /// The resource to send for a name, if any. A cluster or listener that no longer exists is added
    /// to the removals.
    fn due(&mut self, name: &ResourceName, target: &ResourceSet, asked: bool) -> Option<Arc<Resource>> {
        let held = self.held.get(name);
        match (target.get(name), held) {
            (Some(resource), Some(held)) if held.version == resource.version && !asked => None,
            (Some(resource), _) => Some(resource.clone()),
            (None, Some(_)) if self.kind.is_wildcard() => {
                self.removals.entry(name.clone()).or_default();
                None
            }
            (None, Some(held)) if asked && !held.body.is_empty() => Some(held.clone()),
            (None, Some(_)) if !asked => None,
            (None, _) if self.all && !asked => None,
            (None, _) => self.placeholder(name),
        }
    }

    /// The response for a name that does not exist: an empty resource, or a removal for types that
    /// cannot be empty.
    fn placeholder(&mut self, name: &ResourceName) -> Option<Arc<Resource>> {
        use crate::xds::pb;
        let body = match self.kind {
            ResourceType::Route => pb::route::RouteConfiguration {
                name: name.to_string(),
                ..Default::default()
            }
            .encode_to_vec(),
            ResourceType::Endpoints => pb::endpoint::ClusterLoadAssignment {
                cluster_name: name.to_string(),
                ..Default::default()
            }
            .encode_to_vec(),
            ResourceType::Secret | ResourceType::Cluster | ResourceType::Listener => {
                self.removals.entry(name.clone()).or_default();
                return None;
            }
        };
        Some(Arc::new(Resource::new(self.kind, name.clone(), body, [].into())))
    }

    fn cross_off(&mut self, name: &ResourceName) {
        self.dirty.remove(name);
        self.asked.remove(name);
    }

    /// Replaces an equal map by the target's. The client is subscribed to everything it has.
    fn share(&mut self, target: &ResourceSet) {
        let settled = self.in_flight.is_none() && self.dirty.is_empty() && self.asked.is_empty();
        if settled && self.held.len() == target.len() && changed_names(&self.held, target).next().is_none() {
            self.held = target.clone();
            if !self.all {
                self.names.share(target);
            }
        }
    }
}
