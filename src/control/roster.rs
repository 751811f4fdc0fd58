//! Connected proxies: the target snapshot, the ACKed state and the rejected resources of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use super::fleet::reason;
use super::identity::Grant;
use crate::ir::{NodeView, Origins, ResourceName};
use crate::xds::node::NodeClaim;
use crate::xds::resource::{Resource, ResourceType};
use crate::xds::server::Progress;
use crate::xds::session::{Refused, RefusedVersion, SyncState};
use crate::xds::snapshot::Snapshot;

/// Identifies a stream; unique for the lifetime of the server.
pub type MemberId = u64;

/// All connected proxies, and what they and disconnected ones have rejected.
#[derive(Debug, Default)]
pub struct Roster {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: MemberId,
    members: BTreeMap<MemberId, Member>,
    /// Proxies that have not ACKed their whole target.
    lagging: BTreeSet<MemberId>,
    /// The last generation ACKed by all proxies.
    converged: Option<Convergence>,
    /// By node id, so that a rejection still counts when the proxy reconnects.
    refusals: BTreeMap<Arc<str>, BTreeMap<(ResourceType, ResourceName), RefusalRecord>>,
}

/// All connected proxies have ACKed every addition and change of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Convergence {
    /// The generation.
    pub generation: u64,
    /// Time of the last ACK, in microseconds since the Unix epoch.
    pub at: u64,
}

/// An admitted proxy.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Its node metadata.
    pub claim: NodeClaim,
    /// What its credential authorizes.
    pub grant: Grant,
    /// The inputs of its configuration.
    pub view: NodeView,
    /// When it connected.
    pub since: SystemTime,
}

#[derive(Debug)]
struct Member {
    admission: Admission,
    target: watch::Sender<Option<Arc<Snapshot>>>,
    /// The snapshot shared by all proxies with the same view.
    base: Option<Arc<Snapshot>>,
    /// Secrets of this proxy only.
    secrets: BTreeMap<ResourceName, Arc<Resource>>,
    states: [(ResourceType, SyncState); ResourceType::ALL.len()],
    acked: Option<u64>,
    expiry_told: bool,
}

/// A resource rejected by a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalRecord {
    /// The rejected version, and the one that stays in force.
    pub refused: RefusedVersion,
    /// The proxy's NACK message.
    pub message: String,
    /// The objects the resource was built from.
    pub origins: Origins,
}

/// A row of `topsail status`.
#[derive(Clone, Debug, Serialize)]
pub struct ProxyStatus {
    /// The node id.
    pub id: Arc<str>,
    /// `NAME.NAMESPACE`.
    pub workload: String,
    /// The SPIFFE ID granted by its credential.
    pub identity: String,
    /// Program and version (`user_agent` fields of the node).
    pub user_agent: Arc<str>,
    /// When it connected, in seconds since the Unix epoch.
    pub connected_since: u64,
    /// The target generation.
    pub generation: Option<u64>,
    /// The last generation of which every addition and change is ACKed.
    pub acked_generation: Option<u64>,
    /// Whether the join token it connected with has expired.
    pub token_expired: bool,
    /// Sync state by the short name of the type.
    pub types: BTreeMap<&'static str, SyncState>,
    /// Rejected resources.
    pub refusals: Vec<RefusalStatus>,
}

/// A rejected resource in [`ProxyStatus`].
#[derive(Clone, Debug, Serialize)]
pub struct RefusalStatus {
    /// `CDS`, `LDS`, ….
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Name of the resource.
    pub name: ResourceName,
    /// The proxy's NACK message.
    pub message: String,
    /// The objects the resource was built from.
    pub objects: Vec<String>,
}

impl Roster {
    /// Adds a proxy. It has no target until [`Roster::set_base`].
    pub fn enter(&self, admission: Admission) -> (MemberId, watch::Receiver<Option<Arc<Snapshot>>>, Refused) {
        let (target, receiver) = watch::channel(None);
        let mut inner = self.lock();
        inner.last_id += 1;
        let id = inner.last_id;
        let refusals = inner.refusals.get(&admission.claim.id).into_iter().flatten();
        let refused = refusals
            .map(|(name, record)| (name.clone(), record.refused.clone()))
            .collect();
        let states = ResourceType::ALL.map(|kind| (kind, SyncState::NotSent));
        inner.members.insert(
            id,
            Member {
                admission,
                target,
                base: None,
                secrets: BTreeMap::new(),
                states,
                acked: None,
                expiry_told: false,
            },
        );
        (id, receiver, refused)
    }

