//! HTTP/1.1 (RFC 9112), of clients and of hosts.
//!
//! Whatever two readers could understand in two ways is refused, so that nobody smuggles a message in another one. What a
//! client sends and is no request is answered as Envoy answers it, with a text and a line in the access log. Headers and
//! bodies share the bytes that were read.

mod chunks;
#[cfg(any(test, fuzzing))]
pub(crate) mod conversation;
pub(crate) mod encode;
mod lines;
pub(crate) mod receiving;
mod request;
pub(crate) mod response;
mod rest;
pub(crate) mod server;
pub(crate) mod wire;

use std::fmt;

use http::StatusCode;

use super::local_reply::LocalReply;
use crate::proxy::flags::Flags;
pub(crate) use lines::{Field, Looks, is_token, length};
pub(crate) use request::{FRAGMENT, METHODS, encoded, is_odd};
pub(crate) use rest::Rest;

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
    pub(super) const fn too_large(details: &'static str) -> Self {
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

    /// What is no base64 where gRPC-Web needs it. It breaks no protocol, as Envoy sees it.
    pub(super) const fn base64(details: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: "Bad gRPC-web request, invalid base64 data.",
            flags: Flags::NONE,
            details,
        }
    }

    /// What breaks the grammar.
    const CODEC: Self = Self::bad("http1.codec_error");

    /// The flags and the `%RESPONSE_CODE_DETAILS%` that tell it.
    pub(super) fn told(self) -> (Flags, &'static str) {
        (self.flags, self.details)
    }

    /// The last answer on its connection.
    pub(crate) fn reply(self) -> LocalReply {
        LocalReply::new(self.status, self.text, self.flags, self.details).closing()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.details)
    }
}
