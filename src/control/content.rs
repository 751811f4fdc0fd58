//! Content hash of a generation: equal on all servers that hold the same objects.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::mesh::directory::{Kept, KeptChanges, Why};

/// An incremental digest: the sum of the digests of the objects in force. It is independent of
/// order, and updating it costs no more than the edit.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    sum: u128,
    objects: usize,
}

impl Content {
    /// Applies an edit.
    pub(super) fn take(&mut self, changes: &KeptChanges) {
        for kept in in_force(&changes.gone) {
            self.sum = self.sum.wrapping_sub(digest(kept));
            self.objects = self.objects.saturating_sub(1);
        }
        for kept in in_force(&changes.new) {
            self.sum = self.sum.wrapping_add(digest(kept));
            self.objects += 1;
        }
    }

    /// The digest in hexadecimal.
    pub(super) fn hash(&self) -> String {
        format!("{:032x}", self.sum)
    }

    /// Number of objects in force.
    pub(super) fn objects(&self) -> usize {
        self.objects
    }
}

fn in_force(kept: &[Kept]) -> impl Iterator<Item = &Kept> {
    kept.iter().filter(|kept| kept.why == Why::InForce)
}

/// Digest of an object's meaning, independent of its formatting.
fn digest(kept: &Kept) -> u128 {
    let object = &kept.object;
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(
        text,
        "{:?} {:?} {:?} {:?}",
        object.id, object.labels, object.annotations, object.spec
    );
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}
