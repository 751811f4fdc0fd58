//! HTTP/1 of clients, checked before hyper reads it.
//!
//! What passes is what both this and hyper's own parser take for a request, with the same ends: whoever wants to smuggle
//! a request has to deceive both. What does not pass is answered as Envoy answers it, with a text and a line in the
//! access log, which hyper by itself would do without.

mod chunks;
mod head;
mod reader;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use tokio::sync::Notify;

use super::local_reply::LocalReply;
use crate::proxy::flags::Flags;
pub(crate) use head::METHODS;
pub(super) use reader::{Checked, Limits};

/// The method of the request that stands in for one that is refused. No client can send it: [`head::METHODS`].
const REFUSED: &str = "-";

/// Why what a client sends is no request, and what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    text: &'static str,
    flags: Flags,
    details: &'static str,
}

impl Refusal {
    /// One for which the protocol is broken, with the status' own text.
    const fn broken(status: StatusCode, text: &'static str, details: &'static str) -> Self {
        Self {
            status,
            text,
            flags: Flags::DOWNSTREAM_PROTOCOL_ERROR,
            details,
        }
    }

    /// `400 Bad Request`.
    const fn bad(details: &'static str) -> Self {
        Self::broken(StatusCode::BAD_REQUEST, "Bad Request", details)
    }

    /// `431 Request Header Fields Too Large`.
    const fn too_large(details: &'static str) -> Self {
        Self::broken(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "Request Header Fields Too Large",
            details,
        )
    }

    /// `501 Not Implemented`.
    const fn not_implemented(details: &'static str) -> Self {
        Self::broken(StatusCode::NOT_IMPLEMENTED, "Not Implemented", details)
    }

    /// What breaks the grammar.
    const CODEC: Self = Self::bad("http1.codec_error");

    /// The last answer on its connection.
    pub(super) fn reply(self) -> LocalReply {
        LocalReply::new(self.status, self.text, self.flags, self.details).closing()
    }
}

/// What the bytes of a client's connection tell those who answer its requests.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    head: OnceLock<Refusal>,
    body: OnceLock<Refusal>,
    /// Whether some of the body of the last request has come.
    body_begun: AtomicBool,
    gone: Notify,
}

impl Wire {
    /// Why the request is none, if `method` is that of the one that stands in for it.
    pub(super) fn refused(&self, method: &Method) -> Option<Refusal> {
        is_stand_in(method).then(|| self.head.get().copied()).flatten()
    }

    /// What is wrong with a body that broke off, if it is not that the client went away.
    pub(super) fn broken_body(&self) -> Option<Refusal> {
        self.body.get().copied()
    }

    /// Whether some of a body has come, although nobody may have asked for it.
    pub(super) fn body_has_begun(&self) -> bool {
        self.body_begun.load(Ordering::Relaxed)
    }

    /// Waits until the client goes away in the middle of a body. Cancel safe.
    pub(super) async fn gone(&self) {
        self.gone.notified().await;
    }
}

/// Whether a request stands in for one that is refused.
pub(super) fn is_stand_in(method: &Method) -> bool {
    method.as_str() == REFUSED
}
