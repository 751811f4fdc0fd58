//! Upgrades (WebSocket and the like) and CONNECT.
//!
//! The bytes of a tunnel are the bodies of request and response, which end when the connections do.

use std::sync::atomic::Ordering::Relaxed;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{Method, StatusCode};

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::route::{Matched, RouteAction};
use crate::proxy::flags::Flags;

/// The name of CONNECT among upgrade types.
const CONNECT: &str = "connect";

/// Allowed and forbidden upgrade types (`upgrade_configs`). The connection manager's apply where a route does not
/// mention a type; types that nobody mentions are forbidden.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upgrades(Box<[(Box<str>, bool)]>);

impl Upgrades {
    /// For upgrade types, compared case-insensitively, and whether each is enabled.
    ///
    /// # Errors
    /// A type that is listed twice.
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

    /// Whether an upgrade type, in lower case, is enabled; `None`: it is not listed.
    fn of(&self, protocol: &str) -> Option<bool> {
        let mut rules = self.0.iter();
        rules.find(|(one, _)| **one == *protocol).map(|(_, allowed)| *allowed)
    }
}

/// Refuses upgrades that neither the route nor the connection manager enables.
///
/// # Errors
/// The local reply.
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

/// The upgrade type that a request asks for.
fn asked_for(exchange: &Exchange) -> Option<&str> {
    match exchange.request.method {
        Method::CONNECT => Some(CONNECT),
        _ => exchange.upgrade.as_deref(),
    }
}

/// Whether a request asks for an upgrade or tunnel.
pub(super) fn asks(exchange: &Exchange) -> bool {
    asked_for(exchange).is_some()
}

/// Whether a response of this status opens a tunnel.
pub(super) fn is_tunnel(exchange: &Exchange, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (exchange.request.method == Method::CONNECT && status.is_success())
}

/// Sets the headers of the response that tells the client about an open tunnel.
pub(super) fn opened(exchange: &Exchange, answer: &mut Parts) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        answer.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(Ok(protocol)) = exchange.upgrade.as_deref().map(HeaderValue::from_str) {
            answer.headers.insert(UPGRADE, protocol);
        }
    }
}

/// Whether a response to a WebSocket handshake is neither 101 nor an error, which Envoy takes as the sign of a host
/// without WebSocket.
pub(super) fn is_failed_handshake(exchange: &Exchange, status: StatusCode) -> bool {
    exchange.upgrade.as_deref() == Some("websocket") && status.as_u16() < 400
}

/// The local reply instead of such a response, with its headers.
pub(super) fn failed(answer: Parts) -> LocalReply {
    let details = "websocket_handshake_unsuccessful";
    let mut reply = LocalReply::new(answer.status, "", Flags::NONE, details).closing();
    *reply.headers = answer.headers;
    reply.headers.remove(CONTENT_LENGTH);
    reply
}
