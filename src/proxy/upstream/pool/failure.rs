//! What errors of connections mean.

use crate::proxy::http::body::incoming::PeerError;
use crate::proxy::http::http2::{Error, Reason};
use crate::proxy::upstream::connect::{FailureKind, SendError};

/// An error in our own terms.
pub(super) fn of(error: &PeerError) -> SendError {
    let kind = match error {
        PeerError::BrokeOff | PeerError::Left => FailureKind::Reset,
        PeerError::Malformed(_) => FailureKind::Protocol,
        PeerError::Http2(error) => of_http2(*error),
    };
    SendError::new(kind, error)
}

fn of_http2(error: Error) -> FailureKind {
    match error {
        // Streams above the last one that a GOAWAY names were not looked at.
        Error::Reset(Reason::REFUSED_STREAM) | Error::GoneAway(_) => FailureKind::Refused,
        // As in Envoy: the host has not understood us, and headers that are too large we have not.
        Error::Reset(Reason::PROTOCOL_ERROR) => FailureKind::Protocol,
        Error::Reset(_) | Error::Broken(Reason::INTERNAL_ERROR) => FailureKind::RemoteReset,
        Error::Broken(_) => FailureKind::Protocol,
        Error::Unwanted(_) | Error::GivenUp(_) | Error::Ended | Error::Io(_) => FailureKind::Reset,
    }
}
