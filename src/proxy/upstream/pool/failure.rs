//! Classifies errors of upstream connections.

use crate::proxy::http::body::incoming::PeerError;
use crate::proxy::http::http2::{Error, Reason};
use crate::proxy::upstream::connect::{FailureKind, SendError};

/// The failure that an error means.
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
        // A host does not process streams above the last one named by its GOAWAY.
        Error::Reset(Reason::REFUSED_STREAM) | Error::GoneAway(_) => FailureKind::Refused,
        // As in Envoy: either side has sent what the other does not accept.
        Error::Reset(Reason::PROTOCOL_ERROR) => FailureKind::Protocol,
        Error::Reset(_) | Error::Broken(Reason::INTERNAL_ERROR) => FailureKind::RemoteReset,
        Error::Broken(_) => FailureKind::Protocol,
        Error::Unwanted(_) | Error::GivenUp(_) | Error::Ended | Error::Io(_) => FailureKind::Reset,
    }
}
