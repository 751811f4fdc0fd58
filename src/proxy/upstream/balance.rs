//! Load balancing: a priority is chosen first, then a locality, then a host by the cluster's policy.
//!
//! Everything possible is computed when hosts or their health change, so that choosing a host takes no lock.

pub(crate) mod ejections;
mod hashing;
mod levels;
pub(crate) mod outlier;
mod policy;
mod slow_start;
#[cfg(test)]
pub(crate) mod testing;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::cluster::{Cluster, ClusterConfig, ClusterStats, Discovery, LbPolicy};
use super::host::{Host, Locality, Shares};
use hashing::Weighted;
use levels::{Health, Load};
use policy::Picker;
use turns::WeightedRoundRobin;

/// What a choice depends on (Envoy's `LoadBalancerContext`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// The hash for consistent hashing; at random without one.
    pub(crate) hash: Option<u64>,
    /// Hosts that were tried already, and how many times to choose again to avoid them.
    pub(crate) avoid: (&'a [Arc<Host>], u32),
    /// Hosts whose priorities are skipped as long as there are others (`previous_priorities`).
    pub(crate) passed: &'a [Arc<Host>],
    /// The original destination, for `ORIGINAL_DST` clusters.
    pub(crate) destination: Option<SocketAddr>,
}

/// The load balancer of a [`HostSet`](super::host::HostSet).
#[derive(Debug)]
pub(crate) struct Balancer {
    levels: Vec<Level>,
}

/// The hosts of one priority that may be chosen.
#[derive(Debug)]
struct Level {
    priority: u32,
    load: Load,
    /// Healthy hosts; all hosts in panic mode.
    healthy: Members,
    /// Degraded hosts, chosen only as far as the healthy ones do not suffice.
    degraded: Option<Members>,
}

/// Hosts of one priority and health.
#[derive(Debug)]
struct Members {
    picker: Picker,
    /// Pickers by locality, if localities have weights.
    localities: Option<(WeightedRoundRobin, Vec<Picker>)>,
}

impl Balancer {
    /// A load balancer for these hosts, sorted by priority.
    pub(crate) fn new(config: &ClusterConfig, hosts: &[Arc<Host>], shares: &Shares, now: Instant) -> Self {
        if config.policy == LbPolicy::ClusterProvided {
            return Self { levels: Vec::new() };
        }
        let groups: Vec<_> = hosts.chunk_by(|a, b| a.priority == b.priority).collect();
        let health: Vec<_> = groups.iter().map(|group| Health::of(group)).collect();
        let loads = levels::loads(&health, shares.overprovisioning, config.panic_threshold);
        let levels = groups.into_iter().zip(loads);
        Self {
            levels: levels
                .map(|(group, load)| Level::new(config, group, shares, load, now))
                .collect(),
        }
    }

    /// Chooses a host; `None` if there is none that may be chosen.
    pub(crate) fn choose(&self, choice: &Choice<'_>, stats: &ClusterStats) -> Option<Arc<Host>> {
        let (tried, attempts) = choice.avoid;
        let mut attempt = 0;
        loop {
            let hash = choice.hash.unwrap_or_else(|| fastrand::u64(..));
            let (level, degraded) = self.next_level(choice.passed).or_else(|| self.level(hash))?;
            if level.load.panic {
                stats.lb_healthy_panic.fetch_add(1, Relaxed);
            }
            let members = match degraded {
                true => level.degraded.as_ref().unwrap_or(&level.healthy),
                false => &level.healthy,
            };
            let host = members.pick(choice.hash, attempt)?;
            if attempt >= attempts || !tried.iter().any(|one| one.address == host.address) {
                return Some(host.clone());
            }
            attempt += 1;
        }
    }

    /// The first level that has no skipped host, and whether to use its degraded hosts; `None` if nothing, or
    /// everything, is to be skipped.
    fn next_level(&self, passed: &[Arc<Host>]) -> Option<(&Level, bool)> {
        if passed.is_empty() {
            return None;
        }
        let is_passed = |level: &Level| passed.iter().any(|host| host.priority == level.priority);
        let others = self.levels.iter().filter(|level| !is_passed(level));
        let mut usable = others.filter_map(|level| match &level.degraded {
            _ if !level.healthy.picker.is_empty() => Some((level, false)),
            Some(_) => Some((level, true)),
            None => None,
        });
        usable.next()
    }

