//! Where in the table a field is, by its hash.

use std::hash::{Hash as _, Hasher};

use super::SentName;

/// Places for the hashes of fields; the table has 128 entries at most, and rarely more than 80.
const FIELDS: usize = 256;
/// Places for the hashes of names.
const NAMES: usize = 128;

/// Which fields came in last, by the hash of the field and of its name.
///
/// A hash has two places, and the older of those there goes for a new one, so nothing has to be taken out and a search
/// looks at two entries. What is not found though it is in the table is sent once more: that costs bytes, and is never
/// wrong, since whoever asks compares what is found.
#[derive(Debug)]
pub(super) struct Recent {
    /// How many came in, modulo 2^32: the newest has this number.
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

/// The hashes of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashes {
    pub(super) name: u32,
    /// With its value; 0 if that will not be asked for.
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

    /// That of a name alone.
    pub(super) fn name(name: SentName<'_>) -> Self {
        Self {
            name: Folded::of(name).folded(),
            field: 0,
        }
    }
}

impl Recent {
    /// Notes what is the newest in the table now.
    pub(super) fn insert(&mut self, hashes: Hashes) {
        self.inserted = self.inserted.wrapping_add(1);
        replace_older(&mut self.names[..], hashes.name, self.inserted);
        if hashes.field != 0 {
            replace_older(&mut self.fields[..], hashes.field, self.inserted);
        }
    }

    /// How many came in after each field that may have this hash.
    pub(super) fn fields(&self, hash: u32) -> impl Iterator<Item = usize> {
        self.ages(pair(hash, FIELDS).map(|at| self.fields[at]))
    }

    /// How many came in after each field whose name may have this hash.
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
    // The first bits of a product are those that every bit has a part in.
    let at = ((u64::from(hash) * places as u64) >> 32) as usize;
    [at, at ^ 1]
}

fn replace_older(places: &mut [u32], hash: u32, number: u32) {
    let [one, other] = pair(hash, places.len());
    let age = |at: usize| number.wrapping_sub(places[at]);
    let older = if age(one) >= age(other) { one } else { other };
    places[older] = number;
}

/// A hash that costs little: nobody gains by two fields having the same.
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
