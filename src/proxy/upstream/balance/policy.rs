//! How one of several hosts is picked.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::hashing::{Maglev, Ring, Weighted};
use super::turns::{Deadlines, Turns};
use crate::proxy::upstream::cluster::LbPolicy;
use crate::proxy::upstream::host::Host;

/// Picks one of some hosts.
#[derive(Debug)]
pub(super) struct Picker {
    hosts: Vec<Arc<Host>>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Turns(Turns),
    /// The least busy of as many.
    Least(u32),
    /// The least busy by weight.
    LeastByWeight(Mutex<Deadlines>),
    Chance,
    Ring(Ring),
    Maglev(Maglev),
}

impl Picker {
    /// A picker for hosts. `weighted` is what consistent hashing goes by.
    pub(super) fn new(policy: LbPolicy, hosts: Vec<Arc<Host>>, weighted: &Weighted) -> Self {
        let equal = hosts.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let way = match policy {
            LbPolicy::RoundRobin => {
                let weights: Vec<_> = hosts.iter().map(|host| u64::from(host.weight)).collect();
                Way::Turns(Turns::new(&weights))
            }
            LbPolicy::LeastRequest { choices } if equal => Way::Least(choices.max(2)),
            LbPolicy::LeastRequest { .. } => Way::LeastByWeight(Mutex::new(deadlines(&hosts))),
            LbPolicy::Random | LbPolicy::ClusterProvided => Way::Chance,
            LbPolicy::RingHash { min, max } => Way::Ring(Ring::new(weighted, min, max)),
            LbPolicy::Maglev { table } => Way::Maglev(Maglev::new(weighted, table)),
        };
        Self { hosts, way }
    }

    /// A host; none if there is none.
    pub(super) fn pick(&self, hash: Option<u64>, attempt: u32) -> Option<&Arc<Host>> {
        let hash = || hash.unwrap_or_else(|| fastrand::u64(..));
        match &self.way {
            Way::Turns(turns) => self.hosts.get(turns.next()?),
            Way::Least(choices) => self.least_of(*choices, |host| f64::from(active(host))),
            Way::LeastByWeight(deadlines) => match deadlines.try_lock() {
                Ok(mut deadlines) => self.hosts.get(deadlines.next(|place| rank(&self.hosts[place]))?),
                // Another worker is choosing just now: rather than to wait for it, two are compared.
                Err(_) => self.least_of(2, |host| 1.0 / rank(host)),
            },
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

/// Envoy's weight of a host among hosts of unequal weights (`active_request_bias` 1).
fn rank(host: &Host) -> f64 {
    f64::from(host.weight) / (f64::from(active(host)) + 1.0)
}

fn deadlines(hosts: &[Arc<Host>]) -> Deadlines {
    let mut deadlines = Deadlines::new(hosts.len(), |place| f64::from(hosts[place].weight));
    // Not every proxy of a mesh begins with the same host.
    for _ in 0..fastrand::usize(..=hosts.len()) {
        deadlines.next(|place| rank(&hosts[place]));
    }
    deadlines
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::proxy::upstream::balance::testing::{address, cluster_config, endpoints, weighted};
    use crate::proxy::upstream::host::{Endpoints, HostSet};

    fn picker(policy: LbPolicy, endpoints: &Endpoints) -> Picker {
        let set = HostSet::build(&cluster_config(), endpoints, None, Instant::now());
        Picker::new(policy, set.hosts, &Vec::new())
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
