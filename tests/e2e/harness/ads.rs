//! A scripted ADS server, which may send valid or invalid resources at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::{self as wkt, Any};
use envoy_types::pb::google::rpc;
use prost::{Message as _, Name as _};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use topsail::xds::ResourceType;
use topsail::xds::transcode::to_wire;

/// All resources by type and name, with versions.
#[derive(Clone, Debug, Default)]
pub struct World {
    resources: BTreeMap<(ResourceType, String), Entry>,
    changes: u64,
    heartbeats: u64,
}

/// A resource.
#[derive(Clone, Debug)]
struct Entry {
    version: u64,
    body: Any,
    ttl: Option<Duration>,
}

impl Entry {
    /// The resource in a `Resource` wrapper; a heartbeat if it is without its content.
    fn wrapped(&self, name: &str, with_content: bool) -> Resource {
        Resource {
            name: name.to_owned(),
            version: self.version.to_string(),
            resource: with_content.then(|| self.body.clone()),
            ttl: self.ttl.map(|ttl| wkt::Duration {
                seconds: ttl.as_secs().try_into().unwrap(),
                nanos: ttl.subsec_nanos().try_into().unwrap(),
            }),
            ..Default::default()
        }
    }
}

impl World {
    /// Adds or replaces a resource.
    pub fn put(&mut self, kind: ResourceType, json: &Value) {
        self.add(kind, json, None);
    }

    /// Adds or replaces a resource with a TTL, which each [`World::heartbeat`] restarts.
    pub fn put_for(&mut self, ttl: Duration, kind: ResourceType, json: &Value) {
        self.add(kind, json, Some(ttl));
    }

    /// Sends heartbeats of all resources that have a TTL.
    pub fn heartbeat(&mut self) {
        self.heartbeats += 1;
    }

    fn add(&mut self, kind: ResourceType, json: &Value, ttl: Option<Duration>) {
        let named = if kind == ResourceType::Endpoints {
            "cluster_name"
        } else {
            "name"
        };
        let name = json[named].as_str().unwrap().to_owned();
        let message = kind.type_url().rsplit('/').next().unwrap();
        let body = Any {
            type_url: kind.type_url().to_owned(),
            value: to_wire(message, json).unwrap(),
        };
        self.changes += 1;
        let version = self.changes;
        self.resources.insert((kind, name), Entry { version, body, ttl });
    }

    /// Removes a resource.
    pub fn remove(&mut self, kind: ResourceType, name: &str) {
        self.resources.remove(&(kind, name.to_owned())).unwrap();
    }
}

/// The server. It keeps its port while stopped.
pub struct Ads {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    world: watch::Sender<World>,
    asked: Mutex<Vec<(ResourceType, String)>>,
    refusals: Mutex<Vec<(ResourceType, String)>>,
    taken: Mutex<BTreeMap<ResourceType, usize>>,
    opened: Mutex<Vec<MetadataMap>>,
}

impl Ads {
    /// Starts a server.
    pub async fn start(fill: impl FnOnce(&mut World)) -> Self {
        let mut world = World::default();
        fill(&mut world);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ads = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                world: watch::Sender::new(world),
                asked: Mutex::default(),
                refusals: Mutex::default(),
                taken: Mutex::default(),
                opened: Mutex::default(),
            }),
            runtime: None,
        };
        ads.serve(listener.into_std().unwrap());
        ads
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        // Dropping the runtime closes all connections at once, as if the process had exited.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = AggregatedDiscoveryServiceServer::new(Service(self.shared.clone()));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await
        });
        self.runtime = Some(runtime);
    }

    /// Stops the server and closes all streams.
    pub fn stop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Restarts the server at the same address.
    pub async fn start_again(&mut self) {
        let address = self.address;
        let bound = super::eventually("the server's port is free", async || {
            TcpListener::bind(address).await.map_err(|error| error.to_string())
        });
        self.serve(bound.await.into_std().unwrap());
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the resources and sends the differences, one response per type.
    pub fn change(&self, change: impl FnOnce(&mut World)) {
        self.shared.world.send_modify(change);
    }

    /// How often a resource was subscribed to by name, on all streams.
    pub fn asked(&self, kind: ResourceType, name: &str) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|(of, one)| *of == kind && one == name).count()
    }

    /// Metadata of all streams, in order.
    pub fn opened(&self) -> Vec<MetadataMap> {
        self.shared.opened.lock().unwrap().clone()
    }

    /// Messages of all NACKs, in order.
    pub fn refusals(&self, kind: ResourceType) -> Vec<String> {
        let refusals = self.shared.refusals.lock().unwrap();
        let of_kind = refusals.iter().filter(|(refused, _)| *refused == kind);
        of_kind.map(|(_, why)| why.clone()).collect()
    }

    /// Number of ACKed responses of a type.
    pub fn taken(&self, kind: ResourceType) -> usize {
        self.shared.taken.lock().unwrap().get(&kind).copied().unwrap_or(0)
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Subscription and state of a client for one type.
#[derive(Default)]
struct Topic {
    all: bool,
    names: BTreeSet<String>,
    has: BTreeMap<String, u64>,
    heartbeats: u64,
    nonce: u64,
}

impl Topic {
    fn wanted<'w>(&self, kind: ResourceType, world: &'w World) -> BTreeMap<&'w str, &'w Entry> {
        let all = world.resources.iter();
        all.filter(|((of, name), _)| *of == kind && (self.all || self.names.contains(name)))
            .map(|((_, name), entry)| (name.as_str(), entry))
            .collect()
    }

    /// Whether heartbeats are due.
    fn beats(&mut self, world: &World) -> bool {
        std::mem::replace(&mut self.heartbeats, world.heartbeats) != world.heartbeats
    }

    /// The differences from the client's state. Resources that do not exist are not mentioned.
    fn delta(&mut self, kind: ResourceType, world: &World) -> Option<DeltaDiscoveryResponse> {
        let (beats, wanted) = (self.beats(world), self.wanted(kind, world));
        let resources: Vec<_> = wanted
            .iter()
            .map(|(name, entry)| (name, entry, self.has.get(*name) != Some(&entry.version)))
            .filter(|(_, entry, new)| *new || beats && entry.ttl.is_some())
            .map(|(name, entry, new)| entry.wrapped(name, new))
            .collect();
        let gone = self.has.keys().filter(|name| !wanted.contains_key(name.as_str()));
        let removed_resources: Vec<_> = gone.cloned().collect();
        if resources.is_empty() && removed_resources.is_empty() {
            return None;
        }
        self.has = wanted
            .iter()
            .map(|(name, entry)| ((*name).to_owned(), entry.version))
            .collect();
        self.nonce += 1;
        Some(DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: self.nonce.to_string(),
            resources,
            removed_resources,
            ..Default::default()
        })
    }

    /// The complete state, if it differs from the client's.
    fn state(&mut self, kind: ResourceType, world: &World) -> Option<DiscoveryResponse> {
        let (beats, wanted) = (self.beats(world), self.wanted(kind, world));
        let has: BTreeMap<_, _> = wanted
            .iter()
            .map(|(name, entry)| ((*name).to_owned(), entry.version))
            .collect();
        if has == self.has && !beats {
            return None;
        }
        let resources = wanted.iter().map(|(name, entry)| match entry.ttl {
            None => entry.body.clone(),
            Some(_) => Any {
                type_url: Resource::type_url(),
                value: entry
                    .wrapped(name, self.has.get(*name) != Some(&entry.version))
                    .encode_to_vec(),
            },
        });
        let resources = resources.collect();
        self.has = has;
        self.nonce += 1;
        Some(DiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            version_info: self.nonce.to_string(),
            nonce: self.nonce.to_string(),
            resources,
            ..Default::default()
        })
    }
}