    /// The level for a hash, by the levels' shares of the load, and whether to use its degraded hosts.
    fn level(&self, hash: u64) -> Option<(&Level, bool)> {
        if let [only] = &self.levels[..]
            && only.load.degraded == 0
        {
            return Some((only, false));
        }
        let mut left = hash % 100;
        let mut falls_on = |share: u32| {
            let (share, before) = (u64::from(share), left);
            left = left.saturating_sub(share);
            before < share
        };
        let mut levels = self.levels.iter();
        let healthy = levels.find(|level| falls_on(level.load.share));
        let mut levels = self.levels.iter();
        match healthy {
            Some(level) => Some((level, false)),
            None => Some((levels.find(|level| falls_on(level.load.degraded))?, true)),
        }
    }
}

impl Level {
    fn new(config: &ClusterConfig, all: &[Arc<Host>], shares: &Shares, load: Load, now: Instant) -> Self {
        let members = |usable: &dyn Fn(&Host) -> bool| {
            let usable = all.iter().filter(|host| usable(host)).cloned();
            Members::new(config, all, usable.collect(), shares, load.panic, now)
        };
        // In panic mode hosts are not told apart, and consistent hashing knows no degraded hosts: as in Envoy, the load
        // of a level's degraded hosts then falls to its others.
        let apart = !load.panic && !config.policy.is_hash();
        let degraded = apart && all.iter().any(|host| host.degraded());
        Self {
            priority: all.first().map_or(0, |host| host.priority),
            load,
            healthy: members(&|host| load.panic || host.healthy()),
            degraded: degraded.then(|| members(&Host::degraded)),
        }
    }
}

impl Members {
    fn new(
        config: &ClusterConfig,
        all: &[Arc<Host>],
        usable: Vec<Arc<Host>>,
        shares: &Shares,
        panic: bool,
        now: Instant,
    ) -> Self {
        let localities = Localities::new(config, all, &usable, shares);
        let weighted = match &localities {
            Some(localities) => localities.weighted(),
            None => hashing::by_weight(&usable),
        };
        // Consistent hashing multiplies localities' weights into those of hosts; panic mode ignores localities.
        let choose_locality = !panic && !config.policy.is_hash();
        Self {
            localities: localities
                .filter(|_| choose_locality)
                .and_then(|one| one.pickers(config, now)),
            picker: Picker::new(config, usable, &weighted, now),
        }
    }

    fn pick(&self, hash: Option<u64>, attempt: u32) -> Option<&Arc<Host>> {
        match &self.localities {
            Some((turns, pickers)) => pickers.get(turns.next()?)?.pick(hash, attempt),
            None => self.picker.pick(hash, attempt),
        }
    }
}

/// The hosts of a priority by locality, if localities have weights.
struct Localities {
    overprovisioning: u32,
    groups: Vec<Group>,
}

struct Group {
    locality: Arc<Locality>,
    weight: u32,
    /// Hosts that count.
    eligible: usize,
    usable: Vec<Arc<Host>>,
}

impl Localities {
    /// `None` if the cluster does not use locality weights.
    fn new(config: &ClusterConfig, all: &[Arc<Host>], usable: &[Arc<Host>], shares: &Shares) -> Option<Self> {
        let priority = all.first()?.priority;
        let weight = |locality: &Locality| {
            let mut given = shares.localities.iter();
            given
                .find(|(of, one, _)| *of == priority && **one == *locality)
                .map_or(0, |(.., weight)| *weight)
        };
        if !config.locality_weighted {
            return None;
        }
        let mut groups: Vec<Group> = Vec::new();
        for host in all {
            match groups.iter_mut().find(|group| group.locality == host.locality) {
                Some(group) => group.eligible += usize::from(!host.excluded()),
                None => groups.push(Group {
                    weight: weight(&host.locality),
                    locality: host.locality.clone(),
                    eligible: usize::from(!host.excluded()),
                    usable: Vec::new(),
                }),
            }
        }
        for host in usable {
            if let Some(group) = groups.iter_mut().find(|group| group.locality == host.locality) {
                group.usable.push(host.clone());
            }
        }
        let overprovisioning = shares.overprovisioning;
        // As in Envoy, locality weights apply only if any is set.
        groups.iter().any(|group| group.weight > 0).then_some(Self {
            overprovisioning,
            groups,
        })
    }

