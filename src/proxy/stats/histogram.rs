//! Histograms of times, in whole milliseconds as Envoy records them.
//!
//! The buckets are those of Envoy's histograms, with two significant decimal digits; recording is one relaxed add.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Values below this have a bucket each.
const EXACT: u64 = 100;
/// Buckets of each power of ten above that: 10 to 99.
const PER_DECADE: usize = 90;
/// Powers of ten above [`EXACT`]: up to 9,999,999 ms, almost three hours. Longer times count as that.
const DECADES: usize = 5;
const BUCKETS: usize = EXACT as usize + DECADES * PER_DECADE;

/// Bucket bounds of Envoy's Prometheus output, in milliseconds.
pub(crate) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles that Envoy prints, in percent.
pub(crate) const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// A histogram, allocated with the first value.
#[derive(Debug, Default)]
pub(crate) struct Histogram(OnceLock<Box<[AtomicU64]>>);

/// The values of a histogram at one moment: counts by bucket, without empty ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution(Vec<(usize, u64)>);

impl Histogram {
    /// Records a time.
    pub(crate) fn record(&self, time: Duration) {
        let buckets = self
            .0
            .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect());
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if let Some(bucket) = buckets.get(bucket(millis)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// The current values.
    pub(crate) fn distribution(&self) -> Distribution {
        let buckets = self.0.get().into_iter().flatten().enumerate();
        let counted = buckets.map(|(index, count)| (index, count.load(Relaxed)));
        Distribution(counted.filter(|(_, count)| *count > 0).collect())
    }
}

impl Distribution {
    /// The values of both.
    pub(crate) fn with(&self, other: &Self) -> Self {
        let mut all = BTreeMap::new();
        for (index, count) in self.0.iter().chain(&other.0) {
            *all.entry(*index).or_default() += count;
        }
        Self(all.into_iter().collect())
    }

    /// Whether there are no values.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of values.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Their approximate sum.
    pub(crate) fn sum(&self) -> f64 {
        let parts = self.0.iter().map(|(index, count)| {
            let (low, width) = bounds(*index);
            (low + width / 2.0) * *count as f64
        });
        parts.sum()
    }

    /// How many are at most this many milliseconds.
    pub(crate) fn at_most(&self, millis: f64) -> u64 {
        let below = self.0.iter().filter(|(index, _)| bounds(*index).0 <= millis);
        below.map(|(_, count)| count).sum()
    }

    /// An approximate quantile; `None` without values.
    pub(crate) fn quantile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.count() as f64).ceil().max(1.0);
        let mut before = 0.0;
        for (index, count) in &self.0 {
            let count = *count as f64;
            if before + count >= rank {
                let (low, width) = bounds(*index);
                return Some(low + width * (rank - before) / (count + 1.0));
            }
            before += count;
        }
        None
    }
}

/// The bucket of a value.
fn bucket(millis: u64) -> usize {
    if millis < EXACT {
        return millis as usize;
    }
    let decade = (millis.ilog10() - 2) as usize;
    if decade >= DECADES {
        return BUCKETS - 1;
    }
    let leading = millis / 10_u64.pow(millis.ilog10() - 1);
    EXACT as usize + decade * PER_DECADE + (leading - 10) as usize
}

/// The lower bound and the width of a bucket. Envoy's buckets below 10 ms are tenths, of which whole milliseconds hit
/// the first.
fn bounds(index: usize) -> (f64, f64) {
    match index {
        0 => (0.0, 0.0),
        1..10 => (index as f64, 0.1),
        10..100 => (index as f64, 1.0),
        _ => {
            let above = index - EXACT as usize;
            let width = 10_f64.powi((above / PER_DECADE + 1) as i32);
            ((above % PER_DECADE + 10) as f64 * width, width)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        values
            .iter()
            .for_each(|millis| histogram.record(Duration::from_millis(*millis)));
        histogram.distribution()
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for millis in (0..3000).chain([9_999, 10_000, 123_456, 9_999_999]) {
            let (low, width) = bounds(bucket(millis));
            let value = millis as f64;
            assert!(
                low <= value && (value < low + width || value == low),
                "{millis}: {low}+{width}"
            );
        }
        assert_eq!(bucket(u64::MAX), bucket(9_999_999));
    }

    #[test]
    fn two_distributions_are_one_of_all_their_values() {
        assert_eq!(of(&[1, 7, 200]).with(&of(&[0, 7, 3000])), of(&[0, 1, 7, 7, 200, 3000]));
        assert_eq!(of(&[]).with(&of(&[])), of(&[]));
    }

    #[test]
    fn quantiles_are_those_that_envoy_prints() {
        // Seen in Envoy 1.40 for three requests of 1, 1 and 6 ms.
        let three = of(&[1, 1, 6]);
        let printed: Vec<_> = [0.0, 25.0, 50.0, 75.0, 100.0]
            .iter()
            .filter_map(|q| three.quantile(*q))
            .collect();
        assert_eq!(
            printed.iter().map(f64::to_string).collect::<Vec<_>>(),
            [
                "1.0333333333333334",
                "1.0333333333333334",
                "1.0666666666666667",
                "6.05",
                "6.05"
            ]
        );
        assert_eq!(of(&[0]).quantile(50.0), Some(0.0));
        assert_eq!(of(&[]).quantile(50.0), None);
    }

    #[test]
    fn values_are_counted_up_to_a_bound() {
        // As Envoy 1.40: 1 ms counts for `le="1"`.
        let some = of(&[0, 0, 1, 1, 7, 260]);
        let counts = [0.5, 1.0, 5.0, 10.0, 250.0, 500.0].map(|bound| some.at_most(bound));
        assert_eq!((counts, some.count()), ([2, 4, 4, 5, 5, 6], 6));
        assert!((some.sum() - 274.15).abs() < 0.01, "{}", some.sum());
    }

    #[test]
    fn nothing_is_allocated_before_the_first_value() {
        let histogram = Histogram::default();
        assert!(histogram.distribution().is_empty() && histogram.0.get().is_none());
    }
}
