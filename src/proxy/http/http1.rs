//! The HTTP/1.1 codec (RFC 9112), downstream and upstream.
//!
//! Messages that two parsers could read differently are refused, against request smuggling. Requests that cannot be
//! parsed are answered and logged as by Envoy. Header values and bodies share the bytes of the read buffer.

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
pub(crate) use lines::{Field, ScanSchedule, is_token, length};
pub(crate) use request::{FRAGMENT, METHODS, encoded, is_odd};
pub(crate) use rest::Rest;

/// Why a request could not be parsed, and the local reply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    text: &'static str,
    flags: Flags,
    details: &'static str,
}

impl Refusal {
    /// A protocol error with this status and text.
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

    /// Invalid base64 in a gRPC-Web request, which Envoy does not count as a protocol error.
    pub(super) const fn base64(details: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: "Bad gRPC-web request, invalid base64 data.",
            flags: Flags::NONE,
            details,
        }
    }

    /// A syntax error.
    const CODEC: Self = Self::bad("http1.codec_error");

    /// Response flags and `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn flags_and_details(self) -> (Flags, &'static str) {
        (self.flags, self.details)
    }

    /// The local reply; the connection closes after it.
    pub(crate) fn reply(self) -> LocalReply {
        LocalReply::new(self.status, self.text, self.flags, self.details).closing()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.details)
    }
}
