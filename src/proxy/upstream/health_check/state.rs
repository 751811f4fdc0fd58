//! The health of a host by its checks, and what it means for the cluster.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{CheckTarget, Failure, HealthCheck, Outcome, Passed};
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::host::{Host, HostAddress};

/// The health of a host by its checks. It belongs to one version of a cluster: the next checks its hosts anew before it
/// becomes live.
#[derive(Debug)]
pub(crate) struct Checked {
    config: Arc<HealthCheck>,
    target: Option<Arc<CheckTarget>>,
    /// Where the host is checked.
    pub(crate) address: HostAddress,
    flags: Flags,
    progress: Mutex<Progress>,
    created: Instant,
    /// When it last became healthy, in milliseconds since it was created; `u64::MAX`: never.
    passed: AtomicU64,
}

/// Envoy's health flags.
#[derive(Debug)]
struct Flags {
    /// `failed_active_hc`.
    failed: AtomicBool,
    /// `degraded_active_hc`.
    degraded: AtomicBool,
    /// `active_hc_timeout`.
    timeout: AtomicBool,
    /// `pending_active_hc`.
    pending: AtomicBool,
    /// `excluded_via_immediate_hc_fail`.
    excluded: AtomicBool,
    /// `pending_dynamic_removal`.
    leaving: AtomicBool,
}

/// Results in a row.
#[derive(Debug, Default)]
struct Progress {
    /// Whether there was a result yet.
    begun: bool,
    healthy: u32,
    unhealthy: u32,
}

/// What a result changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Nothing yet: a threshold is not reached.
    Pending,
    /// The health of the host.
    Changed,
}

impl Checked {
    /// A host at this address, of which nothing is known yet: as in Envoy, it has failed.
    pub(crate) fn new(config: &Arc<HealthCheck>, host: &HostAddress, target: Option<Arc<CheckTarget>>) -> Self {
        Self {
            address: address(host, target.as_deref()),
            target,
            flags: Flags {
                failed: true.into(),
                degraded: false.into(),
                timeout: false.into(),
                pending: config.ignores_new.into(),
                excluded: false.into(),
                leaving: false.into(),
            },
            config: config.clone(),
            progress: Mutex::default(),
            created: Instant::now(),
            passed: AtomicU64::new(u64::MAX),
        }
    }

    /// Whether it is the state of a host of this version of the cluster.
    pub(crate) fn is_of(&self, config: &Arc<HealthCheck>) -> bool {
        Arc::ptr_eq(&self.config, config)
    }

    /// Whether the host is checked in this way.
    pub(crate) fn is_for(&self, target: Option<&CheckTarget>) -> bool {
        self.target.as_deref() == target
    }

    /// How the host is checked.
    pub(super) fn config(&self) -> &HealthCheck {
        &self.config
    }

