//! The control thread's state: what the server says goes through it into the store, and what is in force out of it to
//! the workers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::ProxyError;
use super::memory::{Kept, Memory};
use super::sockets::Sockets;
use crate::proxy::admin::Drain;
use crate::proxy::config::bootstrap::Fixed;
use crate::proxy::config::source::{ApiSource, SecretSource};
use crate::proxy::config::{At, Compiled, Refusal};
use crate::proxy::listener::{Direction, Listener};
use crate::proxy::stats::ServerStats;
use crate::proxy::store::{Name, Store};
use crate::xds::client::message::BadResponse;
use crate::xds::client::{Client, Interest, Node, Received, Refused, Response, Update};
use crate::xds::{ResourceType, Version};

/// Which server something comes from and goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// The one of everything.
    Aggregated,
    /// One that has secrets.
    Secrets(Arc<ApiSource>),
}

impl Feed {
    fn secret_source(&self) -> SecretSource {
        match self {
            Feed::Aggregated => SecretSource::Ads,
            Feed::Secrets(server) => SecretSource::Server(server.clone()),
        }
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Feed::Aggregated => f.write_str("to the control plane"),
            Feed::Secrets(server) => write!(f, "to the secrets of `{}`", server.cluster),
        }
    }
}

/// The state.
#[derive(Debug)]
pub(super) struct Control {
    /// What there is.
    pub(super) store: Store,
    sockets: Sockets,
    /// Of the server of everything.
    client: Option<Client>,
    /// Of servers that are asked for secrets alone.
    secrets: HashMap<Arc<ApiSource>, Client>,
    node: Node,
    memory: Option<Memory>,
    /// What is counted.
    pub(super) stats: Arc<ServerStats>,
    /// When each resource came.
    updated: BTreeMap<(ResourceType, Name), SystemTime>,
    started: SystemTime,
    /// When something was last put into force; none once it came to rest.
    stirred: Option<Instant>,
}

impl Control {
    /// A state without anything in it.
    pub(super) fn new(
        store: Store,
        sockets: Sockets,
        client: Option<Client>,
        node: Node,
        memory: Option<Memory>,
        stats: Arc<ServerStats>,
    ) -> Self {
        Self {
            store,
            sockets,
            client,
            secrets: HashMap::new(),
            node,
            memory,
            stats,
            updated: BTreeMap::new(),
            started: SystemTime::now(),
            stirred: None,
        }
    }

    /// Takes the bootstrap's own resources.
    ///
    /// # Errors
    /// When some are refused.
    pub(super) fn start(&mut self, fixed: Fixed, now: Instant) -> Result<(), ProxyError> {
        let added = (fixed.clusters.len(), fixed.listeners.len());
        let mut refused = Vec::new();
        for (index, (name, secret)) in fixed.secrets.iter().enumerate() {
            let put = self.store.put_secret(&SecretSource::Bootstrap, name, secret);
            refused.extend(put.at_index("static_resources.secrets", index).err());
        }
        for (index, cluster) in fixed.clusters.into_iter().enumerate() {
            let put = self.store.put_cluster(cluster, true, now);
            refused.extend(put.at_index("static_resources.clusters", index).err());
        }
        for (index, listener) in fixed.listeners.into_iter().enumerate() {
            let put = self.take_listener(None, listener, now);
            refused.extend(put.at_index("static_resources.listeners", index).err());
        }
        Refusal::none_of(refused)?;
        if self.client.is_none() {
            self.store.nothing_to_come();
        }
        self.stats.clusters.added.fetch_add(added.0 as u64, Relaxed);
        self.stats.listeners.added.fetch_add(added.1 as u64, Relaxed);
        self.store.refresh_files();
        self.settle(now);
        Ok(())
    }

