//! The framing of a message body: what is still to be received of it.

use bytes::{Bytes, BytesMut};

use super::Refusal;
use super::chunks::Chunks;

/// What is still to be received of a message, after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing: the message is complete.
    Nothing,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Everything until the connection ends.
    UntilEnd,
}

impl Rest {
    /// At the start of a chunked body.
    pub(crate) const CHUNKED: Self = Self::Chunks(Chunks::START);

    /// At the start of a body of this length.
    pub(crate) fn length(length: u64) -> Self {
        match length {
            0 => Rest::Nothing,
            length => Rest::Length(length),
        }
    }

    /// Takes a piece of the body from the read buffer; `None`: none has been received, or the message is complete.
    /// Trailers may have `limit` bytes.
    ///
    /// # Errors
    /// If the body is malformed.
    pub(crate) fn take(&mut self, bytes: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, Refusal> {
        let piece = match self {
            Rest::Nothing => None,
            Rest::Length(left) => {
                let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *self = Rest::length(*left - len as u64);
                Some(bytes.split_to(len))
            }
            Rest::Chunks(chunks) => {
                let piece = chunks.take(bytes, limit)?;
                if *chunks == Chunks::Over {
                    *self = Rest::Nothing;
                }
                piece
            }
            Rest::UntilEnd => Some(bytes.split()),
        };
        Ok(piece.filter(|piece| !piece.is_empty()).map(BytesMut::freeze))
    }
}
