//! Errors of streams and connections, and their codes (RFC 9113 section 7).

use std::fmt;
use std::io;

/// An error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(super) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const INTERNAL_ERROR: Self = Self(2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(crate) const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const CONNECT_ERROR: Self = Self(10);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// Names of the codes, indexed by value.
const NAMES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// Why a stream, or a connection with all of its streams, ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The peer reset the stream.
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// The peer violated the protocol: we reset the stream or closed the connection.
    #[error("the peer violated HTTP/2: {0}")]
    Broken(Reason),
    /// The peer sent what is legal but not accepted here, and we reset the stream; with its `%RESPONSE_CODE_DETAILS%`.
    #[error("the peer sent what is not accepted: {0}")]
    Unwanted(&'static str),
    /// We reset the stream for reasons of our own.
    #[error("the stream was reset locally: {0}")]
    GivenUp(Reason),
    /// The peer sent GOAWAY without having processed the stream.
    #[error("the peer is going away: {0}")]
    GoneAway(Reason),
    /// The connection was closed.
    #[error("the connection ended")]
    Ended,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error.kind())
    }
}