    /// Removes a proxy that disconnected.
    pub fn leave(&self, id: MemberId, now: SystemTime) {
        let mut inner = self.lock();
        let target = inner.members.remove(&id).and_then(|member| member.generation());
        inner.no_longer_lagging(id, target, now);
    }

    /// Drops the rejections of proxies that are not connected.
    pub fn forget_absent(&self) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let present: BTreeSet<&Arc<str>> = inner
            .members
            .values()
            .map(|member| &member.admission.claim.id)
            .collect();
        inner.refusals.retain(|node, _| present.contains(node));
    }

    /// The last generation ACKed by all proxies.
    pub fn converged(&self) -> Option<Convergence> {
        self.lock().converged
    }

    /// The views of all connected proxies.
    pub fn views(&self) -> Vec<(MemberId, NodeView)> {
        self.lock()
            .members
            .iter()
            .map(|(id, member)| (*id, member.admission.view.clone()))
            .collect()
    }

    /// The admission of a proxy.
    pub fn admission(&self, id: MemberId) -> Option<Admission> {
        self.lock().members.get(&id).map(|member| member.admission.clone())
    }

    /// All admissions.
    pub fn admissions(&self) -> Vec<(MemberId, Admission)> {
        self.lock()
            .members
            .iter()
            .map(|(id, member)| (*id, member.admission.clone()))
            .collect()
    }

    /// Replaces the view of a proxy after its labels or addresses changed.
    pub fn set_view(&self, id: MemberId, view: NodeView) {
        if let Some(member) = self.lock().members.get_mut(&id) {
            member.admission.view = view;
        }
    }

    /// Whether a proxy has a target.
    pub fn has_target(&self, id: MemberId) -> bool {
        let inner = self.lock();
        inner.members.get(&id).is_some_and(|member| member.base.is_some())
    }

    /// Sets the shared snapshot of a proxy.
    pub fn set_base(&self, id: MemberId, base: &Arc<Snapshot>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(member) = inner.members.get_mut(&id) {
            inner.lagging.insert(id);
            member.base = Some(base.clone());
            member.publish();
        }
    }

    /// Sets a secret of one proxy.
    pub fn set_secret(&self, id: MemberId, secret: Arc<Resource>) {
        if let Some(member) = self.lock().members.get_mut(&id) {
            member.secrets.insert(secret.name.clone(), secret);
            member.publish();
        }
    }

    /// The current version of a proxy's secret.
    pub fn secret(&self, id: MemberId, name: &str) -> Option<Arc<Resource>> {
        self.lock().members.get(&id)?.secrets.get(name).cloned()
    }

    /// Records the progress of a proxy; returns whether the set of resources it rejects changed.
    pub fn progress(&self, id: MemberId, progress: &Progress<'_>, now: SystemTime) -> bool {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(member) = inner.members.get_mut(&id) else {
            return false;
        };
        member.states = progress.states;
        let target = member.generation();
        if progress.up_to_date {
            member.acked = progress.generation;
        }
        let node = member.admission.claim.id.clone();
        if member.acked == target {
            inner.no_longer_lagging(id, target, now);
        }
        inner.note_refusals(&node, progress)
    }

    /// The nodes whose join token has expired since the last call.
    pub fn newly_expired(&self, now: SystemTime) -> Vec<Arc<str>> {
        let mut inner = self.lock();
        let expired = inner.members.values_mut().filter_map(|member| {
            let expired = member.admission.grant.token_expires.is_some_and(|at| at <= now);
            let news = expired && !std::mem::replace(&mut member.expiry_told, expired);
            news.then(|| member.admission.claim.id.clone())
        });
        expired.collect()
    }

    /// All rejections: node id, type, name and record.
    pub fn refusals(&self) -> Vec<(Arc<str>, ResourceType, ResourceName, RefusalRecord)> {
        let inner = self.lock();
        let all = inner.refusals.iter().flat_map(|(node, records)| {
            records
                .iter()
                .map(|((kind, name), record)| (node.clone(), *kind, name.clone(), record.clone()))
        });
        all.collect()
    }

    /// One row per proxy. Streams with the same node id count as one proxy, represented by its ADS
    /// stream.
    pub fn status(&self, now: SystemTime) -> Vec<ProxyStatus> {
        let inner = self.lock();
        let mut rows: BTreeMap<Arc<str>, ProxyStatus> = BTreeMap::new();
        for member in inner.members.values() {
            let row = member.status(inner.refusals.get(&member.admission.claim.id), now);
            match rows.get_mut(&row.id) {
                Some(known) => known
                    .types
                    .extend(row.types.into_iter().filter(|(_, state)| *state != SyncState::NotSent)),
                None => drop(rows.insert(row.id.clone(), row)),
            }
        }
        rows.into_values().collect()
    }

    /// The target of a proxy, found by node id or workload name.
    pub fn target(&self, proxy: &str) -> Option<Arc<Snapshot>> {
        let inner = self.lock();
        let named = |m: &&Member| &*m.admission.claim.id == proxy || m.admission.claim.workload.to_string() == proxy;
        inner.members.values().find(named)?.target.borrow().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn no_longer_lagging(&mut self, id: MemberId, generation: Option<u64>, now: SystemTime) {
        if self.lagging.remove(&id) && self.lagging.is_empty() {
            self.converged = generation.map(|generation| Convergence {
                generation,
                at: micros(now),
            });
        }
    }

    fn note_refusals(&mut self, node: &Arc<str>, progress: &Progress<'_>) -> bool {
        let known = self.refusals.get(node).map_or(0, BTreeMap::len);
        if progress.refusals.is_empty() && known == 0 {
            return false;
        }
        let records = self.refusals.entry(node.clone()).or_default();
        let started = |kind| {
            progress
                .states
                .iter()
                .any(|(k, state)| *k == kind && *state != SyncState::NotSent)
        };
        records.retain(|name, record| !started(name.0) || progress.refused.get(name) == Some(&record.refused));
        let changed = records.len() != known || !progress.refusals.is_empty();
        for refusal in progress.refusals {
            let resource = &refusal.resource;
            let name = (resource.kind, resource.name.clone());
            let sent = || RefusedVersion {
                version: resource.version.clone(),
                in_force: None,
            };
            let record = RefusalRecord {
                refused: progress.refused.get(&name).cloned().unwrap_or_else(sent),
                message: reason(&refusal.message),
                origins: resource.origins.clone(),
            };
            records.insert(name, record);
        }
        if records.is_empty() {
            self.refusals.remove(node);
        }
        changed
    }
}

