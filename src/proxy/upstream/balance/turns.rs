//! Weighted scheduling without locks: the order is computed in advance.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The longest cycle; larger weights are scaled down to it.
const LONGEST: u64 = 4096;

/// A weighted round-robin schedule of indices.
#[derive(Debug)]
pub(super) struct WeightedRoundRobin {
    /// One cycle; empty if all have equal weights.
    order: Box<[u32]>,
    /// The number of indices.
    len: usize,
    next: AtomicUsize,
}

impl WeightedRoundRobin {
    /// A schedule by these weights, spread as evenly as by Envoy's earliest deadline first scheduler. Indices with weight
    /// 0 are never scheduled.
    pub(super) fn new(weights: &[u64]) -> Self {
        let order = match weights {
            [first, rest @ ..] if *first > 0 && rest.iter().all(|weight| weight == first) => Vec::new(),
            weights => cycle(&reduced(weights)),
        };
        let len = if order.is_empty() && weights.iter().all(|weight| *weight == 0) {
            0
        } else {
            weights.len()
        };
        Self {
            order: order.into(),
            len,
            // Proxies of a mesh should not all start with the same host.
            next: AtomicUsize::new(fastrand::usize(..)),
        }
    }

    /// The next index; `None` if none has a weight.
    pub(super) fn next(&self) -> Option<usize> {
        if self.len == 1 {
            return Some(0);
        }
        let turn = self.next.fetch_add(1, Relaxed);
        if self.order.is_empty() {
            return turn.checked_rem(self.len);
        }
        self.order.get(turn % self.order.len()).map(|place| *place as usize)
    }
}

/// The same proportions with smaller weights; only zeros become zero.
fn reduced(weights: &[u64]) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total = weights
        .iter()
        .fold(0_u64, |sum, weight| sum.saturating_add(weight / divisor));
    let longest = LONGEST.max(weights.len() as u64);
    let scale = |weight: u64| match weight {
        0 => 0,
        weight if total <= longest => weight,
        weight => ((weight as f64 * longest as f64 / total as f64).round() as u64).max(1),
    };
    weights.iter().map(|weight| scale(weight / divisor)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Earliest deadline first: an index of weight w is due w times in a cycle, at equal distances.
fn cycle(weights: &[u64]) -> Vec<u32> {
    let places = (0..).zip(weights);
    let mut turns: Vec<(f64, u32)> = places
        .flat_map(|(place, weight)| (1..=*weight).map(move |turn| (turn as f64 / *weight as f64, place)))
        .collect();
    turns.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    turns.into_iter().map(|(_, place)| place).collect()
}

/// A schedule by weights that change all the time: Envoy's earliest deadline first scheduler.
#[derive(Debug)]
pub(super) struct Deadlines {
    due: BinaryHeap<Due>,
    added: u64,
}

#[derive(Debug)]
struct Due {
    deadline: f64,
    added: u64,
    place: usize,
}

impl Deadlines {
    /// A schedule of `len` indices by their current weights.
    pub(super) fn new(len: usize, weight: impl Fn(usize) -> f64) -> Self {
        let mut all = Self {
            due: BinaryHeap::with_capacity(len),
            added: 0,
        };
        (0..len).for_each(|place| all.add(0.0, place, weight(place)));
        all
    }

    /// The next index, which is scheduled again by its current weight.
    pub(super) fn next(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let Due { deadline, place, .. } = self.due.pop()?;
        self.add(deadline, place, weight(place));
        Some(place)
    }

    fn add(&mut self, now: f64, place: usize, weight: f64) {
        let deadline = now + 1.0 / weight.max(f64::MIN_POSITIVE);
        let added = self.added;
        self.added += 1;
        self.due.push(Due { deadline, added, place });
    }
}

impl Ord for Due {
    /// The earliest deadline is the greatest (for a max-heap); of equal ones the one that was scheduled first.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_deadline = other.deadline.total_cmp(&self.deadline);
        by_deadline.then_with(|| other.added.cmp(&self.added))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u64], times: usize) -> Vec<usize> {
        let turns = WeightedRoundRobin::new(weights);
        let mut counts = vec![0; weights.len()];
        for _ in 0..times {
            counts[turns.next().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn each_has_as_many_turns_as_its_weight() {
        assert_eq!(counts(&[1, 1, 1], 30), [10, 10, 10]);
        assert_eq!(counts(&[1, 2, 3], 60), [10, 20, 30]);
        assert_eq!(counts(&[100, 0, 300], 40), [10, 0, 30]);
        assert_eq!(counts(&[7], 3), [3]);
    }

    #[test]
    fn turns_are_spread_over_the_cycle() {
        assert_eq!(cycle(&[1, 3]), [1, 1, 0, 1]);
    }

    #[test]
    fn nobody_has_a_turn_without_a_weight() {
        assert_eq!(WeightedRoundRobin::new(&[]).next(), None);
        assert_eq!(WeightedRoundRobin::new(&[0, 0]).next(), None);
        assert_eq!(WeightedRoundRobin::new(&[0]).next(), None);
    }

    #[test]
    fn large_weights_are_scaled_and_keep_their_turns() {
        let weights = reduced(&[1, 1_000_000, 3_000_001]);
        assert_eq!(weights[0], 1);
        assert!(weights.iter().sum::<u64>() <= LONGEST + 3);
        assert!((weights[2] as f64 / weights[1] as f64 - 3.0).abs() < 0.01);
    }

    #[test]
    fn deadlines_follow_weights_that_change() {
        let mut due = Deadlines::new(2, |_| 1.0);
        let first: Vec<_> = (0..4).filter_map(|_| due.next(|_| 1.0)).collect();
        assert_eq!(first, [0, 1, 0, 1]);
        let slow = |place| if place == 0 { 0.1 } else { 1.0 };
        let later = (0..20)
            .filter_map(|_| due.next(slow))
            .filter(|place| *place == 0)
            .count();
        assert!(later <= 3, "{later}");
    }
}
