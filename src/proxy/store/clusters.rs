//! Clusters: warming, live, removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Name, Store};
use crate::proxy::config::{self, At, Compiled, same_name};
use crate::proxy::slot::Slot;
use crate::proxy::tls::{Certificate, Verification};
use crate::proxy::upstream::cluster::{Cluster, Discovery};
use crate::proxy::upstream::host::{Endpoints, HostSet, Target};
use crate::xds::ResourceType;

/// A cluster with this name.
#[derive(Debug)]
pub(super) struct ClusterEntry {
    slot: Arc<Slot<Cluster>>,
    bytes: Bytes,
    live: Option<Arc<Cluster>>,
    warming: Option<WarmingCluster>,
    /// Whether it is static: the server can neither change nor remove it.
    fixed: bool,
}

/// A version that is not live yet.
#[derive(Debug)]
struct WarmingCluster {
    cluster: Arc<Cluster>,
    /// Whether its hosts are known.
    hosts: bool,
    /// How long they are waited for; `None`: for ever.
    timeout: Option<Duration>,
    /// Whether it waits for nothing else than the first health checks.
    checking: bool,
    /// Since when it has been warming.
    since: Instant,
}

impl WarmingCluster {
    /// The timeouts of what it waits for.
    fn waits(&self) -> impl Iterator<Item = Option<Duration>> {
        let hosts = (!self.hosts).then_some(self.timeout);
        let secrets = missing_secrets_of(&self.cluster).map(|(_, timeout)| timeout);
        hosts.into_iter().chain(secrets)
    }
}

impl ClusterEntry {
    pub(super) fn live(&self) -> Option<&Arc<Cluster>> {
        self.live.as_ref()
    }

    pub(super) fn slot(&self) -> &Arc<Slot<Cluster>> {
        &self.slot
    }

    /// Whether it is static.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// When the warming version becomes live without what it waits for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let warming = self.warming.as_ref().filter(|warming| !warming.checking)?;
        given_up_at(warming.since, warming.waits())
    }

    /// What the warming version waits for.
    pub(super) fn missing(&self) -> Vec<(ResourceType, &Name)> {
        let Some(warming) = &self.warming else {
            return Vec::new();
        };
        let config = &warming.cluster.config;
        let endpoints = match &config.discovery {
            Discovery::Eds(name) => name,
            Discovery::Static | Discovery::Dns(_) | Discovery::OriginalDst(..) => &config.name,
        };
        let endpoints = (!warming.hosts).then_some((ResourceType::Endpoints, endpoints));
        let secrets = missing_secrets_of(&warming.cluster).map(|(name, _)| (ResourceType::Secret, name));
        let mut missing: Vec<_> = endpoints.into_iter().chain(secrets).collect();
        missing.dedup();
        missing
    }

    /// The EDS service names of its versions.
    pub(super) fn endpoint_names(&self) -> impl Iterator<Item = &Name> {
        self.versions().filter_map(|cluster| match &cluster.config.discovery {
            Discovery::Eds(name) => Some(name),
            Discovery::Static | Discovery::Dns(_) | Discovery::OriginalDst(..) => None,
        })
    }

    fn versions(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let warming = self.warming.as_ref().map(|warming| &warming.cluster);
        self.live.iter().chain(warming)
    }

    /// Updates the endpoints of each version whose discovery `is` accepts.
    fn take_endpoints(&mut self, is: impl Fn(&Discovery) -> bool, endpoints: &Endpoints, now: Instant) {
        if let Some(live) = self.live.as_ref().filter(|live| is(&live.config.discovery)) {
            live.put_endpoints(endpoints, now);
        }
        let live = self.live.as_ref().map(|live| live.hosts.load_full());
        if let Some(warming) = self.warming.as_mut().filter(|one| is(&one.cluster.config.discovery)) {
            let own = warming.cluster.hosts.load_full();
            let before = live.as_deref().into_iter().chain([&*own]);
            let next = HostSet::build(&warming.cluster.config, endpoints, before, now);
            warming.cluster.hosts.store(Arc::new(next));
            warming.hosts = true;
        }
    }
}