fn micros(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros().try_into().unwrap_or(u64::MAX))
}

impl Member {
    /// The target generation.
    fn generation(&self) -> Option<u64> {
        self.target.borrow().as_ref().map(|target| target.generation)
    }

    fn publish(&self) {
        let Some(base) = &self.base else { return };
        let mut snapshot = Snapshot::clone(base);
        for (name, secret) in &self.secrets {
            snapshot
                .set_mut(ResourceType::Secret)
                .insert(name.clone(), secret.clone());
        }
        self.target.send_replace(Some(Arc::new(snapshot)));
    }

    fn status(
        &self,
        refusals: Option<&BTreeMap<(ResourceType, ResourceName), RefusalRecord>>,
        now: SystemTime,
    ) -> ProxyStatus {
        let refusal = |((kind, name), record): (&(ResourceType, ResourceName), &RefusalRecord)| RefusalStatus {
            kind: kind.as_str(),
            name: name.clone(),
            message: record.message.clone(),
            objects: record.origins.iter().map(ToString::to_string).collect(),
        };
        let since = self
            .admission
            .since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        ProxyStatus {
            id: self.admission.claim.id.clone(),
            workload: self.admission.claim.workload.to_string(),
            identity: self.admission.grant.identity.to_string(),
            user_agent: self.admission.claim.user_agent.clone(),
            connected_since: since.as_secs(),
            generation: self.target.borrow().as_ref().map(|target| target.generation),
            acked_generation: self.acked,
            token_expired: self.admission.grant.token_expires.is_some_and(|at| at <= now),
            types: self
                .states
                .iter()
                .map(|(kind, state)| (kind.as_str(), *state))
                .collect(),
            refusals: refusals.into_iter().flatten().map(refusal).collect(),
        }
    }
}
