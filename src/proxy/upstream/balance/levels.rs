//! How load is divided between priorities, as in Envoy's load balancers.

use std::sync::Arc;

use crate::proxy::upstream::host::Host;

/// The health of a priority's hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) healthy: usize,
    pub(super) degraded: usize,
    /// All that count.
    pub(super) eligible: usize,
    pub(super) all: usize,
}

/// The load of a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Percentage for its healthy hosts.
    pub(super) share: u32,
    /// Percentage for its degraded hosts.
    pub(super) degraded: u32,
    /// Panic mode: whether unhealthy hosts are used, too.
    pub(super) panic: bool,
}

impl Health {
    pub(super) fn of(hosts: &[Arc<Host>]) -> Self {
        Self {
            healthy: hosts.iter().filter(|host| host.healthy()).count(),
            degraded: hosts.iter().filter(|host| host.degraded()).count(),
            eligible: hosts.iter().filter(|host| !host.excluded()).count(),
            all: hosts.len(),
        }
    }

    /// The percentage of the load that so many of its hosts can take: their share of all hosts times the
    /// overprovisioning factor, at most 100.
    fn availability(self, hosts: usize, overprovisioning: u32) -> u32 {
        let scaled = overprovisioning as usize * hosts;
        scaled
            .checked_div(self.eligible)
            .map_or(0, |one| u32::try_from(one.min(100)).unwrap_or(100))
    }

    fn is_below(self, threshold: f64) -> bool {
        let percent = if self.eligible == 0 {
            0.0
        } else {
            100.0 * (self.healthy + self.degraded) as f64 / self.eligible as f64
        };
        percent < threshold
    }
}

/// The load of each priority; adds up to 100 if there is any priority.
pub(super) fn loads(levels: &[Health], overprovisioning: u32, panic_threshold: f64) -> Vec<Load> {
    let availability = |of: fn(&Health) -> usize| -> Vec<_> {
        let levels = levels.iter();
        levels.map(|one| one.availability(of(one), overprovisioning)).collect()
    };
    let (healthy, degraded) = (availability(|one| one.healthy), availability(|one| one.degraded));
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    // No priority is in panic mode as long as the healthy hosts of all can take the whole load.
    let panics = |level: &Health| total < 100 && level.is_below(panic_threshold);
    let (shares, degraded) = if levels.iter().all(panics) {
        (by_size(levels), vec![0; levels.len()])
    } else {
        by_availability(&healthy, &degraded, total)
    };
    let levels = levels.iter().zip(shares).zip(degraded);
    levels
        .map(|((level, share), degraded)| Load {
            share,
            degraded,
            panic: panics(level),
        })
        .collect()
}

/// Gives each priority, in order, as much as its healthy hosts can take, then what is left in the same way to degraded
/// hosts.
fn by_availability(healthy: &[u32], degraded: &[u32], total: u32) -> (Vec<u32>, Vec<u32>) {
    let mut left = 100;
    let mut share = |availability: &[u32]| -> Vec<_> {
        let shares = availability.iter().map(|one| {
            let share = (one * 100).checked_div(total).unwrap_or(0).min(left);
            left -= share;
            share
        });
        shares.collect()
    };
    let (mut shares, mut of_degraded) = (share(healthy), share(degraded));
    // The remainder of rounding goes to the first with any availability; so does everything if none has any and panic
    // mode is off.
    let first = |availability: &[u32]| availability.iter().position(|one| *one > 0);
    let taker = match (first(healthy), first(degraded)) {
        (None, Some(first)) => of_degraded.get_mut(first),
        (first, _) => shares.get_mut(first.unwrap_or(0)),
    };
    if let Some(share) = taker {
        *share += left;
    }
    (shares, of_degraded)
}

/// When all are in panic mode: by their numbers of hosts.
fn by_size(levels: &[Health]) -> Vec<u32> {
    let total: usize = levels.iter().map(|level| level.all).sum();
    let mut shares: Vec<_> = levels
        .iter()
        .map(|level| u32::try_from((100 * level.all).checked_div(total).unwrap_or(0)).unwrap_or(0))
        .collect();
    let left = 100_u32.saturating_sub(shares.iter().sum());
    let first = levels.iter().position(|level| level.all > 0).unwrap_or(0);
    if let Some(share) = shares.get_mut(first) {
        *share += left;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(levels: &[(usize, usize)], threshold: f64) -> (Vec<u32>, Vec<bool>) {
        let levels: Vec<_> = levels
            .iter()
            .map(|(healthy, all)| Health {
                healthy: *healthy,
                degraded: 0,
                eligible: *all,
                all: *all,
            })
            .collect();
        let loads = loads(&levels, 140, threshold);
        loads.iter().map(|load| (load.share, load.panic)).unzip()
    }

    /// The table of Envoy's documentation of priority levels.
    #[test]
    fn load_spills_over_as_envoy_documents_it() {
        let two = |first, second| shares(&[(first, 100), (second, 100)], 0.0).0;
        assert_eq!(two(100, 100), [100, 0]);
        assert_eq!(two(72, 72), [100, 0]);
        assert_eq!(two(71, 71), [99, 1]);
        assert_eq!(two(50, 50), [70, 30]);
        assert_eq!(two(25, 100), [35, 65]);
        assert_eq!(two(25, 25), [50, 50]);
        assert_eq!(two(0, 100), [0, 100]);
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_cannot() {
        let of = |levels: &[(usize, usize, usize)]| -> Vec<_> {
            let levels: Vec<_> = levels
                .iter()
                .map(|(healthy, degraded, all)| Health {
                    healthy: *healthy,
                    degraded: *degraded,
                    eligible: *all,
                    all: *all,
                })
                .collect();
            let loads = loads(&levels, 100, 0.0);
            loads
                .iter()
                .map(|load| (load.share, load.degraded, load.panic))
                .collect()
        };
        assert_eq!(of(&[(1, 1, 2)]), [(50, 50, false)]);
        assert_eq!(of(&[(0, 2, 2)]), [(0, 100, false)]);
        // Healthy hosts of later priorities come before degraded ones of earlier ones.
        assert_eq!(of(&[(0, 2, 2), (2, 0, 2)]), [(0, 0, false), (100, 0, false)]);
        // An example of Envoy's own.
        let all = of(&[(10, 20, 100), (20, 10, 100), (10, 0, 100)]);
        assert_eq!(all, [(16, 28, false), (28, 14, false), (14, 0, false)]);
    }

    #[test]
    fn there_is_no_panic_while_all_together_are_healthy_enough() {
        assert_eq!(shares(&[(1, 10), (10, 10)], 50.0), (vec![14, 86], vec![false, false]));
        assert_eq!(shares(&[(0, 10), (6, 10)], 50.0), (vec![0, 100], vec![true, false]));
    }

    #[test]
    fn in_a_panic_of_all_load_goes_by_the_number_of_hosts() {
        assert_eq!(shares(&[(0, 2), (0, 1)], 50.0), (vec![67, 33], vec![true, true]));
        assert_eq!(shares(&[(1, 10), (0, 30)], 50.0), (vec![25, 75], vec![true, true]));
    }

    #[test]
    fn without_panic_and_health_the_first_gets_what_nobody_can_take() {
        assert_eq!(shares(&[(0, 2), (0, 2)], 0.0), (vec![100, 0], vec![false, false]));
        assert!(shares(&[], 50.0).0.is_empty());
    }
}
