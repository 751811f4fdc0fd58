//! The control thread's state: xDS responses go through it into the store, and what is warmed goes on to the workers.

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
use crate::xds::client::{Client, Node, Received, Refused, Response, Subscription, Update};
use crate::xds::{ResourceType, Version};

/// An xDS stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// The ADS stream.
    Aggregated,
    /// An SDS stream of its own.
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

/// The state of the control thread.
#[derive(Debug)]
pub(super) struct Control {
    /// The resources.
    pub(super) store: Store,
    sockets: Sockets,
    /// Of the ADS stream.
    client: Option<Client>,
    /// Of the SDS streams.
    secrets: HashMap<Arc<ApiSource>, Client>,
    node: Node,
    memory: Option<Memory>,
    /// Statistics.
    pub(super) stats: Arc<ServerStats>,
    /// When each resource was last updated.
    updated: BTreeMap<(ResourceType, Name), SystemTime>,
    started: SystemTime,
    /// When something last took effect; `None` once that was noticed by [`Control::comes_to_rest`].
    stirred: Option<Instant>,
}

impl Control {
    /// An empty state.
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

    /// Adds the static resources of the bootstrap.
    ///
    /// # Errors
    /// If any is refused.
    pub(super) fn start(&mut self, fixed: Fixed, now: Instant) -> Result<(), ProxyError> {
        let added = (fixed.clusters.len(), fixed.listeners.len());
        let mut refused = self.store.put_fixed(&fixed.secrets, fixed.clusters, now);
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

    /// Restores what the control plane had sent before the last stop, until it sends it again.
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
            "starting with the saved configuration of the last run"
        );
        for (kind, one) in recalled {
            if let Err(why) = self.put(&Feed::Aggregated, kind, &one, now) {
                tracing::warn!(%kind, name = %one.name, why, "ignoring an invalid resource of the saved configuration");
            } else if let Some(client) = &mut self.client {
                client.remember(kind, one.name, one.version);
            }
        }
        self.store.nothing_to_come();
        self.settle(now);
    }

    /// The sources of SDS streams.
    pub(super) fn secret_servers(&self) -> impl Iterator<Item = &Arc<ApiSource>> {
        self.secrets.keys()
    }

    fn client(&mut self, feed: &Feed) -> Option<&mut Client> {
        match feed {
            Feed::Aggregated => self.client.as_mut(),
            Feed::Secrets(server) => self.secrets.get_mut(server),
        }
    }

    /// The first requests on a new stream.
    pub(super) fn open(&mut self, feed: &Feed) -> Vec<Bytes> {
        if let Some(client) = self.client(feed) {
            client.open();
        }
        self.requests(feed)
    }

    /// The requests due since the last call.
    pub(super) fn requests(&mut self, feed: &Feed) -> Vec<Bytes> {
        let requests = self.client(feed).map(Client::requests).unwrap_or_default();
        requests.iter().map(|request| request.encode()).collect()
    }

    /// Processes a response; returns the requests to send (ACK or NACK, and what follows).
    ///
    /// # Errors
    /// If the response cannot be processed at all.
    pub(super) fn take(&mut self, feed: &Feed, response: Bytes, now: Instant) -> Result<Vec<Bytes>, BadResponse> {
        let Some(client) = self.client(feed) else {
            return Ok(Vec::new());
        };
        let response = match Response::decode(client.variant(), response) {
            Ok(response) => response,
            // As in Envoy, the stream goes on.
            Err(BadResponse::UnknownType(kind)) => {
                tracing::warn!(kind, "a response {feed} of a type that is not subscribed to is dropped");
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let update = client.receive(response);
        let refused = self.apply(feed, &update, now);
        self.count(&update, &refused);
        let mut requests = Vec::new();
        if let Some(client) = self.client(feed) {
            requests.push(client.answer(&update, &refused, now).encode());
        }
        self.settle(now);
        requests.extend(self.requests(feed));
        if let Some(memory) = &mut self.memory {
            memory.came(update.kind);
        }
        Ok(requests)
    }

    /// When [`Control::expire`] or [`Control::settle`] has something to do, if nothing comes before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let clients = self.client.iter().chain(self.secrets.values());
        clients.filter_map(Client::expires_at).chain(self.store.wake_at()).min()
    }

    /// Removes the resources whose TTL has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        let aggregated = self.client.iter_mut().map(|client| (Feed::Aggregated, client));
        let secrets = self.secrets.iter_mut();
        let secrets = secrets.map(|(server, client)| (Feed::Secrets(server.clone()), client));
        let expired = aggregated
            .chain(secrets)
            .map(|(feed, client)| (feed, client.expire(now)));
        for (feed, updates) in expired.collect::<Vec<_>>() {
            for update in updates {
                tracing::warn!(kind = %update.kind, names = ?update.removals, "resources are removed because their TTL has expired");
                self.apply(&feed, &update, now);
                self.count(&update, &[]);
                if let Some(memory) = &mut self.memory {
                    memory.came(update.kind);
                }
            }
        }
    }

    /// Whether nothing has taken effect for this long, once after each time that something has.
    pub(super) fn comes_to_rest(&mut self, after: Duration) -> bool {
        self.stirred.take_if(|at| at.elapsed() >= after).is_some()
    }

    /// Publishes what is warm by now, and subscribes to what it depends on.
    pub(super) fn settle(&mut self, now: Instant) {
        self.stirred = Some(now);
        let changes = self.store.settle(now);
        for listener in &changes.live {
            if let Err(error) = self.sockets.live(listener) {
                tracing::error!(%error, listener = %listener.name, "failed to bind a listener");
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
                if interest != Subscription::None && *client.wanted(kind) != interest {
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

    /// Stops accepting and drains all connections.
    pub(super) fn drain(&mut self) {
        self.sockets.close();
        self.store.drain();
    }

    /// The version of a resource, if it came by xDS.
    pub(super) fn version(&self, kind: ResourceType, name: &Name) -> Option<&Version> {
        self.client.as_ref()?.held(kind).get(name)
    }

    /// When a resource was last updated.
    pub(super) fn updated(&self, kind: ResourceType, name: &Name) -> SystemTime {
        let came = self.updated.get(&(kind, name.clone()));
        came.copied().unwrap_or(self.started)
    }

    /// Drains the listeners' connections; unless gracefully, stops accepting, too.
    pub(super) fn drain_listeners(&mut self, drain: Drain) {
        let those = |listener: &Listener| !drain.inbound_only || listener.direction == Direction::Inbound;
        let drained = self.store.drain_only(those);
        if drain.graceful {
            drained.for_each(drop);
        } else {
            drained.for_each(|name| self.sockets.gone(name));
        }
    }

    /// Counts an update of clusters or listeners.
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
        // New listeners may take over the sockets of removed ones.
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
                tracing::warn!(%kind, name = %one.name, why, "rejected a resource");
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
            // As in Envoy: secrets and routes in use stay, and missing ones are waited for.
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

    /// Saves the configuration for the next start, if it has changed.
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

/// Wakes the streams when there are requests to send, and the timekeeper when a response was processed.
#[derive(Debug, Default)]
pub(super) struct StreamWaker {
    to_say: watch::Sender<()>,
    came: Notify,
}

impl StreamWaker {
    /// There are requests to send.
    pub(super) fn tell(&self) {
        self.to_say.send_replace(());
    }

    /// A receiver that is told of requests to send.
    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.to_say.subscribe()
    }

    /// A response was processed.
    pub(super) fn settled(&self) {
        self.came.notify_one();
    }

    /// Waits until a response was processed. Cancel safe.
    pub(super) async fn changed(&self) {
        self.came.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prost::Message;
    use serde_json::json;

    use super::*;
    use crate::xds::client::Variant;
    use crate::xds::pb::discovery::DeltaDiscoveryResponse;
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
    fn a_response_of_an_unknown_type_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let response = DeltaDiscoveryResponse {
            type_url: "type.googleapis.com/istio.networking.nds.v1.NameTable".to_owned(),
            nonce: "1".to_owned(),
            ..Default::default()
        };
        let response = Bytes::from(response.encode_to_vec());
        let taken = control(dir.path()).take(&Feed::Aggregated, response, Instant::now());
        assert_eq!(taken.unwrap(), Vec::<Bytes>::new());
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
