//! The streams of a connection, by id.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use super::stream::Stream;

/// Free slots that are kept for new streams.
const KEPT: usize = 64;

/// Streams in slots: an index is valid as long as its stream is in the table.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Option<Stream>>,
    free: Vec<usize>,
    by_id: HashMap<u32, usize, Mixing>,
}

/// Mixes stream ids, which clients choose, with a secret.
#[derive(Clone, Debug)]
struct Mixing(u64);

impl Default for Mixing {
    fn default() -> Self {
        Self(fastrand::u64(..))
    }
}

impl BuildHasher for Mixing {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(self.0)
    }
}

struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio, the usual multiplier.
        let product = u128::from(self.0 ^ u64::from(number)) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Table {
    /// The slot of a stream.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Inserts a stream, whose id is not in the table.
    pub(super) fn insert(&mut self, stream: Stream) -> usize {
        let id = stream.id;
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(stream);
                place
            }
            None => {
                self.places.push(Some(stream));
                self.places.len() - 1
            }
        };
        self.by_id.insert(id, place);
        place
    }

    /// Removes a stream.
    pub(super) fn remove(&mut self, place: usize) -> Option<Stream> {
        let stream = self.places.get_mut(place)?.take()?;
        self.by_id.remove(&stream.id);
        self.free.push(place);
        if self.by_id.is_empty() && self.places.len() > KEPT {
            *self = Self::default();
        }
        Some(stream)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Stream> {
        self.places.get_mut(place)?.as_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All occupied slots.
    pub(super) fn places(&self) -> Vec<usize> {
        self.by_id.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_where_they_were_put() {
        let mut table = Table::default();
        let places: Vec<_> = (0..200)
            .map(|number| table.insert(Stream::new(2 * number + 1, 0, 0)))
            .collect();
        for (number, place) in places.iter().enumerate() {
            assert_eq!(table.find(2 * number as u32 + 1), Some(*place));
        }
        assert_eq!(table.remove(places[7]).unwrap().id, 15);
        assert!(table.find(15).is_none() && table.remove(places[7]).is_none());
        // A place is used again.
        assert_eq!(table.insert(Stream::new(401, 0, 0)), places[7]);
        table.places().into_iter().for_each(|place| drop(table.remove(place)));
        assert!(table.is_empty() && table.places.is_empty());
    }
}