    /// Takes what the server had said before the last end, until it says it again.
    pub(super) fn recall(&mut self, now: Instant) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        let recalled = memory.recall();
        if recalled.is_empty() {
            return;
        }
        tracing::info!(
            resources = recalled.len(),
            "starting from the configuration of the last run"
        );
        for (kind, one) in recalled {
            if let Err(why) = self.put(&Feed::Aggregated, kind, &one, now) {
                tracing::warn!(%kind, name = %one.name, why, "a resource of the last run is of no use");
            } else if let Some(client) = &mut self.client {
                client.remember(kind, one.name, one.version);
            }
        }
        self.store.nothing_to_come();
        self.settle(now);
    }

    /// The servers that are asked for secrets alone.
    pub(super) fn secret_servers(&self) -> impl Iterator<Item = &Arc<ApiSource>> {
        self.secrets.keys()
    }

    fn client(&mut self, feed: &Feed) -> Option<&mut Client> {
        match feed {
            Feed::Aggregated => self.client.as_mut(),
            Feed::Secrets(server) => self.secrets.get_mut(server),
        }
    }

    /// A stream has been opened: the first requests.
    pub(super) fn open(&mut self, feed: &Feed) -> Vec<Bytes> {
        if let Some(client) = self.client(feed) {
            client.open();
        }
        self.requests(feed)
    }

    /// What is to be said since the last call.
    pub(super) fn requests(&mut self, feed: &Feed) -> Vec<Bytes> {
        let requests = self.client(feed).map(Client::requests).unwrap_or_default();
        requests.iter().map(|request| request.encode()).collect()
    }

    /// Takes in a response and returns what is to be said.
    ///
    /// # Errors
    /// When it is of no use.
    pub(super) fn take(&mut self, feed: &Feed, response: Bytes, now: Instant) -> Result<Vec<Bytes>, BadResponse> {
        let Some(client) = self.client(feed) else {
            return Ok(Vec::new());
        };
        let update = client.receive(Response::decode(client.variant(), response)?);
        let refused = self.apply(feed, &update, now);
        self.count(&update, &refused);
        let mut requests = Vec::new();
        if let Some(client) = self.client(feed) {
            requests.push(client.answer(&update, &refused).encode());
        }
        self.settle(now);
        requests.extend(self.requests(feed));
        if let Some(memory) = &mut self.memory {
            memory.came(update.kind);
        }
        Ok(requests)
    }

    /// Whether nothing has been put into force for so long, for the first time since something was.
    pub(super) fn comes_to_rest(&mut self, after: Duration) -> bool {
        self.stirred.take_if(|at| at.elapsed() >= after).is_some()
    }

    /// Puts into force what is warm by now and asks for what follows from it.
    pub(super) fn settle(&mut self, now: Instant) {
        self.stirred = Some(now);
        let changes = self.store.settle(now);
        for listener in &changes.live {
            if let Err(error) = self.sockets.live(listener) {
                tracing::error!(%error, listener = %listener.name, "nobody can connect to a listener");
            }
        }
        self.store.sweep();
        let unready = |kind| self.store.unready(kind) as u64;
        self.stats
            .clusters
            .warming
            .store(unready(ResourceType::Cluster), Relaxed);
        self.stats
            .listeners
            .warming
            .store(unready(ResourceType::Listener), Relaxed);
        if let Some(client) = &mut self.client {
            for kind in ResourceType::ALL {
                let interest = self.store.interest(kind);
                if interest != Interest::None && *client.wanted(kind) != interest {
                    client.want(kind, interest);
                }
            }
        }
        let servers: HashSet<_> = self.store.secret_servers().cloned().collect();
        self.secrets.retain(|server, _| servers.contains(server));
        for server in servers {
            let interest = self.store.secret_interest(&SecretSource::Server(server.clone()));
            let new = || Client::new(server.variant, self.node.clone());
            let client = self.secrets.entry(server.clone()).or_insert_with(new);
            if *client.wanted(ResourceType::Secret) != interest {
                client.want(ResourceType::Secret, interest);
            }
        }
    }

    /// Nothing more is accepted, and every connection ends as soon as it can.
    pub(super) fn drain(&mut self) {
        self.sockets.close();
        self.store.drain();
    }

    /// The version of a resource that the server sent.
    pub(super) fn version(&self, kind: ResourceType, name: &Name) -> Option<&Version> {
        self.client.as_ref()?.held(kind).get(name)
    }

    /// When a resource came.
    pub(super) fn updated(&self, kind: ResourceType, name: &Name) -> SystemTime {
        let came = self.updated.get(&(kind, name.clone()));
        came.copied().unwrap_or(self.started)
    }

    /// Connections of listeners end as soon as they can; unless that is to be graceful, no more are accepted.
    pub(super) fn drain_listeners(&mut self, drain: Drain) {
        let those = |listener: &Listener| !drain.inbound_only || listener.direction == Direction::Inbound;
        let drained = self.store.drain_only(those);
        if drain.graceful {
            drained.for_each(drop);
        } else {
            drained.for_each(|name| self.sockets.gone(name));
        }
    }

    /// Counts what became of an update of clusters or listeners.
    fn count(&mut self, update: &Update, refused: &[Refused]) {
        let is_refused = |one: &Received| refused.iter().any(|refused| refused.name == one.name);
        let stats = match update.kind {
            ResourceType::Cluster => &self.stats.clusters,
            ResourceType::Listener => &self.stats.listeners,
            ResourceType::Route => {
                let taken = update.upserts.iter().filter(|one| !is_refused(one));
                taken.for_each(|one| self.store.routes_came(&one.name, update.version()));
                return;
            }
            ResourceType::Secret => {
                for one in &update.upserts {
                    self.stats.secret_came(&one.name, update.version(), !is_refused(one));
                }
                return;
            }
            ResourceType::Endpoints => return,
        };
        stats.update_attempt.fetch_add(1, Relaxed);
        let outcome = if refused.is_empty() {
            stats.last.now(update.version());
            &stats.update_success
        } else {
            &stats.update_rejected
        };
        outcome.fetch_add(1, Relaxed);
        stats.removed.fetch_add(update.removals.len() as u64, Relaxed);
    }

    fn apply(&mut self, feed: &Feed, update: &Update, now: Instant) -> Vec<Refused> {
        let kind = update.kind;
        for name in &update.removals {
            self.updated.remove(&(kind, name.clone()));
        }
        // Sockets of listeners that go are left to those that come.
        let mut gone = Vec::new();
        for name in &update.removals {
            match kind {
                ResourceType::Listener => gone.extend(self.store.remove_listener(name).then_some(name)),
                ResourceType::Cluster => self.store.remove_cluster(name),
                ResourceType::Endpoints | ResourceType::Secret | ResourceType::Route => {}
            }
        }
        let mut refused = Vec::new();
        for one in &update.upserts {
            if let Err(why) = self.put(feed, kind, one, now) {
                tracing::warn!(%kind, name = %one.name, why, "a resource is refused");
                let name = one.name.clone();
                refused.push(Refused { name, why });
            }
        }
        match kind {
            ResourceType::Cluster => self.store.clusters_answered(),
            ResourceType::Listener => {
                gone.into_iter().for_each(|name| self.sockets.gone(name));
                self.store.listeners_answered();
            }
            ResourceType::Endpoints => {
                update
                    .removals
                    .iter()
                    .for_each(|name| self.store.no_endpoints(name, now));
            }
            // As in Envoy: what is used stays, and what never came is waited for.
            ResourceType::Secret | ResourceType::Route => {}
        }
        refused
    }

    fn put(&mut self, feed: &Feed, kind: ResourceType, one: &Received, now: Instant) -> Result<(), String> {
        self.compile(feed, kind, one, now)?;
        let new = self
            .updated
            .insert((kind, one.name.clone()), SystemTime::now())
            .is_none();
        let stats = match kind {
            ResourceType::Cluster => &self.stats.clusters,
            ResourceType::Listener => &self.stats.listeners,
            ResourceType::Endpoints | ResourceType::Secret | ResourceType::Route => return Ok(()),
        };
        let counter = if new { &stats.added } else { &stats.modified };
        counter.fetch_add(1, Relaxed);
        Ok(())
    }

    fn compile(&mut self, feed: &Feed, kind: ResourceType, one: &Received, now: Instant) -> Result<(), String> {
        let bytes = one.body.clone();
        let text = |result: Compiled<()>| result.map_err(|refusal| refusal.to_string());
        match kind {
            ResourceType::Cluster => text(self.store.put_named_cluster(&one.name, bytes, now)),
            ResourceType::Endpoints => text(self.store.put_endpoints(&one.name, bytes, now)),
            ResourceType::Secret => text(self.store.put_secret(&feed.secret_source(), &one.name, &bytes)),
            ResourceType::Listener => text(self.take_listener(Some(&one.name), bytes, now)),
            ResourceType::Route => text(self.store.put_routes(&one.name, bytes)),
        }
    }

    fn take_listener(&mut self, name: Option<&str>, bytes: Bytes, now: Instant) -> Compiled<()> {
        let compiled = self.store.listener(name, &bytes)?;
        if let Some(listener) = compiled {
            self.sockets.prepare(&listener)?;
            self.store.put_listener(listener, bytes, name.is_none(), now);
        }
        Ok(())
    }

    /// Writes what there is to the file for the next start, if it has changed.
    pub(super) fn write_down(&mut self) {
        let (Some(memory), Some(client)) = (&mut self.memory, &self.client) else {
            return;
        };
        if memory.is_due() {
            memory.write(ResourceType::ALL.map(|kind| Kept {
                kind,
                messages: self.store.messages(kind),
                versions: client.held(kind),
            }));
        }
    }
}

