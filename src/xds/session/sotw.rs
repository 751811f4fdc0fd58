//! The state-of-the-world variant of the protocol.
//!
//! Clusters and listeners are sent whole each time, so that what is missing is gone; of the types
//! that are asked for by name only what changed is sent. The last ACKed bytes stand in for a refused
//! resource, and for what is to be removed later.

use super::{Push, Refusal, Session};
use crate::ir::ResourceName;
use crate::xds::pb::discovery::DiscoveryRequest;
use crate::xds::resource::ResourceType;
use crate::xds::snapshot::ResourceSet;
use crate::xds::wire;

/// Takes in a request and returns what the client refused with it.
///
/// A request with another nonce than the last response's is stale and is left alone whole: the client
/// sends another when it has seen that response. A request without nonce is the first of its type.
pub fn receive(
    session: &mut Session,
    kind: ResourceType,
    request: DiscoveryRequest,
    last_nonce: Option<u64>,
) -> Vec<Refusal> {
    let nonce = request.response_nonce.parse::<u64>().ok();
    if nonce.is_some() && nonce != last_nonce {
        return Vec::new();
    }
    let refusals = match (nonce, request.error_detail) {
        (Some(nonce), Some(status)) => session.nack(kind, nonce, &status.message),
        (Some(nonce), None) => {
            session.ack(kind, nonce);
            Vec::new()
        }
        (None, _) => Vec::new(),
    };
    subscribe(session, kind, request.resource_names);
    refusals
}

/// The response that carries a push. To be called before the push is ACKed.
pub fn write(session: &Session, push: &Push, generation: u64) -> wire::Response {
    let (version, nonce) = (generation.to_string(), push.nonce.to_string());
    if !push.kind.is_wildcard() {
        return wire::sotw_response(push.kind, &version, &nonce, push.upserts.clone());
    }
    let whole = after(session.held(push.kind), push);
    wire::sotw_response(push.kind, &version, &nonce, whole.values().cloned().collect())
}

fn subscribe(session: &mut Session, kind: ResourceType, names: Vec<String>) {
    let everything = names.iter().any(|name| name == "*");
    if kind.is_wildcard() && (everything || (names.is_empty() && !session.started(kind))) {
        session.say_whole(kind);
        session.subscribe_all(kind, Vec::new());
        return;
    }
    if !names.is_empty() {
        session.unsubscribe_all(kind);
    }
    let asked: imbl::OrdSet<ResourceName> = names
        .into_iter()
        .filter(|name| name != "*")
        .map(ResourceName::from)
        .collect();
    let known = session.subscribed(kind);
    let gone: Vec<_> = known.iter().filter(|name| !asked.contains(*name)).cloned().collect();
    let new: Vec<_> = asked.iter().filter(|name| !known.contains(name)).cloned().collect();
    session.unsubscribe(kind, &gone);
    if !new.is_empty() || !session.started(kind) {
        session.subscribe(kind, new, Vec::new());
    }
}

/// What the client has once it has taken the push.
fn after(held: &ResourceSet, push: &Push) -> ResourceSet {
    let mut set = held.clone();
    for resource in &push.upserts {
        set.insert(resource.name.clone(), resource.clone());
    }
    for name in &push.removals {
        set.remove(name);
    }
    set
}
