//! The state-of-the-world variant of the protocol.
//!
//! Responses for clusters and listeners are complete, since absence means removal; for types
//! subscribed to by name they hold only changes. The last ACKed bytes stand in for a rejected
//! resource and for one whose removal is delayed.

use super::{Push, Refusal, Session};
use crate::ir::ResourceName;
use crate::xds::pb::discovery::DiscoveryRequest;
use crate::xds::resource::ResourceType;
use crate::xds::snapshot::ResourceSet;
use crate::xds::wire;

/// Processes a request and returns the resources it rejects.
///
/// A request whose nonce is not that of the last response is stale and ignored: the client sends
/// another one after that response. A request without nonce is the first of its type.
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

/// The response for a push. Must be called before the push is ACKed.
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

/// The client's resources after it accepts the push.
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
