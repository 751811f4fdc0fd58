//! The task of a stream: requests in, responses out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tonic::Status;

use super::grpc::{Requests, Responses};
use super::{Arrival, Credential, Fleet, Member, Progress, Scope};
use crate::ir::ResourceName;
use crate::tls::PeerInfo;
use crate::xds::node::NodeClaim;
use crate::xds::pb::core::Node;
use crate::xds::pb::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use crate::xds::resource::{ResourceType, Version};
use crate::xds::session::{Push, Refusal, Session, delta, sotw};
use crate::xds::wire;

impl Scope {
    fn serves(self, kind: ResourceType) -> bool {
        self == Scope::All || kind == ResourceType::Secret
    }
}

/// A protocol variant, by its request type.
pub(super) trait Protocol: Message + Default + Send + 'static {
    fn node(&mut self) -> Option<Node>;
    fn type_url(&self) -> &str;
    /// Names newly subscribed to, with the version the client has, which is only given in the first
    /// request of a type.
    fn wanted(&self, first: bool) -> Vec<(ResourceName, Option<Version>)>;
    fn receive(self, session: &mut Session, kind: ResourceType, last_nonce: Option<u64>) -> Vec<Refusal>;
    fn write(session: &Session, push: &Push, generation: u64) -> wire::Response;
}

impl Protocol for DeltaDiscoveryRequest {
    fn node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn wanted(&self, first: bool) -> Vec<(ResourceName, Option<Version>)> {
        let has = |name: &String| {
            self.initial_resource_versions
                .get(name)
                .filter(|_| first)
                .map(|v| Version::from_text(v.as_str()))
        };
        self.resource_names_subscribe
            .iter()
            .map(|name| (name.as_str().into(), has(name)))
            .collect()
    }

    fn receive(self, session: &mut Session, kind: ResourceType, _last_nonce: Option<u64>) -> Vec<Refusal> {
        delta::receive(session, kind, self)
    }

    fn write(_session: &Session, push: &Push, generation: u64) -> wire::Response {
        delta::write(push, generation)
    }
}

impl Protocol for DiscoveryRequest {
    fn node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn wanted(&self, _first: bool) -> Vec<(ResourceName, Option<Version>)> {
        self.resource_names
            .iter()
            .map(|name| (name.as_str().into(), None))
            .collect()
    }

    fn receive(self, session: &mut Session, kind: ResourceType, last_nonce: Option<u64>) -> Vec<Refusal> {
        sotw::receive(session, kind, self, last_nonce)
    }

    fn write(session: &Session, push: &Push, generation: u64) -> wire::Response {
        sotw::write(session, push, generation)
    }
}

/// Timeout for the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// Serves a stream until the client disconnects or the server shuts down.
pub(super) async fn run<P: Protocol, F: Fleet>(
    fleet: Arc<F>,
    scope: Scope,
    credential: Credential,
    peer: Option<PeerInfo>,
    mut requests: Requests<P>,
    responses: Responses,
) {
    if let Err(status) = fleet.admit(&credential, peer.as_ref()) {
        // Sending fails only if the client has disconnected.
        return drop(responses.send(Err(status)).await);
    }
    let first = match tokio::time::timeout(FIRST_REQUEST, requests.message()).await {
        Ok(Ok(Some(first))) => first,
        // Sending fails only if the client has disconnected.
        Ok(Err(status)) => return drop(responses.send(Err(status)).await),
        Ok(Ok(None)) | Err(_) => return,
    };
    match Stream::open(&*fleet, scope, credential, peer, responses.clone(), first) {
        Ok((stream, refusals)) => stream.serve(requests, refusals).await,
        // Sending fails only if the client has disconnected.
        Err(status) => drop(responses.send(Err(status)).await),
    }
}

/// Admits the client by its first request, which has the node.
fn join<P: Protocol, F: Fleet>(
    fleet: &F,
    scope: Scope,
    credential: Credential,
    peer: Option<PeerInfo>,
    mut first: P,
) -> Result<(Member, P), Status> {
    let node = first
        .node()
        .ok_or_else(|| Status::invalid_argument("the first request of a stream must have a node"))?;
    let claim = NodeClaim::read(&node).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let arrival = Arrival {
        claim,
        credential,
        peer,
        scope,
    };
    Ok((fleet.join(arrival)?, first))
}

