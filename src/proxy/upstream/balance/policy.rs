//! Picking one of several hosts by the cluster's load balancing policy.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::hashing::{Maglev, Ring, Weighted};
use super::turns::{Deadlines, WeightedRoundRobin};
use crate::proxy::upstream::cluster::{ClusterConfig, LbPolicy, SlowStart};
use crate::proxy::upstream::host::Host;

/// Picks one of some hosts.
#[derive(Debug)]
pub(super) struct Picker {
    hosts: Vec<Arc<Host>>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    WeightedRoundRobin(WeightedRoundRobin),
    /// The one with the fewest active requests of this many chosen at random.
    Least(u32),
    /// Scheduled by weights that change all the time.
    ByWeight(Mutex<Deadlines>, Weight),
    Chance,
    Ring(Ring),
    Maglev(Maglev),
}

/// How a host's weight is computed.
#[derive(Clone, Copy, Debug)]
struct Weight {
    /// Whether active requests reduce it.
    by_load: bool,
    /// Whether slow start reduces it.
    slow_start: Option<SlowStart>,
}

impl Picker {
    /// A picker for these hosts; `weighted` is for consistent hashing.
    pub(super) fn new(config: &ClusterConfig, hosts: Vec<Arc<Host>>, weighted: &Weighted, now: Instant) -> Self {
        let equal = hosts.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let slow_start = config.slow_start.filter(|slow| slow.end(&hosts, now).is_some());
        let by_weight = |by_load| {
            let weight = Weight { by_load, slow_start };
            Way::ByWeight(Mutex::new(deadlines(&hosts, weight, now)), weight)
        };
        let way = match config.policy {
            LbPolicy::RoundRobin if slow_start.is_some() => by_weight(false),
            LbPolicy::RoundRobin => {
                let weights: Vec<_> = hosts.iter().map(|host| u64::from(host.weight)).collect();
                Way::WeightedRoundRobin(WeightedRoundRobin::new(&weights))
            }
            LbPolicy::LeastRequest { choices } if equal && slow_start.is_none() => Way::Least(choices.max(2)),
            LbPolicy::LeastRequest { .. } => by_weight(true),
            LbPolicy::Random | LbPolicy::ClusterProvided => Way::Chance,
            LbPolicy::RingHash { min, max } => Way::Ring(Ring::new(weighted, min, max)),
            LbPolicy::Maglev { table } => Way::Maglev(Maglev::new(weighted, table)),
        };
        Self { hosts, way }
    }

    /// Whether there are no hosts.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Picks a host; `None` if there are none.
    pub(super) fn pick(&self, hash: Option<u64>, attempt: u32) -> Option<&Arc<Host>> {
        let hash = || hash.unwrap_or_else(|| fastrand::u64(..));
        match &self.way {
            Way::WeightedRoundRobin(turns) => self.hosts.get(turns.next()?),
            Way::Least(choices) => self.least_of(*choices, |host| f64::from(active(host))),
            Way::ByWeight(deadlines, weight) => {
                let now = weight.slow_start.map(|_| Instant::now());
                let weight = |host: &Host| weight.of(host, now);
                match deadlines.try_lock() {
                    Ok(mut deadlines) => self.hosts.get(deadlines.next(|place| weight(&self.hosts[place]))?),
                    // Another worker holds the lock: instead of waiting, compare two hosts.
                    Err(_) => self.least_of(2, |host| 1.0 / weight(host)),
                }
            }
            Way::Chance => self.any(),
            Way::Ring(ring) => ring.pick(hash(), attempt),
            Way::Maglev(maglev) => maglev.pick(hash(), attempt),
        }
    }

    fn any(&self) -> Option<&Arc<Host>> {
        match self.hosts.len() {
            0 => None,
            len => self.hosts.get(fastrand::usize(..len)),
        }
    }

    fn least_of(&self, choices: u32, load: impl Fn(&Host) -> f64) -> Option<&Arc<Host>> {
        if let [only] = &self.hosts[..] {
            return Some(only);
        }
        let candidates = (0..choices).filter_map(|_| self.any());
        candidates.min_by(|a, b| load(a).total_cmp(&load(b)))
    }
}

fn active(host: &Host) -> u32 {
    host.state.active.load(Relaxed)
}

impl Weight {
    /// Envoy's weight for least request with unequal weights (`active_request_bias` 1). Without a time there is no slow
    /// start.
    fn of(self, host: &Host, now: Option<Instant>) -> f64 {
        let load = if self.by_load { f64::from(active(host)) } else { 0.0 };
        let share = self.slow_start.zip(now);
        f64::from(host.weight) / (load + 1.0) * share.map_or(1.0, |(slow_start, now)| slow_start.share(host, now))
    }
}

fn deadlines(hosts: &[Arc<Host>], weight: Weight, now: Instant) -> Deadlines {
    let weight = |place: usize| weight.of(&hosts[place], Some(now));
    let mut deadlines = Deadlines::new(hosts.len(), weight);
    // Proxies of a mesh should not all start with the same host.
    for _ in 0..fastrand::usize(..=hosts.len()) {
        deadlines.next(weight);
    }
    deadlines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::balance::testing::{address, cluster_config, endpoints, weighted};
    use crate::proxy::upstream::host::{Endpoints, HostSet};

    fn picker(policy: LbPolicy, endpoints: &Endpoints) -> Picker {
        let config = ClusterConfig {
            policy,
            ..cluster_config()
        };
        let set = HostSet::build(&config, endpoints, None, Instant::now());
        Picker::new(&config, set.hosts, &Vec::new(), Instant::now())
    }

    fn share(picker: &Picker, of: u16, times: usize) -> usize {
        let picks = (0..times).filter_map(|_| picker.pick(None, 0));
        picks.filter(|host| host.address == address(of)).count()
    }

    #[test]
    fn the_less_busy_host_is_picked() {
        let picker = picker(LbPolicy::LeastRequest { choices: 2 }, &endpoints(&[(1, 0), (2, 0)]));
        picker.hosts[0].state.active.store(10, Relaxed);
        // The busy one only where both choices fall upon it.
        let busy = share(&picker, 1, 1000);
        assert!((150..350).contains(&busy), "{busy}");
    }

    #[test]
    fn with_unequal_weights_load_goes_by_weight_and_business() {
        let picker = picker(LbPolicy::LeastRequest { choices: 2 }, &weighted(&[(1, 1), (2, 3)]));
        assert!((248..=252).contains(&share(&picker, 1, 1000)));
        picker.hosts[1].state.active.store(2, Relaxed);
        let even = share(&picker, 1, 1000);
        assert!((498..=502).contains(&even), "{even}");
    }

    #[test]
    fn chance_knows_no_weights() {
        let picker = picker(LbPolicy::Random, &weighted(&[(1, 1), (2, 100)]));
        let first = share(&picker, 1, 1000);
        assert!((400..600).contains(&first), "{first}");
    }

    #[test]
    fn hosts_of_equal_weight_take_turns() {
        let picker = picker(LbPolicy::RoundRobin, &endpoints(&[(1, 0), (2, 0), (3, 0)]));
        assert_eq!(share(&picker, 2, 300), 100);
    }
}