impl Store {
    /// Updates a cluster. An identical message changes nothing.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn put_cluster(&mut self, bytes: Bytes, fixed: bool, now: Instant) -> Compiled<()> {
        self.put_as(None, bytes, fixed, now)
    }

    /// Updates a cluster that was sent under this name.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn put_named_cluster(&mut self, name: &str, bytes: Bytes, now: Instant) -> Compiled<()> {
        self.put_as(Some(name), bytes, false, now)
    }

    fn put_as(&mut self, name: Option<&str>, bytes: Bytes, fixed: bool, now: Instant) -> Compiled<()> {
        let message = config::cluster::read(&bytes)?;
        if let Some(name) = name {
            same_name(name, &message.name).at("name")?;
        }
        let before = self.clusters.get(&*message.name);
        if before.is_some_and(|before| before.fixed && !fixed) {
            return Err(config::Refusal::new("the bootstrap has a cluster of this name").within("name"));
        }
        if before.is_some_and(|before| before.bytes == bytes) {
            return Ok(());
        }
        let mut compiled = config::cluster::cluster(&message, &mut self.names)?;
        compiled.config.via_api = !fixed;
        let live = before.and_then(|before| before.live.clone());
        let (hosts, known) = match &compiled.config.discovery {
            Discovery::Eds(name) => match self.endpoints.get(name) {
                Some(kept) => (kept.as_ref().map(|kept| kept.value.clone()).unwrap_or_default(), true),
                None => (Arc::default(), false),
            },
            Discovery::Dns(dns) => {
                let named = |target: &Target| matches!(target, Target::Name(..));
                let mut all = dns.endpoints.localities.iter().flat_map(|group| &group.endpoints);
                let known = !all.any(|endpoint| named(&endpoint.target));
                (Arc::new(compiled.endpoints), known)
            }
            Discovery::Static | Discovery::OriginalDst(..) => (Arc::new(compiled.endpoints), true),
        };
        let before = live.as_ref().map(|live| live.hosts.load_full());
        let set = HostSet::build(&compiled.config, &hosts, before.as_deref(), now);
        let stats = live.as_ref().map(|live| live.stats.clone()).unwrap_or_default();
        let cluster = Arc::new(Cluster::new(compiled.config, compiled.breakers, stats, set));
        let name = cluster.config.name.clone();
        let warming = WarmingCluster {
            cluster,
            hosts: known,
            timeout: compiled.endpoints_timeout,
            checking: false,
            since: now,
        };
        let slot = self.names.clusters.of(&name);
        let entry = ClusterEntry {
            slot,
            bytes,
            live,
            warming: Some(warming),
            fixed,
        };
        self.clusters.insert(name.clone(), entry);
        self.warming.clusters.insert(name);
        Ok(())
    }

    /// Removes a cluster.
    pub(crate) fn remove_cluster(&mut self, name: &str) {
        let Some(entry) = self.clusters.get(name).filter(|entry| !entry.fixed) else {
            return;
        };
        for version in entry.versions() {
            version.hosts.load().retire_all();
        }
        entry.slot.set(None);
        self.clusters.remove(name);
        self.warming.clusters.remove(name);
        self.stale = true;
    }

    /// Updates the endpoints of a DNS cluster with the addresses of its names.
    pub(crate) fn put_resolved(&mut self, cluster: &str, endpoints: &Endpoints, now: Instant) {
        if let Some(entry) = self.clusters.get_mut(cluster) {
            entry.take_endpoints(|discovery| matches!(discovery, Discovery::Dns(_)), endpoints, now);
        }
    }

    /// Runs the periodic maintenance of live clusters.
    pub(crate) fn upkeep(&self, now: Instant) {
        let live = self.clusters.values().filter_map(ClusterEntry::live);
        live.for_each(|cluster| cluster.upkeep(now));
    }

    /// The clusters whose hosts are to be checked: those that are live, and those that wait for nothing else.
    pub(crate) fn checked_clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let clusters = self.clusters.values().flat_map(|entry| {
            let warming = entry.warming.as_ref().filter(|warming| warming.checking);
            entry.live.iter().chain(warming.map(|warming| &warming.cluster))
        });
        clusters.filter(|cluster| cluster.config.health_check.is_some())
    }

    /// The newest version of a cluster, live or warming.
    pub(crate) fn newest_cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        let entry = self.clusters.get(name)?;
        entry.versions().last()
    }

    /// All clusters, each in its newest version, live or warming.
    pub(crate) fn newest_clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values().filter_map(|entry| entry.versions().last())
    }

    /// Passes updated endpoints on to the clusters that use them.
    pub(super) fn endpoints_came(&mut self, name: &str, now: Instant) {
        let kept = self.endpoints.get(name).and_then(Option::as_ref);
        let endpoints = kept.map(|kept| kept.value.clone()).unwrap_or_default();
        let is = |discovery: &Discovery| matches!(discovery, Discovery::Eds(wanted) if **wanted == *name);
        // A cluster nearly always has the name of its endpoints.
        match self
            .clusters
            .get_mut(name)
            .filter(|entry| entry.versions().any(|one| is(&one.config.discovery)))
        {
            Some(entry) => entry.take_endpoints(is, &endpoints, now),
            None => {
                let entries = self.clusters.values_mut();
                entries.for_each(|entry| entry.take_endpoints(is, &endpoints, now));
            }
        }
    }

    /// Makes clusters live that are warm.
    pub(super) fn settle_clusters(&mut self, now: Instant) {
        let Self {
            clusters,
            warming,
            stale,
            ..
        } = self;
        warming.clusters.retain(|name| {
            let Some(entry) = clusters.get_mut(name) else {
                return false;
            };
            let warm = |one: &mut WarmingCluster| {
                one.checking |= are_given_up(one.since, one.waits(), now);
                one.checking && one.cluster.is_checked()
            };
            let Some(warm) = entry.warming.take_if(warm) else {
                return entry.warming.is_some();
            };
            if let Some(before) = entry.live.replace(warm.cluster.clone()) {
                before.hosts.load().retire(&warm.cluster.hosts.load());
            } else {
                *stale = true;
            }
            entry.slot.set(Some(warm.cluster));
            false
        });
    }
}

