//! A hash index of the encoder's dynamic table.

use std::hash::{Hash as _, Hasher};

use super::SentName;

/// Slots for hashes of fields; the table has at most 128 entries, and rarely more than 80.
const FIELDS: usize = 256;
/// Slots for hashes of names.
const NAMES: usize = 128;

/// Which fields were inserted last, by the hash of the field and of its name.
///
/// Each hash has two slots, and a new one replaces the older of the two: nothing has to be removed, and a search looks
/// at two entries. An entry whose slot was taken over is not found and its field is sent again, which costs bytes but
/// is never wrong, since the caller compares what is found.
#[derive(Debug)]
pub(super) struct Recent {
    /// How many were inserted, modulo 2^32; the newest has this number.
    inserted: u32,
    fields: Box<[u32; FIELDS]>,
    names: Box<[u32; NAMES]>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            inserted: 0,
            fields: Box::new([0; FIELDS]),
            names: Box::new([0; NAMES]),
        }
    }
}

/// Hashes of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashes {
    pub(super) name: u32,
    /// Of name and value; 0 if that will not be looked up.
    pub(super) field: u32,
}

impl Hashes {
    /// Those of a field.
    pub(super) fn field(name: SentName<'_>, value: &[u8]) -> Self {
        let mut hash = Folded::of(name);
        let name = hash.folded();
        hash.write(value);
        Self {
            name,
            field: hash.folded(),
        }
    }

    /// That of a name only.
    pub(super) fn name(name: SentName<'_>) -> Self {
        Self {
            name: Folded::of(name).folded(),
            field: 0,
        }
    }
}

impl Recent {
    /// Records the newest entry.
    pub(super) fn insert(&mut self, hashes: Hashes) {
        self.inserted = self.inserted.wrapping_add(1);
        replace_older(&mut self.names[..], hashes.name, self.inserted);
        if hashes.field != 0 {
            replace_older(&mut self.fields[..], hashes.field, self.inserted);
        }
    }

    /// Ages (entries inserted since) of the entries that may have this field hash.
    pub(super) fn fields(&self, hash: u32) -> impl Iterator<Item = usize> {
        self.ages(pair(hash, FIELDS).map(|at| self.fields[at]))
    }

    /// Ages of the entries that may have this name hash.
    pub(super) fn names(&self, hash: u32) -> impl Iterator<Item = usize> {
        self.ages(pair(hash, NAMES).map(|at| self.names[at]))
    }

    fn ages(&self, numbers: [u32; 2]) -> impl Iterator<Item = usize> {
        let inserted = self.inserted;
        numbers
            .into_iter()
            .map(move |number| inserted.wrapping_sub(number) as usize)
    }
}

fn pair(hash: u32, places: usize) -> [usize; 2] {
    // Every bit of the hash affects the top bits of the product.
    let at = ((u64::from(hash) * places as u64) >> 32) as usize;
    [at, at ^ 1]
}

fn replace_older(places: &mut [u32], hash: u32, number: u32) {
    let [one, other] = pair(hash, places.len());
    let age = |at: usize| number.wrapping_sub(places[at]);
    let older = if age(one) >= age(other) { one } else { other };
    places[older] = number;
}

/// A cheap hash: a collision gains an attacker nothing.
struct Folded(u64);

impl Folded {
    fn of(name: SentName<'_>) -> Self {
        let mut hash = Self(0);
        match name {
            SentName::Static(at) => hash.write_usize(at),
            SentName::Protocol => hash.write_usize(0),
            SentName::Regular(name) => name.hash(&mut hash),
        }
        hash
    }

    fn folded(&self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_usize(&mut self, number: usize) {
        self.fold(number as u64);
    }
}