    /// A schedule of localities by weight and health, and a picker for each. `None` if no locality with a weight has a
    /// host: then any host may be picked.
    fn pickers(self, config: &ClusterConfig, now: Instant) -> Option<(WeightedRoundRobin, Vec<Picker>)> {
        let factor = f64::from(self.overprovisioning) / 100.0;
        let effective = self.groups.iter().map(|group| {
            let eligible = group.eligible.max(1) as f64;
            let available = (factor * group.usable.len() as f64 / eligible).min(1.0);
            // Schedules use integer weights; thousandths are precise enough.
            (f64::from(group.weight) * available * 1000.0).round() as u64
        });
        let effective: Vec<_> = effective.collect();
        if effective.iter().all(|weight| *weight == 0) {
            return None;
        }
        let turns = WeightedRoundRobin::new(&effective);
        let pickers = self.groups.into_iter().map(|group| {
            let weighted = hashing::by_weight(&group.usable);
            Picker::new(config, group.usable, &weighted, now)
        });
        Some((turns, pickers.collect()))
    }

    /// The usable hosts with their weights within those of their localities, in the order of the hosts.
    fn weighted(&self) -> Weighted {
        let total: f64 = self.groups.iter().map(|group| f64::from(group.weight)).sum();
        let share = |group: &Group| f64::from(group.weight) / total;
        let groups = self.groups.iter().filter(|group| group.weight > 0);
        groups
            .flat_map(|group| hashing::scaled(&group.usable, share(group)))
            .collect()
    }
}

impl LbPolicy {
    fn is_hash(self) -> bool {
        matches!(self, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. })
    }
}