/// Wakes whoever sends when something new is to be said, and whoever keeps the time when something came.
#[derive(Debug, Default)]
pub(super) struct News {
    to_say: watch::Sender<()>,
    came: Notify,
}

impl News {
    /// There is something to say.
    pub(super) fn tell(&self) {
        self.to_say.send_replace(());
    }

    /// Where it shows that there is.
    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.to_say.subscribe()
    }

    /// Something came from the server and was taken.
    pub(super) fn settled(&self) {
        self.came.notify_one();
    }

    /// Waits until something comes. Cancel safe.
    pub(super) async fn changed(&self) {
        self.came.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::xds::client::Variant;
    use crate::xds::transcode::to_wire;

    fn control(dir: &std::path::Path) -> Control {
        let memory = Memory::new(&dir.join("proxy.yaml"), None, "a");
        Control::new(
            Store::default(),
            Sockets::new(Vec::new()),
            Some(Client::new(Variant::Delta, Node::default())),
            Node::default(),
            Some(memory),
            Arc::new(ServerStats::new(Instant::now(), 1)),
        )
    }

    #[test]
    fn what_was_kept_is_held_against_the_rules_as_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let name = |name: &str| Name::from(name);
        let cluster = |name: &str, timeout: &str| {
            let json = json!({"name": name, "type": "STATIC", "connect_timeout": timeout});
            Bytes::from(to_wire("envoy.config.cluster.v3.Cluster", &json).unwrap())
        };
        let kept = [
            (name("bad"), cluster("bad", "-1s")),
            (name("good"), cluster("good", "1s")),
        ];
        let versions = kept.iter().map(|(name, _)| (name.clone(), Version::from_text("1")));
        Memory::new(&dir.path().join("proxy.yaml"), None, "a").write([Kept {
            kind: ResourceType::Cluster,
            messages: kept.iter().map(|(name, bytes)| (name, bytes)).collect(),
            versions: &versions.collect(),
        }]);
        assert!(fs::exists(dir.path().join("proxy.yaml.last")).unwrap());
        let mut control = control(dir.path());
        control.recall(Instant::now());
        let taken = control.store.messages(ResourceType::Cluster);
        assert_eq!(taken.iter().map(|(name, _)| &***name).collect::<Vec<_>>(), ["good"]);
        let held = control.client.unwrap();
        assert!(
            !held.held(ResourceType::Cluster).contains_key("bad"),
            "it would not be sent again"
        );
    }
}
