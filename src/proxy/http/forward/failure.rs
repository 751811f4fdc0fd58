//! Local replies to requests whose upstream stream failed.

use http::StatusCode;
use http::header::HeaderValue;

use crate::proxy::flags::Flags;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::local_reply::LocalReply;
use crate::proxy::upstream::connect::{FailureKind, SendError};

/// Response flags and reason of an upstream reset, in Envoy's words.
pub(super) fn reset_reason(kind: FailureKind) -> (Flags, &'static str) {
    match kind {
        FailureKind::Connect => (Flags::UPSTREAM_CONNECTION_FAILURE, "remote connection failure"),
        FailureKind::NoSocket => (Flags::UPSTREAM_CONNECTION_FAILURE, "local connection failure"),
        FailureKind::ConnectTimeout => (Flags::UPSTREAM_CONNECTION_FAILURE, "connection timeout"),
        FailureKind::Overflow => (Flags::UPSTREAM_OVERFLOW, "overflow"),
        FailureKind::Reset | FailureKind::PerTryTimeout => {
            (Flags::UPSTREAM_CONNECTION_TERMINATION, "connection termination")
        }
        FailureKind::RemoteReset => (Flags::UPSTREAM_REMOTE_RESET, "remote reset"),
        FailureKind::Refused => (Flags::UPSTREAM_REMOTE_RESET, "remote refused stream reset"),
        FailureKind::Protocol => (Flags::UPSTREAM_PROTOCOL_ERROR, "protocol error"),
    }
}

/// The local reply to an upstream reset.
pub(super) fn failed(error: &SendError, exchange: &Exchange) -> LocalReply {
    let (flags, details) = reset_reason(error.kind);
    let retried = if exchange.stream.attempts > 1 {
        "retried and the latest "
    } else {
        ""
    };
    let text = format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {details}");
    let why = error.transport().map(|reason| format!("|{reason}")).unwrap_or_default();
    let heard = exchange.interims.as_ref().and_then(Interims::heard);
    let when = if heard.is_some() { "after" } else { "before" };
    let mut reply = LocalReply::new(
        match error.kind {
            FailureKind::Protocol => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        text,
        flags,
        format!("upstream_reset_{when}_response_started{{{details}{why}}}").replace(' ', "_"),
    );
    if error.kind == FailureKind::Overflow {
        reply
            .headers
            .insert("x-envoy-overloaded", HeaderValue::from_static("true"));
    }
    reply
}
