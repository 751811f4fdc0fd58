//! Decoding header blocks.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};

use super::table::{Dynamic, STATIC};
use super::{DecodeError, Name, TABLE_SIZE, huffman, integer};
use crate::proxy::http::http1::is_token;

/// The decoder of one peer's header blocks.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Dynamic<Entry>,
    /// The maximum size to which the peer may set the table.
    limit: usize,
    /// Memory of values in the table.
    kept: Arena,
    /// Memory of other values.
    passing: Arena,
}

/// An entry of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: Name,
    /// Length of the name.
    len: usize,
    /// `None`: it is not a valid header value. Its name can be referred to all the same.
    value: Option<HeaderValue>,
}

/// A string literal in a block.
struct Text {
    at: Range<usize>,
    huffman: bool,
}

impl Decoder {
    /// A decoder whose peer may use a table of `limit` bytes: `TABLE_SIZE`, until it has acknowledged another setting.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            table: Dynamic::new(limit.min(TABLE_SIZE)),
            limit,
            kept: Arena::default(),
            passing: Arena::default(),
        }
    }

    /// The peer has acknowledged our `SETTINGS_HEADER_TABLE_SIZE`. If the table is larger than that, the next block has
    /// to shrink it.
    #[cfg(test)]
    pub(crate) fn set_max_table(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Decodes a block. `take` gets each field, and whether it is never indexed.
    ///
    /// # Errors
    /// If the block is malformed. The fields before the error have been taken.
    pub(crate) fn decode(
        &mut self,
        block: Bytes,
        mut take: impl FnMut(Name, HeaderValue, bool),
    ) -> Result<(), DecodeError> {
        let mut at = self.size_updates(&block)?;
        while let Some(&first) = block.get(at) {
            let (name, value) = match first.leading_zeros() {
                0 => self.indexed(integer::decode(&block, &mut at, 7)?)?,
                1 => self.literal_indexed(&block, &mut at)?,
                2 => return Err(DecodeError::LateSizeUpdate),
                _ => self.literal(&block, &mut at)?,
            };
            let (name, value) = match value {
                Some(value) => (name, value),
                None => (Name::Malformed, HeaderValue::from_static("")),
            };
            take(name, value, first & 0xf0 == 0x10);
        }
        Ok(())
    }

    /// Reads the table size updates at the start of a block; returns where they end.
    fn size_updates(&mut self, block: &[u8]) -> Result<usize, DecodeError> {
        let mut at = 0;
        while block.get(at).is_some_and(|first| first.leading_zeros() == 2) {
            let size = integer::decode(block, &mut at, 5)?;
            if size > self.limit {
                return Err(DecodeError::SizeUpdate(size));
            }
            self.table.resize(size);
        }
        if self.table.max() > self.limit {
            return Err(DecodeError::MissingSizeUpdate);
        }
        Ok(at)
    }

    fn indexed(&self, index: usize) -> Result<(Name, Option<HeaderValue>), DecodeError> {
        let at = index.checked_sub(1).ok_or(DecodeError::Index(index))?;
        if let Some(entry) = STATIC.get(at) {
            return Ok((entry.name.clone(), Some(entry.value.clone())));
        }
        let entry = self.entry(index)?;
        Ok((entry.name.clone(), entry.value.clone()))
    }

    fn entry(&self, index: usize) -> Result<&Entry, DecodeError> {
        let age = index.checked_sub(STATIC.len() + 1);
        age.and_then(|age| self.table.get(age)).ok_or(DecodeError::Index(index))
    }

    /// A literal that enters the table.
    fn literal_indexed(&mut self, block: &Bytes, at: &mut usize) -> Result<(Name, Option<HeaderValue>), DecodeError> {
        let (name, len) = self.name(block, at, 6)?;
        let text = text(block, at)?;
        let value = if !text.huffman && len + text.at.len() > self.table.max() {
            block.slice(text.at)
        } else {
            self.kept.value(block, &text)?
        };
        let len_in_table = len + value.len();
        let value = HeaderValue::from_maybe_shared(value).ok();
        let entry = Entry {
            name: name.clone(),
            len,
            value: value.clone(),
        };
        self.table.insert(entry, len_in_table);
        Ok((name, value))
    }

    /// A literal that does not.
    fn literal(&mut self, block: &Bytes, at: &mut usize) -> Result<(Name, Option<HeaderValue>), DecodeError> {
        let (name, _) = self.name(block, at, 4)?;
        let text = text(block, at)?;
        let value = if text.huffman {
            self.passing.value(block, &text)?
        } else {
            block.slice(text.at)
        };
        Ok((name, HeaderValue::from_maybe_shared(value).ok()))
    }

    /// The name of a literal: an index with a prefix of so many bits, or a string. Returns its length, too.
    fn name(&mut self, block: &Bytes, at: &mut usize, prefix: u32) -> Result<(Name, usize), DecodeError> {
        match integer::decode(block, at, prefix)? {
            0 => {
                let text = text(block, at)?;
                if text.huffman {
                    let decoded = self.passing.value(block, &text)?;
                    return Ok((name(&decoded), decoded.len()));
                }
                let plain = &block[text.at];
                Ok((name(plain), plain.len()))
            }
            index => {
                if let Some(entry) = STATIC.get(index - 1) {
                    return Ok((entry.name.clone(), entry.text.len()));
                }
                let entry = self.entry(index)?;
                Ok((entry.name.clone(), entry.len))
            }
        }
    }
}

/// Locates the string at `at` and moves past it.
fn text(block: &[u8], at: &mut usize) -> Result<Text, DecodeError> {
    let huffman = block.get(*at).is_some_and(|first| first & 0x80 != 0);
    let len = integer::decode(block, at, 7)?;
    let range = *at..*at + len;
    if range.end > block.len() {
        return Err(DecodeError::Truncated);
    }
    *at = range.end;
    Ok(Text { at: range, huffman })
}

fn name(text: &[u8]) -> Name {
    let legal = |text: &[u8]| !text.is_empty() && text.iter().all(|byte| is_token(*byte) && !byte.is_ascii_uppercase());
    match text {
        b":method" => Name::Method,
        b":scheme" => Name::Scheme,
        b":authority" => Name::Authority,
        b":path" => Name::Path,
        b":status" => Name::Status,
        b":protocol" => Name::Protocol,
        [b':', other @ ..] if legal(other) => Name::OtherPseudo,
        text if legal(text) => HeaderName::from_lowercase(text).map_or(Name::Malformed, Name::Regular),
        _ => Name::Malformed,
    }
}

/// Memory that values share, in chunks. A value keeps its whole chunk alive, so values in the table, which live long,
/// have chunks of their own.
#[derive(Debug, Default)]
struct Arena(BytesMut);

impl Arena {
    const CHUNK: usize = 2048;

    /// A decoded copy of a string.
    fn value(&mut self, block: &[u8], text: &Text) -> Result<Bytes, DecodeError> {
        let bytes = &block[text.at.clone()];
        if bytes.is_empty() {
            return Ok(Bytes::new());
        }
        let most = if text.huffman {
            huffman::longest(bytes.len())
        } else {
            bytes.len()
        };
        let mut own;
        let room = if most > Self::CHUNK / 2 {
            own = BytesMut::with_capacity(most);
            &mut own
        } else {
            &mut self.0
        };
        if room.capacity() < most {
            room.reserve(Self::CHUNK);
        }
        if text.huffman {
            huffman::decode(bytes, room)?;
        } else {
            room.extend_from_slice(bytes);
        }
        Ok(room.split().freeze())
    }
}