/// When the last of these timeouts has ended; never if one of them has no limit.
pub(super) fn given_up_at(since: Instant, waits: impl Iterator<Item = Option<Duration>>) -> Option<Instant> {
    let ends: Option<Vec<_>> = waits.map(|timeout| since.checked_add(timeout?)).collect();
    ends?.into_iter().max()
}

/// Whether all of these timeouts have ended.
pub(super) fn are_given_up(since: Instant, waits: impl Iterator<Item = Option<Duration>>, now: Instant) -> bool {
    let mut ends = waits.map(|timeout| since.checked_add(timeout?));
    ends.all(|end| end.is_some_and(|end| end <= now))
}

/// The secrets of a TLS context that have not been received, and their timeouts.
pub(super) fn missing_secrets<'a>(
    certificate: Option<(&'a Arc<Slot<Certificate>>, Option<Duration>)>,
    verification: &'a Verification,
) -> impl Iterator<Item = (&'a Name, Option<Duration>)> {
    let certificate = certificate.filter(|(slot, _)| slot.get().is_none());
    let certificate = certificate.map(|(slot, timeout)| (slot.name(), timeout));
    let trust = verification.trust.as_ref().filter(|slot| slot.get().is_none());
    let trust = trust.map(|slot| (slot.name(), verification.trust_timeout));
    certificate.into_iter().chain(trust)
}

/// Those of all contexts of a cluster.
fn missing_secrets_of(cluster: &Cluster) -> impl Iterator<Item = (&Name, Option<Duration>)> {
    let transports = cluster.config.transports.iter().map(|one| &one.transport);
    let contexts = transports
        .chain([&cluster.config.transport])
        .filter_map(|transport| transport.tls.as_ref());
    contexts.flat_map(|tls| {
        let certificate = tls.certificate.as_ref();
        missing_secrets(
            certificate.map(|slot| (slot, tls.certificate_timeout)),
            &tls.verification,
        )
    })
}