impl Shared {
    fn asked<'n>(&self, kind: ResourceType, names: impl IntoIterator<Item = &'n String>) {
        let names = names.into_iter().map(|name| (kind, name.clone()));
        self.asked.lock().unwrap().extend(names);
    }

    fn answered(&self, kind: ResourceType, nonce: &str, refused: Option<rpc::Status>) {
        match refused {
            Some(status) => self.refusals.lock().unwrap().push((kind, status.message)),
            None if nonce.is_empty() => {}
            None => *self.taken.lock().unwrap().entry(kind).or_default() += 1,
        }
    }
}

type Topics = BTreeMap<ResourceType, Topic>;

/// A request of either protocol variant, which updates the subscription.
trait Heard: Send + 'static {
    fn hear(self, shared: &Shared, topics: &mut Topics);
}

impl Heard for DeltaDiscoveryRequest {
    fn hear(self, shared: &Shared, topics: &mut Topics) {
        let kind = ResourceType::from_type_url(&self.type_url).unwrap();
        shared.answered(kind, &self.response_nonce, self.error_detail);
        let first = !topics.contains_key(&kind);
        let topic = topics.entry(kind).or_default();
        topic.all |= first && self.resource_names_subscribe.is_empty() && kind.is_wildcard();
        topic.all |= self.resource_names_subscribe.iter().any(|name| name == "*");
        shared.asked(kind, &self.resource_names_subscribe);
        topic.names.extend(self.resource_names_subscribe);
        for name in self.resource_names_unsubscribe {
            topic.names.remove(&name);
            topic.has.remove(&name);
        }
        let had = self.initial_resource_versions.into_iter();
        topic
            .has
            .extend(had.map(|(name, version)| (name, version.parse().unwrap())));
    }
}

impl Heard for DiscoveryRequest {
    fn hear(self, shared: &Shared, topics: &mut Topics) {
        let kind = ResourceType::from_type_url(&self.type_url).unwrap();
        shared.answered(kind, &self.response_nonce, self.error_detail);
        let topic = topics.entry(kind).or_default();
        topic.all = self.resource_names.is_empty() && kind.is_wildcard();
        shared.asked(
            kind,
            self.resource_names.iter().filter(|name| !topic.names.contains(*name)),
        );
        topic.names = self.resource_names.into_iter().collect();
    }
}

/// Serves a stream: after each request and each change sends what is due, in order of types.
fn stream<P: Heard, R: Send + 'static>(
    shared: Arc<Shared>,
    mut requests: Streaming<P>,
    due: fn(&mut Topic, ResourceType, &World) -> Option<R>,
) -> Response<Answers<R>> {
    let (send, answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let (mut topics, mut changes) = (Topics::new(), shared.world.subscribe());
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => request.hear(&shared, &mut topics),
                    Ok(None) | Err(_) => return,
                },
                changed = changes.changed() => changed.unwrap(),
            }
            let world = changes.borrow_and_update().clone();
            for (kind, topic) in &mut topics {
                if let Some(response) = due(topic, *kind, &world) {
                    // Fails if the client has disconnected.
                    let _ = send.send(Ok(response)).await;
                }
            }
        }
    });
    Response::new(Box::pin(ReceiverStream::new(answers)))
}

type Answers<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.0.opened.lock().unwrap().push(request.metadata().clone());
        Ok(stream(self.0.clone(), request.into_inner(), Topic::state))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.0.opened.lock().unwrap().push(request.metadata().clone());
        Ok(stream(self.0.clone(), request.into_inner(), Topic::delta))
    }
}
