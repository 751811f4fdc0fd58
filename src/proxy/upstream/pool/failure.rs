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
        Error::Reset(Reason::REFUSED_STREAM) | Error::GoneAway(Reason::NO_ERROR) => FailureKind::Refused,
        Error::Reset(_) => FailureKind::RemoteReset,
        Error::Broken(_) => FailureKind::Protocol,
        Error::GivenUp(_) | Error::GoneAway(_) | Error::Ended | Error::Io(_) => FailureKind::Reset,
    }
}
