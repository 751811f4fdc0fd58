//! How load is shared between priorities, as Envoy's load balancers do it.

use std::sync::Arc;

use crate::proxy::upstream::host::Host;

/// The hosts of a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) healthy: usize,
    pub(super) all: usize,
}

/// What a priority gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Of a hundred.
    pub(super) share: u32,
    /// Whether its unhealthy hosts are used too.
    pub(super) panic: bool,
}

impl Health {
    pub(super) fn of(hosts: &[Arc<Host>]) -> Self {
        Self {
            healthy: hosts.iter().filter(|host| host.healthy()).count(),
            all: hosts.len(),
        }
    }

    /// How much of the load it could take, 0 to 100: its health times the overprovisioning factor.
    fn availability(self, overprovisioning: u32) -> u32 {
        let scaled = overprovisioning as usize * self.healthy;
        scaled
            .checked_div(self.all)
            .map_or(0, |one| u32::try_from(one.min(100)).unwrap_or(100))
    }

    fn is_below(self, threshold: f64) -> bool {
        let percent = if self.all == 0 {
            0.0
        } else {
            100.0 * self.healthy as f64 / self.all as f64
        };
        percent < threshold
    }
}

/// The load of each priority. The shares add up to a hundred where there is a priority.
pub(super) fn loads(levels: &[Health], overprovisioning: u32, panic_threshold: f64) -> Vec<Load> {
    let availability: Vec<_> = levels.iter().map(|one| one.availability(overprovisioning)).collect();
    let total = availability.iter().sum::<u32>().min(100);
    // While there is enough health in all, no single priority is in a panic.
    let panics = |level: &Health| total < 100 && level.is_below(panic_threshold);
    let shares = if levels.iter().all(panics) {
        by_size(levels)
    } else {
        by_availability(&availability, total)
    };
    let levels = levels.iter().zip(shares);
    levels
        .map(|(level, share)| Load {
            share,
            panic: panics(level),
        })
        .collect()
}

/// From the first on, each as much as it can take.
fn by_availability(availability: &[u32], total: u32) -> Vec<u32> {
    let mut left = 100;
    let mut shares: Vec<_> = availability
        .iter()
        .map(|one| {
            let share = (one * 100).checked_div(total).unwrap_or(0).min(left);
            left -= share;
            share
        })
        .collect();
    // What is left over by rounding; or all of it, where nothing is healthy and nobody may panic.
    let first = availability.iter().position(|one| *one > 0).unwrap_or(0);
    if let Some(share) = shares.get_mut(first) {
        *share += left;
    }
    shares
}

/// When all are in a panic: by how many hosts they have.
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