    /// `health_check_config.hostname`.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.target.as_ref()?.hostname.as_deref()
    }

    /// Whether it is unhealthy.
    pub(crate) fn failed(&self) -> bool {
        self.flags.failed.load(Relaxed)
    }

    /// Whether it is degraded.
    pub(crate) fn degraded(&self) -> bool {
        self.flags.degraded.load(Relaxed)
    }

    /// Whether its last check reached its timeout while it was unhealthy.
    pub(crate) fn timed_out(&self) -> bool {
        self.flags.timeout.load(Relaxed)
    }

    /// Whether it waits for its first check and does not count before (`ignore_new_hosts_until_first_hc`).
    pub(crate) fn pending(&self) -> bool {
        self.flags.pending.load(Relaxed)
    }

    /// Whether it told that it is to be left out (`x-envoy-immediate-health-check-fail`).
    pub(crate) fn excluded(&self) -> bool {
        self.flags.excluded.load(Relaxed)
    }

    /// Whether discovery has removed it, and it stays until it fails.
    pub(crate) fn leaving(&self) -> bool {
        self.flags.leaving.load(Relaxed)
    }

    /// Sets whether discovery has removed it.
    pub(crate) fn set_leaving(&self, leaving: bool) {
        self.flags.leaving.store(leaving, Relaxed);
    }

    /// Whether there was a result.
    pub(crate) fn has_begun(&self) -> bool {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).begun
    }

    /// When it last became healthy, from which slow start counts.
    pub(crate) fn healthy_since(&self) -> Option<Instant> {
        let passed = self.passed.load(Relaxed);
        (passed != u64::MAX).then(|| self.created + Duration::from_millis(passed))
    }

    /// Records a result.
    fn record(&self, outcome: Outcome, now: Instant) -> Change {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match outcome {
            Ok(passed) => self.succeed(&mut progress, passed, now),
            Err(failure) => self.fail(&mut progress, failure),
        };
        progress.begun = true;
        match self.flags.pending.swap(false, Relaxed) {
            true => Change::Changed,
            false => change,
        }
    }

    fn succeed(&self, progress: &mut Progress, passed: Passed, now: Instant) -> Change {
        progress.unhealthy = 0;
        let mut change = Change::None;
        if self.failed() {
            progress.healthy += 1;
            // The first result counts at once.
            if !progress.begun || progress.healthy == self.config.healthy_threshold {
                let flags = [&self.flags.timeout, &self.flags.excluded, &self.flags.failed];
                flags.iter().for_each(|flag| flag.store(false, Relaxed));
                let age = now.saturating_duration_since(self.created).as_millis();
                self.passed.store(u64::try_from(age).unwrap_or(u64::MAX - 1), Relaxed);
                change = Change::Changed;
            } else {
                change = Change::Pending;
            }
        }
        let degraded = passed == Passed::Degraded;
        let differs = self.flags.degraded.swap(degraded, Relaxed) != degraded;
        match change {
            Change::None if differs => Change::Changed,
            change => change,
        }
    }

    fn fail(&self, progress: &mut Progress, failure: Failure) -> Change {
        progress.healthy = 0;
        if failure.is_immediate() {
            self.flags.excluded.store(true, Relaxed);
        }
        let change = match self.failed() {
            true => Change::None,
            false => {
                let at_once = !failure.is_of_network() && !failure.is_retriable();
                progress.unhealthy += u32::from(!at_once);
                match at_once || progress.unhealthy == self.config.unhealthy_threshold {
                    true => {
                        self.flags.failed.store(true, Relaxed);
                        Change::Changed
                    }
                    false => Change::Pending,
                }
            }
        };
        let timeout = failure == Failure::Timeout && self.failed();
        self.flags.timeout.store(timeout, Relaxed);
        change
    }
}

impl Failure {
    fn is_of_network(self) -> bool {
        matches!(self, Failure::Network | Failure::Timeout)
    }

    fn is_retriable(self) -> bool {
        matches!(self, Failure::Response { retriable: true, .. })
    }

    fn is_immediate(self) -> bool {
        matches!(self, Failure::Passive | Failure::Response { immediate: true, .. })
    }
}

/// Where a host at this address is checked.
fn address(host: &HostAddress, target: Option<&CheckTarget>) -> HostAddress {
    let own = target.and_then(|target| target.address.as_ref()).unwrap_or(host);
    match (own, target.and_then(|target| target.port)) {
        (HostAddress::Ip(address), Some(port)) => HostAddress::Ip((address.ip(), port).into()),
        _ => own.clone(),
    }
}

impl Cluster {
    /// Whether every host that is checked has had a result, for which warming waits.
    pub(crate) fn is_checked(&self) -> bool {
        let set = self.hosts.load();
        let mut checked = set.hosts.iter().filter_map(|host| host.checked.as_ref());
        checked.all(|checked| checked.has_begun())
    }

    /// Records the result of a check.
    pub(super) fn checked(&self, host: &Host, checked: &Checked, outcome: Outcome) -> Change {
        let stats = &self.stats.health_checks;
        match outcome {
            Ok(_) => stats.success.fetch_add(1, Relaxed),
            Err(_) => stats.failure.fetch_add(1, Relaxed),
        };
        match outcome {
            Err(Failure::Network | Failure::Timeout) => drop(stats.network_failure.fetch_add(1, Relaxed)),
            Err(Failure::Passive) => drop(stats.passive_failure.fetch_add(1, Relaxed)),
            Ok(_) | Err(Failure::Response { .. }) => {}
        }
        let now = Instant::now();
        let change = checked.record(outcome, now);
        if change == Change::Changed {
            tracing::debug!(cluster = %self.config.name, host = %host.address, ?outcome, "the health of a host has changed");
            self.change_hosts(|set| Some(set.rebalanced(&self.config, now)));
        }
        if outcome.is_ok() && !checked.failed() {
            self.uneject(&host.state, now);
        }
        change
    }