impl Cluster {
    /// Chooses a host for a request or connection.
    pub(crate) fn choose(&self, choice: &Choice<'_>) -> Option<Arc<Host>> {
        match &self.config.discovery {
            Discovery::OriginalDst(port, _) => self.original(choice.destination?, *port),
            Discovery::Static | Discovery::Eds(_) | Discovery::Dns(_) => {
                self.hosts.load().balancer.choose(choice, &self.stats)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::testing::{address, cluster_config, endpoints, in_localities};
    use super::*;
    use crate::proxy::upstream::host::{EdsHealth, Endpoints, HostAddress, HostSet};

    fn shares(set: &HostSet, choice: &Choice<'_>, times: u32) -> HashMap<HostAddress, u32> {
        let mut counts = HashMap::new();
        let stats = ClusterStats::default();
        for _ in 0..times {
            if let Some(host) = set.balancer.choose(choice, &stats) {
                *counts.entry(host.address.clone()).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn priorities_are_passed_over_as_long_as_there_are_others() {
        let set = HostSet::build(&cluster_config(), &endpoints(&[(1, 0), (2, 1)]), None, Instant::now());
        let of = |passed: &[Arc<Host>]| {
            let choice = Choice {
                passed,
                ..Default::default()
            };
            shares(&set, &choice, 10).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [address(1)]);
        assert_eq!(of(&set.hosts[..1]), [address(2)]);
        assert_eq!(of(&set.hosts[..]), [address(1)]);
    }

    #[test]
    fn the_next_priority_takes_what_the_first_cannot() {
        let config = cluster_config();
        let set = HostSet::build(&config, &endpoints(&[(1, 0), (2, 0), (3, 1)]), None, Instant::now());
        set.hosts[1].state.ejected.store(true, Relaxed);
        // One of two is healthy: 70 % stay.
        let set = set.rebalanced(&config, Instant::now());
        let counts = shares(&set, &Choice::default(), 2000);
        assert!(!counts.contains_key(&address(2)));
        assert!((1250..1550).contains(&counts[&address(1)]), "{counts:?}");
        assert!((450..750).contains(&counts[&address(3)]), "{counts:?}");
    }

    #[test]
    fn in_a_panic_unhealthy_hosts_are_used_too_unless_the_threshold_is_zero() {
        let mut config = cluster_config();
        let set = HostSet::build(&config, &endpoints(&[(1, 0), (2, 0), (3, 0)]), None, Instant::now());
        set.hosts[0].state.ejected.store(true, Relaxed);
        set.hosts[1].state.ejected.store(true, Relaxed);
        assert_eq!(
            shares(&set.rebalanced(&config, Instant::now()), &Choice::default(), 300).len(),
            3
        );
        config.panic_threshold = 0.0;
        assert_eq!(
            shares(&set.rebalanced(&config, Instant::now()), &Choice::default(), 300).len(),
            1
        );
        set.hosts[2].state.ejected.store(true, Relaxed);
        assert!(shares(&set.rebalanced(&config, Instant::now()), &Choice::default(), 3).is_empty());
    }

    #[test]
    fn localities_get_load_by_weight_and_health() {
        let mut config = cluster_config();
        config.locality_weighted = true;
        let all = in_localities(&[("a", 1, &[1, 2]), ("b", 3, &[3, 4])]);
        let set = HostSet::build(&config, &all, None, Instant::now());
        let counts = shares(&set, &Choice::default(), 4000);
        assert_eq!(counts[&address(1)] + counts[&address(2)], 1000);
        // Half of b is gone: its weight is 3 * 0.7.
        set.hosts[3].state.ejected.store(true, Relaxed);
        let counts = shares(&set.rebalanced(&config, Instant::now()), &Choice::default(), 3100);
        assert_eq!(counts[&address(3)], 2100);
        assert_eq!(counts[&address(1)] + counts[&address(2)], 1000);
    }

    #[test]
    fn without_hosts_in_localities_with_weights_the_others_are_chosen() {
        let mut config = cluster_config();
        config.locality_weighted = true;
        let all = in_localities(&[("a", 1, &[1]), ("b", 0, &[2])]);
        let set = HostSet::build(&config, &all, None, Instant::now());
        assert_eq!(shares(&set, &Choice::default(), 10)[&address(1)], 10);
        set.hosts[0].state.ejected.store(true, Relaxed);
        let counts = shares(&set.rebalanced(&config, Instant::now()), &Choice::default(), 10);
        assert_eq!(counts[&address(2)], 10);
    }

    #[test]
    fn degraded_hosts_are_chosen_as_far_as_healthy_ones_do_not_suffice() {
        let (config, mut endpoints) = (cluster_config(), endpoints(&[(1, 0), (2, 0), (3, 0)]));
        let degrade = |endpoints: &mut Endpoints, index: usize| {
            endpoints.localities[index].endpoints[0].health = EdsHealth::Degraded;
        };
        degrade(&mut endpoints, 2);
        let counts = |endpoints: &Endpoints| {
            let set = HostSet::build(&config, endpoints, None, Instant::now());
            shares(&set, &Choice::default(), 3000)
        };
        // Two of three are healthy: 93 %.
        let few = counts(&endpoints).get(&address(3)).copied().unwrap_or_default();
        assert!((130..310).contains(&few), "{few}");
        degrade(&mut endpoints, 0);
        degrade(&mut endpoints, 1);
        assert_eq!(counts(&endpoints).len(), 3);
    }

    #[test]
    fn hosts_that_were_tried_are_avoided_as_often_as_asked() {
        let config = cluster_config();
        let set = HostSet::build(&config, &endpoints(&[(1, 0), (2, 0)]), None, Instant::now());
        let tried = [set.hosts[0].clone()];
        let avoiding = |attempts| Choice {
            avoid: (&tried, attempts),
            ..Default::default()
        };
        assert_eq!(shares(&set, &avoiding(3), 100).get(&address(1)), None);
        assert!(shares(&set, &avoiding(0), 100).contains_key(&address(1)));
    }

    #[test]
    fn without_a_hash_consistent_hashing_goes_by_chance() {
        let mut config = cluster_config();
        config.policy = LbPolicy::Maglev { table: 251 };
        let set = HostSet::build(&config, &endpoints(&[(1, 0), (2, 0)]), None, Instant::now());
        assert_eq!(shares(&set, &Choice::default(), 200).len(), 2);
        let hashed = Choice {
            hash: Some(7),
            ..Default::default()
        };
        assert_eq!(shares(&set, &hashed, 200).len(), 1);
    }
}
