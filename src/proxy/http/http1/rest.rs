//! What is still to come of a message.

use bytes::{Bytes, BytesMut};

use super::Refusal;
use super::chunks::Chunks;

/// What comes after the head of a message, or what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing: the message is complete.
    Nothing,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Whatever comes until the connection ends.
    UntilEnd,
}

impl Rest {
    /// A body in chunks that begins.
    pub(crate) const CHUNKED: Self = Self::Chunks(Chunks::START);

    /// A body of a length.
    pub(crate) fn length(length: u64) -> Self {
        match length {
            0 => Rest::Nothing,
            length => Rest::Length(length),
        }
    }

    /// Takes a piece of the body from what has come; none: more has to come, or the message is complete. Trailers may be
    /// as long as `limit`.
    ///
    /// # Errors
    /// When it is no body.
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
