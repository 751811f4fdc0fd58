//! Slow start: new hosts get less load at first (`slow_start_config`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proxy::upstream::cluster::SlowStart;
use crate::proxy::upstream::host::Host;

impl SlowStart {
    /// The share of its weight that a host has now.
    pub(super) fn share(&self, host: &Host, now: Instant) -> f64 {
        match self.age(host, now) {
            Some(age) => {
                let time = age.max(Duration::from_millis(1)).as_secs_f64() / self.window.as_secs_f64();
                time.powf(1.0 / self.aggression).clamp(self.least, 1.0)
            }
            None => 1.0,
        }
    }

    /// When the last of these hosts leaves slow start; `None` if none is in it.
    pub(in crate::proxy::upstream) fn end(&self, hosts: &[Arc<Host>], now: Instant) -> Option<Instant> {
        let youngest = hosts.iter().filter_map(|host| self.age(host, now)).min()?;
        now.checked_add(self.window.saturating_sub(youngest))
    }

    /// How long a host has been healthy, if it is in slow start.
    fn age(&self, host: &Host, now: Instant) -> Option<Duration> {
        let since = host.healthy_since()?;
        Some(now.saturating_duration_since(since)).filter(|age| *age < self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::balance::Choice;
    use crate::proxy::upstream::balance::testing::{address, cluster, cluster_config, endpoints};
    use crate::proxy::upstream::cluster::{Cluster, ClusterConfig, LbPolicy};
    use crate::proxy::upstream::host::{EdsHealth, HostSet};

    const WINDOW: Duration = Duration::from_secs(100);

    fn config(policy: LbPolicy, aggression: f64) -> ClusterConfig {
        ClusterConfig {
            policy,
            slow_start: Some(SlowStart {
                window: WINDOW,
                aggression,
                least: 0.1,
            }),
            ..cluster_config()
        }
    }

    /// A cluster that has had its first host for longer than the window, and its second for so long.
    fn grown(policy: LbPolicy, age: Duration) -> Arc<Cluster> {
        let now = Instant::now();
        let long_ago = now.checked_sub(WINDOW * 2).unwrap();
        let cluster = cluster(config(policy, 1.0), &endpoints(&[]), Default::default());
        cluster.put_endpoints(&endpoints(&[(1, 0)]), long_ago);
        cluster.put_endpoints(&endpoints(&[(1, 0), (2, 0)]), now.checked_sub(age).unwrap());
        cluster
    }

    fn new_ones(cluster: &Cluster, times: usize) -> usize {
        let picks = (0..times).filter_map(|_| cluster.choose(&Choice::default()));
        picks.filter(|host| host.address == address(2)).count()
    }

    #[test]
    fn the_share_of_a_new_host_grows_with_time_and_never_is_less_than_the_least() {
        let now = Instant::now();
        for (aggression, after, wanted) in [
            (1.0, 0, 0.1),
            (1.0, 5, 0.1),
            (1.0, 50, 0.5),
            (1.0, 100, 1.0),
            (1.0, 1000, 1.0),
            // The square root: it grows fast at first.
            (2.0, 25, 0.5),
            // The square: slowly at first.
            (0.5, 50, 0.25),
        ] {
            let config = config(LbPolicy::RoundRobin, aggression);
            let set = HostSet::build(&config, &endpoints(&[(1, 0)]), None, now);
            let share = config.slow_start.unwrap();
            let share = share.share(&set.hosts[0], now + Duration::from_secs(after));
            assert!((share - wanted).abs() < 1e-9, "{aggression} {after}: {share}");
        }
    }

    #[test]
    fn new_hosts_get_their_share_of_turns() {
        for policy in [LbPolicy::RoundRobin, LbPolicy::LeastRequest { choices: 2 }] {
            // Half of its weight beside a whole one: a third of all, give or take what the clock moves on.
            let share = new_ones(&grown(policy, WINDOW / 2), 3000);
            assert!((990..1300).contains(&share), "{policy:?}: {share}");
            let share = new_ones(&grown(policy, Duration::ZERO), 1100);
            assert!((95..300).contains(&share), "{policy:?}: {share}");
        }
    }

    #[test]
    fn once_all_hosts_are_old_they_take_turns_as_ever() {
        let cluster = grown(LbPolicy::RoundRobin, Duration::ZERO);
        let settled = cluster.hosts.load().settled.unwrap();
        cluster.upkeep(settled - Duration::from_secs(1));
        assert_eq!(cluster.hosts.load().settled, Some(settled));
        cluster.upkeep(settled);
        assert_eq!(cluster.hosts.load().settled, None);
        assert_eq!(new_ones(&cluster, 100), 50);
    }

    #[test]
    fn a_host_that_is_not_healthy_is_not_new_yet() {
        let now = Instant::now();
        let mut all = endpoints(&[(1, 0)]);
        all.localities[0].endpoints[0].health = EdsHealth::Unhealthy;
        let config = config(LbPolicy::RoundRobin, 1.0);
        let sick = HostSet::build(&config, &all, None, now);
        assert_eq!(sick.settled, None);
        let later = now + WINDOW * 3;
        let well = HostSet::build(&config, &endpoints(&[(1, 0)]), Some(&sick), later);
        assert_eq!(well.settled, Some(later + WINDOW));
    }
}
