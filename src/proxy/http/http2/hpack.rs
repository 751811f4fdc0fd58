//! Header compression (HPACK, RFC 7541).
//!
//! Both sides keep a table of headers sent before, so every header block must be decoded, whatever becomes of its
//! message. Values sent uncompressed are slices of the received bytes; values from the table are shared with it; those
//! that have to be decoded share allocations.

mod decode;
mod encode;
mod huffman;
mod integer;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

use http::header::{self, HeaderName, HeaderValue};
use thiserror::Error;

/// Default of `SETTINGS_HEADER_TABLE_SIZE`, in bytes (RFC 9113 section 6.5.2).
pub(crate) const TABLE_SIZE: usize = 4096;

/// A field name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`.
    Authority,
    /// `:path`.
    Path,
    /// `:status`.
    Status,
    /// `:protocol` (RFC 8441).
    Protocol,
    /// Another one that begins with `:`.
    OtherPseudo,
    /// A regular header.
    Regular(HeaderName),
    /// An invalid name (upper case, not a token), or a name with an invalid value. The message is malformed (RFC 9113
    /// section 8.2.1), and the connection goes on.
    Malformed,
}

/// Whether an encoded field enters the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexing {
    /// It does.
    Indexed,
    /// Only its name is taken from the table; the value is not expected again.
    NameIndexed,
    /// It does not.
    NotIndexed,
    /// It does not, and intermediaries must not index it either: the value is a secret, and short enough to be guessed.
    NeverIndexed,
}

impl Indexing {
    /// How a header is sent. Values that change with every message would only evict others; credentials are kept out of
    /// the table (RFC 7541 section 7.1), as nghttp2 does.
    pub(crate) fn of(name: &HeaderName, value: &HeaderValue) -> Self {
        /// Shorter cookies can be guessed.
        const GUESSED_COOKIE: usize = 20;

        if value.is_sensitive() {
            return Self::NeverIndexed;
        }
        match *name {
            header::AUTHORIZATION | header::PROXY_AUTHORIZATION => Self::NeverIndexed,
            header::COOKIE if value.len() < GUESSED_COOKIE => Self::NeverIndexed,
            header::AGE
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::ETAG
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::LOCATION
            | header::SET_COOKIE => Self::NotIndexed,
            _ => match name.as_str() {
                "x-request-id" | "traceparent" | "x-b3-traceid" | "x-b3-spanid" | "x-b3-parentspanid" => {
                    Self::NameIndexed
                }
                _ => Self::Indexed,
            },
        }
    }
}

/// Why a header block cannot be decoded. The tables of both sides differ from then on, so the connection ends with
/// `COMPRESSION_ERROR`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It ends within a field.
    #[error("a header block ends within a field")]
    Truncated,
    /// Section 5.1: an integer is too large.
    #[error("an integer of a header block is too large")]
    Integer,
    /// Section 2.3.3: there is no such index.
    #[error("a header block refers to entry {0}, which does not exist")]
    Index(usize),
    /// Section 6.3: a size update exceeds our setting.
    #[error("a header block sets a table size of {0} bytes, which exceeds the limit")]
    SizeUpdate(usize),
    /// Section 4.2: a size update after the first field.
    #[error("a header block changes the table size after its first field")]
    LateSizeUpdate,
    /// Section 4.2: our setting was lowered and no size update acknowledges it.
    #[error("a header block omits the required reduction of the table size")]
    MissingSizeUpdate,
    /// Section 5.2: invalid Huffman padding.
    #[error("a Huffman-coded string ends within a symbol or has invalid padding")]
    Padding,
    /// Section 5.2: a Huffman string contains EOS.
    #[error("a Huffman-coded string contains the EOS symbol")]
    Eos,
}
