//! The delta (incremental) variant of the protocol.

use super::{Push, Refusal, Session};
use crate::ir::ResourceName;
use crate::xds::pb::discovery::DeltaDiscoveryRequest;
use crate::xds::resource::{ResourceType, Version};
use crate::xds::wire;

/// Processes a request and returns the resources it rejects.
///
/// A request may be an ACK or NACK (with `response_nonce`), a change of subscriptions, or both. The
/// first request of a type without names is a wildcard subscription (`*` is one at any time);
/// `initial_resource_versions` are only valid in the first.
pub fn receive(session: &mut Session, kind: ResourceType, request: DeltaDiscoveryRequest) -> Vec<Refusal> {
    let first = !session.started(kind);
    let names = |names: Vec<String>| {
        names
            .into_iter()
            .filter(|name| name != "*")
            .map(ResourceName::from)
            .collect::<Vec<_>>()
    };
    let everything = request.resource_names_subscribe.iter().any(|name| name == "*")
        || (first && request.resource_names_subscribe.is_empty() && kind.is_wildcard());
    let has = request.initial_resource_versions.into_iter().filter(|_| first);
    let has: Vec<_> = has
        .map(|(name, version)| (ResourceName::from(name), Version::from_text(version)))
        .collect();

    let refusals = match request.response_nonce.parse() {
        Ok(nonce) => answer(session, kind, nonce, request.error_detail.map(|status| status.message)),
        Err(_) => Vec::new(),
    };
    if request.resource_names_unsubscribe.iter().any(|name| name == "*") {
        session.unsubscribe_all(kind);
    }
    session.unsubscribe(kind, &names(request.resource_names_unsubscribe));
    let subscribe = names(request.resource_names_subscribe);
    if everything {
        session.subscribe_all(kind, has);
        if !subscribe.is_empty() {
            session.subscribe(kind, subscribe, Vec::new());
        }
    } else if !subscribe.is_empty() || first {
        session.subscribe(kind, subscribe, has);
    }
    refusals
}

/// The response for a push.
pub fn write(push: &Push, generation: u64) -> wire::Response {
    wire::delta_response(
        push.kind,
        &generation.to_string(),
        &push.nonce.to_string(),
        push.upserts.clone(),
        push.removals.iter().map(|name| &**name),
    )
}

fn answer(session: &mut Session, kind: ResourceType, nonce: u64, error: Option<String>) -> Vec<Refusal> {
    match error {
        Some(message) => session.nack(kind, nonce, &message),
        None => {
            session.ack(kind, nonce);
            Vec::new()
        }
    }
}