/// The client has disconnected.
struct Gone;

struct Stream {
    scope: Scope,
    member: Member,
    session: Session,
    last_nonces: [Option<u64>; ResourceType::ALL.len()],
    responses: Responses,
}

impl Stream {
    /// Admits the client and processes its first request; also returns what it rejects. (Boxed to
    /// keep the task's future small: it would have space for every place the value is moved to.)
    fn open<P: Protocol, F: Fleet>(
        fleet: &F,
        scope: Scope,
        credential: Credential,
        peer: Option<PeerInfo>,
        responses: Responses,
        first: P,
    ) -> Result<(Box<Self>, Vec<Refusal>), Status> {
        let (member, first) = join(fleet, scope, credential, peer, first)?;
        let session = Session::new(fleet.patience(), member.refused.clone());
        let mut stream = Box::new(Stream {
            scope,
            member,
            session,
            last_nonces: Default::default(),
            responses,
        });
        stream.take_target();
        let refusals = stream.request(first);
        Ok((stream, refusals.unwrap_or_default()))
    }

    async fn serve<P: Protocol>(mut self: Box<Self>, mut requests: Requests<P>, mut refusals: Vec<Refusal>) {
        // Fails if the client has disconnected.
        while self.tell::<P>(&refusals).await.is_ok() {
            refusals = loop {
                match self.next(&mut requests).await {
                    Ok(Some(refusals)) => break refusals,
                    Ok(None) => {}
                    Err(Gone) => return,
                }
            };
        }
    }

    /// Waits for an event. Returns resources the client rejected, if any.
    async fn next<P: Protocol>(&mut self, requests: &mut Requests<P>) -> Result<Option<Vec<Refusal>>, Gone> {
        let wake = self.session.wake_at();
        let status = tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => return Ok(self.request(request)),
                Ok(None) => return Err(Gone),
                Err(status) => status,
            },
            changed = self.member.target.changed() => {
                changed.map_err(|_| Gone)?;
                self.take_target();
                return Ok(Some(Vec::new()));
            }
            () = until(wake) => return Ok(Some(Vec::new())),
            () = self.responses.closed() => return Err(Gone),
        };
        // Also fails if the connection is broken.
        let _ = self.responses.send(Err(status)).await;
        Err(Gone)
    }

    fn take_target(&mut self) {
        let target = self.member.target.borrow_and_update().clone();
        if let Some(target) = target {
            self.session.set_target(target);
        }
    }

    /// Processes a request and returns the resources it rejects; `None` if the request is
    /// irrelevant.
    fn request<P: Protocol>(&mut self, request: P) -> Option<Vec<Refusal>> {
        let kind = ResourceType::from_type_url(request.type_url()).filter(|kind| self.scope.serves(*kind));
        let Some(kind) = kind else {
            tracing::debug!(
                type_url = request.type_url(),
                "a client requested an unknown resource type"
            );
            return None;
        };
        if kind == ResourceType::Secret {
            self.want_secrets(request.wanted(!self.session.started(kind)));
        }
        Some(request.receive(&mut self.session, kind, self.last_nonces[kind as usize]))
    }

    /// Issues certificates that are requested, unless the client has a valid one.
    fn want_secrets(&mut self, wanted: Vec<(ResourceName, Option<Version>)>) {
        for (name, has) in wanted {
            self.member.observer.secret_wanted(&name, has.as_ref());
        }
        self.take_target();
    }

    /// Sends what is due and reports progress.
    async fn tell<P: Protocol>(&mut self, refusals: &[Refusal]) -> Result<(), Gone> {
        let generation = self.session.generation().unwrap_or_default();
        for push in self.session.poll(Instant::now()) {
            self.last_nonces[push.kind as usize] = Some(push.nonce);
            let response = P::write(&self.session, &push, generation);
            self.responses.send(Ok(Box::new(response))).await.map_err(|_| Gone)?;
        }
        self.member.observer.progress(Progress {
            states: ResourceType::ALL.map(|kind| (kind, self.session.state(kind))),
            generation: self.session.generation(),
            up_to_date: self.session.up_to_date(),
            refusals,
            refused: self.session.refused(),
        });
        Ok(())
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
