//! Connections that go over to another protocol: WebSocket and CONNECT.
//!
//! What goes by on them are the bodies of request and response, which end when the connections do.

use std::sync::atomic::Ordering::Relaxed;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{Method, StatusCode};

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::route::{Matched, RouteAction};
use crate::proxy::flags::Flags;

/// The name that CONNECT has among protocols.
const CONNECT: &str = "connect";

/// Protocols that may be gone over to, or may not (`upgrade_configs`). Where a route says nothing of one, its connection
/// manager does; what nobody mentions is not allowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upgrades(Box<[(Box<str>, bool)]>);

impl Upgrades {
    /// Of protocols, whatever their case, and whether each is allowed.
    ///
    /// # Errors
    /// The protocol that is there twice.
    pub(crate) fn new<'a>(rules: impl Iterator<Item = (&'a str, bool)>) -> Result<Self, &'a str> {
        let mut all: Vec<(Box<str>, bool)> = Vec::new();
        for (protocol, allowed) in rules {
            let lower = protocol.to_ascii_lowercase();
            if all.iter().any(|(other, _)| **other == *lower) {
                return Err(protocol);
            }
            all.push((lower.into(), allowed));
        }
        Ok(Self(all.into()))
    }

    /// Whether a protocol, in lower case, is allowed, if anything is said of it.
    fn of(&self, protocol: &str) -> Option<bool> {
        let mut rules = self.0.iter();
        rules.find(|(one, _)| **one == *protocol).map(|(_, allowed)| *allowed)
    }
}

/// Refuses to go over to what neither the route nor the connection manager allows.
///
/// # Errors
/// What to answer.
pub(super) fn check(exchange: &Exchange, matched: &Matched) -> Result<(), LocalReply> {
    let Some(protocol) = asked_for(exchange) else {
        return Ok(());
    };
    let own = match &matched.route.action {
        RouteAction::Forward(forward) => forward.upgrades.of(protocol),
        RouteAction::Redirect(_) | RouteAction::Direct(_) => None,
    };
    let manager = &exchange.downstream.manager;
    if own.or_else(|| manager.upgrades.of(protocol)).unwrap_or(false) {
        return Ok(());
    }
    manager.stats.rq_ws_on_non_ws_route.fetch_add(1, Relaxed);
    Err(LocalReply::new(StatusCode::FORBIDDEN, "", Flags::NONE, "upgrade_failed").closing())
}

/// What a request wants to go over to, if it does.
fn asked_for(exchange: &Exchange) -> Option<&str> {
    match exchange.request.method {
        Method::CONNECT => Some(CONNECT),
        _ => exchange.upgrade.as_deref(),
    }
}

/// Whether a request asks for a tunnel.
pub(super) fn asks(exchange: &Exchange) -> bool {
    asked_for(exchange).is_some()
}

/// Whether an answer of this status opens a tunnel.
pub(super) fn is_tunnel(exchange: &Exchange, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (exchange.request.method == Method::CONNECT && status.is_success())
}

/// Tells the client of the tunnel that a host has opened.
pub(super) fn opened(exchange: &Exchange, answer: &mut Parts) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(Ok(protocol)) = exchange.upgrade.as_deref().map(HeaderValue::from_str) {
            answer.headers.insert(UPGRADE, protocol);
        }
    }
}

/// Whether an answer is neither WebSocket's nor an error: a host that knows nothing of WebSocket, as Envoy sees it.
pub(super) fn is_failed_handshake(exchange: &Exchange, status: StatusCode) -> bool {
    exchange.upgrade.as_deref() == Some("websocket") && status.as_u16() < 400
}

/// What a client gets of such an answer: its head.
pub(super) fn failed(answer: Parts) -> LocalReply {
    let details = "websocket_handshake_unsuccessful";
    let mut reply = LocalReply::new(answer.status, "", Flags::NONE, details).closing();
    *reply.headers = answer.headers;
    reply.headers.remove(CONTENT_LENGTH);
    reply
}