    /// A host told with a response to a client that it is to be left out (`x-envoy-immediate-health-check-fail`).
    pub(crate) fn fails_at_once(&self, host: &Host) {
        if let Some(checked) = &host.checked {
            self.checked(host, checked, Err(Failure::Passive));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::balance::Choice;
    use crate::proxy::upstream::balance::testing::{
        address, check, checked_config, cluster, endpoints, outlier_config,
    };
    use crate::proxy::upstream::cluster::Discovery;

    const FAILED: Outcome = Err(Failure::Response {
        retriable: false,
        immediate: false,
    });
    const RETRIABLE: Outcome = Err(Failure::Response {
        retriable: true,
        immediate: false,
    });

    fn checked() -> Checked {
        Checked::new(&Arc::new(check()), &address(1), None)
    }

    fn record(checked: &Checked, outcome: Outcome) -> Change {
        checked.record(outcome, Instant::now())
    }

    #[test]
    fn the_first_result_counts_at_once() {
        let healthy = checked();
        assert!(healthy.failed() && !healthy.has_begun());
        assert_eq!(record(&healthy, Ok(Passed::Healthy)), Change::Changed);
        assert!(!healthy.failed() && healthy.has_begun());
        let failing = checked();
        assert_eq!(record(&failing, Err(Failure::Network)), Change::None);
        assert!(failing.failed() && failing.has_begun());
    }

    #[test]
    fn thresholds_are_of_results_in_a_row() {
        let checked = checked();
        record(&checked, Ok(Passed::Healthy));
        let network = Err(Failure::Network);
        assert_eq!(record(&checked, network), Change::Pending);
        assert_eq!(record(&checked, Ok(Passed::Healthy)), Change::None);
        assert_eq!(record(&checked, RETRIABLE), Change::Pending);
        assert_eq!(record(&checked, network), Change::Changed);
        assert_eq!(record(&checked, Ok(Passed::Healthy)), Change::Pending);
        assert_eq!(record(&checked, network), Change::None);
        assert_eq!(record(&checked, Ok(Passed::Healthy)), Change::Pending);
        assert_eq!(record(&checked, Ok(Passed::Healthy)), Change::Changed);
        // A response that is not the expected one counts at once.
        assert_eq!(record(&checked, FAILED), Change::Changed);
        assert!(checked.failed());
    }

    #[test]
    fn flags_come_and_go_with_results() {
        let checked = checked();
        record(&checked, Err(Failure::Timeout));
        assert!(checked.timed_out());
        record(&checked, FAILED);
        assert!(!checked.timed_out());
        record(&checked, Err(Failure::Passive));
        record(&checked, Err(Failure::Timeout));
        assert!(checked.timed_out() && checked.excluded());
        record(&checked, Ok(Passed::Degraded));
        assert!(checked.failed() && checked.degraded() && checked.timed_out());
        record(&checked, Ok(Passed::Degraded));
        assert!(!checked.failed() && checked.degraded() && !checked.timed_out() && !checked.excluded());
        assert_eq!(record(&checked, Ok(Passed::Healthy)), Change::Changed);
        assert!(!checked.degraded());
    }

    #[test]
    fn a_port_or_an_address_of_its_own_is_checked() {
        let at = |target: &CheckTarget| super::address(&address(1), Some(target));
        let mut target = CheckTarget::default();
        assert_eq!(at(&target), address(1));
        target.port = Some(2);
        assert_eq!(at(&target), address(2));
        target.address = Some(HostAddress::Ip(([127, 0, 0, 9], 3).into()));
        assert_eq!(at(&target), HostAddress::Ip(([127, 0, 0, 9], 2).into()));
    }

    /// A cluster whose hosts discovery may remove.
    fn discovered(ports: &[(u16, u32)]) -> Arc<Cluster> {
        let mut config = checked_config();
        config.discovery = Discovery::Eds("a".into());
        config.panic_threshold = 0.0;
        cluster(config, &endpoints(ports), Default::default())
    }

    fn finds(cluster: &Cluster, index: usize, outcome: Outcome) {
        let host = cluster.hosts.load().hosts[index].clone();
        cluster.checked(&host, host.checked.as_ref().unwrap(), outcome);
    }

    fn ports(cluster: &Cluster) -> Vec<HostAddress> {
        cluster
            .hosts
            .load()
            .hosts
            .iter()
            .map(|host| host.address.clone())
            .collect()
    }

    #[test]
    fn only_hosts_that_pass_are_chosen() {
        let cluster = discovered(&[(1, 0), (2, 0)]);
        assert!(!cluster.is_checked());
        finds(&cluster, 0, FAILED);
        assert!(!cluster.is_checked() && cluster.choose(&Choice::default()).is_none());
        finds(&cluster, 1, Ok(Passed::Healthy));
        assert!(cluster.is_checked());
        let chosen = (0..20).filter_map(|_| cluster.choose(&Choice::default()));
        assert!(chosen.into_iter().all(|host| host.address == address(2)));
        let host = cluster.hosts.load().hosts[1].clone();
        cluster.fails_at_once(&host);
        assert!(cluster.choose(&Choice::default()).is_none());
        assert_eq!(cluster.stats.health_checks.passive_failure.load(Relaxed), 1);
    }

    #[test]
    fn what_is_excluded_does_not_count_for_priorities() {
        let cluster = discovered(&[(1, 0), (2, 0), (3, 1)]);
        finds(&cluster, 0, Ok(Passed::Healthy));
        finds(&cluster, 1, FAILED);
        finds(&cluster, 2, Ok(Passed::Healthy));
        let spills = |cluster: &Cluster| {
            let chosen = (0..200).filter_map(|_| cluster.choose(&Choice::default()));
            chosen.into_iter().any(|host| host.address == address(3))
        };
        assert!(spills(&cluster), "half of the first priority is gone");
        finds(&cluster, 1, Ok(Passed::Healthy));
        finds(&cluster, 1, Ok(Passed::Healthy));
        finds(&cluster, 1, Err(Failure::Passive));
        assert!(!spills(&cluster));
    }

    #[test]
    fn a_healthy_host_stays_without_its_endpoint_until_it_fails() {
        let cluster = discovered(&[(1, 0), (2, 0)]);
        let now = Instant::now();
        finds(&cluster, 0, Ok(Passed::Healthy));
        finds(&cluster, 1, FAILED);
        cluster.put_endpoints(&endpoints(&[(3, 0)]), now);
        assert_eq!(ports(&cluster), [address(3), address(1)]);
        let leaving = cluster.hosts.load().hosts[1].clone();
        assert!(leaving.checked.as_ref().unwrap().leaving() && leaving.healthy());
        // Its endpoint comes back, and goes again.
        cluster.put_endpoints(&endpoints(&[(1, 0)]), now);
        assert!(!leaving.checked.as_ref().unwrap().leaving());
        cluster.put_endpoints(&endpoints(&[]), now);
        assert_eq!(ports(&cluster), [address(1)]);
        finds(&cluster, 0, FAILED);
        assert!(ports(&cluster).is_empty());
        assert!(leaving.state.removed.load(Relaxed));
    }

    #[test]
    fn an_ejected_host_that_passes_is_no_longer_ejected() {
        let mut config = checked_config();
        config.outlier = Some(outlier_config());
        let cluster = cluster(config, &endpoints(&[(1, 0)]), Default::default());
        finds(&cluster, 0, Ok(Passed::Healthy));
        let host = cluster.hosts.load().hosts[0].clone();
        host.state.ejected.store(true, Relaxed);
        finds(&cluster, 0, Ok(Passed::Healthy));
        assert!(!host.state.ejected.load(Relaxed));
    }
}
