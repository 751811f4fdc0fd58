//! What errors of connections mean.

use crate::proxy::http::body::incoming::PeerError;
use crate::proxy::upstream::connect::{FailureKind, SendError};

/// An error in our own terms.
pub(super) fn of(error: &PeerError) -> SendError {
    let kind = match error {
        PeerError::BrokeOff | PeerError::Left => FailureKind::Reset,
        PeerError::Malformed(_) => FailureKind::Protocol,
        PeerError::Http2(error) => of_http2(error),
    };
    SendError::new(kind, error)
}

fn of_http2(error: &h2::Error) -> FailureKind {
    let graceful = error.reason() == Some(h2::Reason::NO_ERROR);
    if error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote() && graceful) {
        // Streams above the last one that a GOAWAY names were not looked at.
        FailureKind::Refused
    } else if error.is_reset() && error.is_remote() {
        FailureKind::RemoteReset
    } else if error.is_library() {
        FailureKind::Protocol
    } else {
        FailureKind::Reset
    }
}
