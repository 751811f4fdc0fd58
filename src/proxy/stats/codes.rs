//! Counters of HTTP statuses and their classes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counted statuses: 100 to 599.
const FIRST: u16 = 100;
const COUNT: usize = 500;

/// Counters by status, allocated with the first response.
#[derive(Debug, Default)]
pub(crate) struct Codes(OnceLock<Box<[AtomicU64]>>);

impl Codes {
    /// Counts a response.
    pub(crate) fn count(&self, status: u16) {
        let counters = self
            .0
            .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(COUNT).collect());
        if let Some(counter) = status.checked_sub(FIRST).and_then(|at| counters.get(usize::from(at))) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Resets the counters.
    pub(crate) fn reset(&self) {
        self.0
            .get()
            .into_iter()
            .flatten()
            .for_each(|counter| counter.store(0, Relaxed));
    }

    /// The counters that are not zero.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (u16, u64)> {
        let counters = self.0.get().into_iter().flatten();
        let counters = (FIRST..).zip(counters.map(|counter| counter.load(Relaxed)));
        counters.filter(|(_, count)| *count > 0)
    }
}

/// Counters by class, 1xx to 5xx.
#[derive(Debug, Default)]
pub(crate) struct Classes([AtomicU64; 5]);

impl Classes {
    /// Counts a response.
    pub(crate) fn count(&self, status: u16) {
        if let Some(class) = self.0.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
    }

    /// Resets the counters.
    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|class| class.store(0, Relaxed));
    }

    /// The counters.
    pub(crate) fn counted(&self) -> [u64; 5] {
        self.0.each_ref().map(|class| class.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_is_counted() {
        let codes = Codes::default();
        assert_eq!(codes.counted().count(), 0);
        [200, 503, 200, 99, 600].iter().for_each(|status| codes.count(*status));
        assert_eq!(codes.counted().collect::<Vec<_>>(), [(200, 2), (503, 1)]);
    }

    #[test]
    fn classes_are_those_of_http() {
        let classes = Classes::default();
        [0, 99, 100, 200, 299, 503, 600]
            .iter()
            .for_each(|status| classes.count(*status));
        assert_eq!(classes.counted(), [1, 2, 0, 0, 1]);
        classes.reset();
        assert_eq!(classes.counted(), [0; 5]);
    }
}
