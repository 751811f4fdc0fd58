//! What errors of connections mean.

use http::Request;

use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::PeerError;
use crate::proxy::upstream::connect::{FailureKind, SendError};

/// Why there is no answer, and the request if nothing of it was sent.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: SendError,
    pub(super) unsent: Option<Request<RequestBody>>,
}

impl From<h2::Error> for Unanswered {
    /// Something of the request may have been sent.
    fn from(error: h2::Error) -> Self {
        Self {
            error: of(&error.into()),
            unsent: None,
        }
    }
}

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
