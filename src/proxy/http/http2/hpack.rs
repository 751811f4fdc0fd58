//! The compression of headers (HPACK, RFC 7541).
//!
//! Both directions keep a table of the headers that came before, so whatever becomes of a message, its headers must go
//! through here. A value that is sent plain is a part of the bytes that were received, one from the table is shared with
//! it, and many that have to be decoded share one allocation.

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

/// `SETTINGS_HEADER_TABLE_SIZE` as long as nothing else is said, in bytes (RFC 9113 section 6.5.2).
pub(crate) const TABLE_SIZE: usize = 4096;

/// The name of a field.
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
    /// Another that begins with `:`.
    OtherPseudo,
    /// A header's.
    Regular(HeaderName),
    /// None: upper case or no token, or what came with it is no value. The message is malformed (RFC 9113 section 8.2.1),
    /// and the connection goes on.
    Malformed,
}

/// Whether a field is kept in the table, for others that are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexing {
    /// It is.
    Indexed,
    /// Its name is; the value will not come again.
    NameIndexed,
    /// It is not.
    NotIndexed,
    /// It is not, nor may it be by whoever passes it on: its value is a secret that is short enough to be guessed.
    NeverIndexed,
}

impl Indexing {
    /// How a header is sent. What changes with every message would only drive others out of the table; what
    /// authenticates is kept out of it (RFC 7541 section 7.1), as nghttp2 does it.
    pub(crate) fn of(name: &HeaderName, value: &HeaderValue) -> Self {
        /// Shorter ones can be guessed.
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

/// Why a header block is none. The tables of the two ends differ from there on, so the connection ends
/// (`COMPRESSION_ERROR`).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It ends within a field.
    #[error("a header block ends within a field")]
    Truncated,
    /// Section 5.1.
    #[error("an integer of a header block is too large")]
    Integer,
    /// Section 2.3.3.
    #[error("a header block refers to entry {0}, which is in no table")]
    Index(usize),
    /// Section 6.3: more than we have allowed.
    #[error("a header block makes the table {0} bytes large, which is more than may be")]
    SizeUpdate(usize),
    /// Section 4.2.
    #[error("a header block changes the size of the table after its first field")]
    LateSizeUpdate,
    /// Section 4.2: we have allowed less than before.
    #[error("a header block does not make the table as small as it has to be")]
    MissingSizeUpdate,
    /// Section 5.2.
    #[error("a Huffman code ends within a symbol, or what follows is no padding")]
    Padding,
    /// Section 5.2.
    #[error("a Huffman code has the end of a string in it")]
    Eos,
}
