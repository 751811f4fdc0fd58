//! Connections that go over to another protocol: WebSocket and CONNECT.
//!
//! What goes by on them are the bodies of request and response, which end when the connections do.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{Method, StatusCode};

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use crate::proxy::flags::Flags;

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
