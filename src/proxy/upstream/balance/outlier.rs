//! Outlier detection: ejects failing hosts from load balancing for a while.
//!
//! Workers count the outcome of each request, and eject a host at once after too many consecutive errors. The control
//! thread evaluates all hosts once an interval, ejects those with a bad success rate or failure percentage, and returns
//! those whose time is over.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::ejections::Cause;
use crate::proxy::upstream::cluster::{Cluster, OutlierConfig};
use crate::proxy::upstream::connect::FailureKind;
use crate::proxy::upstream::host::{Host, HostState};

/// Outlier detection's state of a host.
#[derive(Debug, Default)]
pub(crate) struct OutlierState {
    /// Consecutive 5xx responses.
    pub(crate) consecutive_5xx: AtomicU32,
    /// Consecutive 502, 503 and 504 responses.
    pub(crate) consecutive_gateway: AtomicU32,
    /// Consecutive local origin failures.
    pub(crate) consecutive_local: AtomicU32,
    /// Responses in this interval.
    answers: Tally,
    /// Local origin events in this interval, if they are counted separately.
    connections: Tally,
    ejection: Mutex<Ejection>,
}

/// Successes and total of an interval.
#[derive(Debug, Default)]
struct Tally {
    good: AtomicU32,
    all: AtomicU32,
}

/// The last ejection of a host.
#[derive(Debug, Default)]
struct Ejection {
    since: Option<Instant>,
    /// Its duration as a multiple of `base_ejection_time`.
    multiple: u32,
}

/// The outcome of sending something to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A response was received.
    Status(StatusCode),
    /// No response in time.
    Timeout,
    /// Connecting or sending failed.
    Failure(FailureKind),
    /// A connection for a request was ready. The outcome of the request is another report.
    Reached,
    /// A TCP connection was established.
    Connected,
}

/// What a report counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Good,
    ServerError,
    /// A 5xx response that stands for none from the origin.
    GatewayError,
    /// A local origin success, if those are counted separately.
    Connected,
    LocalFailure,
    Nothing,
}

impl Report {
    fn seen(self, split_local: bool) -> Seen {
        match self {
            Report::Status(status) => match status.as_u16() {
                502..=504 => Seen::GatewayError,
                500.. => Seen::ServerError,
                _ => Seen::Good,
            },
            // A full circuit breaker is not the host's fault.
            Report::Failure(FailureKind::Overflow) => Seen::Nothing,
            Report::Timeout | Report::Failure(_) if split_local => Seen::LocalFailure,
            Report::Timeout | Report::Failure(_) => Seen::GatewayError,
            Report::Reached | Report::Connected if split_local => Seen::Connected,
            Report::Reached => Seen::Nothing,
            Report::Connected => Seen::Good,
        }
    }
}

impl Tally {
    fn count(&self, good: bool) {
        self.all.fetch_add(1, Relaxed);
        if good {
            self.good.fetch_add(1, Relaxed);
        }
    }

    /// Total and success percentage of the interval; starts the next.
    fn take(&self) -> Option<(u32, f64)> {
        let (good, all) = (self.good.swap(0, Relaxed), self.all.swap(0, Relaxed));
        (all > 0).then(|| (all, f64::from(good) * 100.0 / f64::from(all)))
    }
}

impl HostState {
    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.outlier.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an ejection.
    fn uneject(&self) {
        self.ejected.store(false, Relaxed);
        end(&self.outlier.consecutive_5xx);
        end(&self.outlier.consecutive_gateway);
        end(&self.outlier.consecutive_local);
    }

    /// Counts a consecutive error; `true` if that reaches the limit.
    fn fails(counter: &AtomicU32, limit: u32) -> bool {
        let reached = counter.fetch_add(1, Relaxed) + 1 == limit;
        if reached {
            // If the ejection is not enforced, counting starts again.
            counter.store(0, Relaxed);
        }
        reached
    }
}

/// Ends a series of errors. Mostly there is none, and nothing is written.
fn end(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

/// Selects one of a host's tallies.
type TallyOf = fn(&OutlierState) -> &Tally;

impl Cluster {
    /// Records the outcome of sending something to a host.
    pub(crate) fn report(&self, host: &Host, report: Report) {
        if let Some(config) = &self.config.outlier {
            self.judge(config, host, report.seen(config.split_local));
        }
    }

    fn judge(&self, config: &OutlierConfig, host: &Host, seen: Seen) {
        let state = &host.state.outlier;
        let answered = matches!(seen, Seen::Good | Seen::ServerError | Seen::GatewayError);
        if answered {
            state.answers.count(seen == Seen::Good);
        }
        if matches!(seen, Seen::Connected | Seen::LocalFailure) {
            state.connections.count(seen == Seen::Connected);
        }
        match seen {
            Seen::Good => {
                end(&state.consecutive_5xx);
                end(&state.consecutive_gateway);
            }
            Seen::ServerError | Seen::GatewayError => {
                let (limit, enforcing) = config.consecutive_gateway;
                if seen == Seen::ServerError {
                    end(&state.consecutive_gateway);
                } else if HostState::fails(&state.consecutive_gateway, limit) {
                    self.eject(config, host, Cause::ConsecutiveGateway, enforcing, Instant::now());
                }
                let (limit, enforcing) = config.consecutive_5xx;
                if HostState::fails(&state.consecutive_5xx, limit) {
                    self.eject(config, host, Cause::Consecutive5xx, enforcing, Instant::now());
                }
            }
            Seen::LocalFailure => {
                let (limit, enforcing) = config.consecutive_local;
                if HostState::fails(&state.consecutive_local, limit) {
                    self.eject(config, host, Cause::ConsecutiveLocal, enforcing, Instant::now());
                }
            }
            Seen::Connected => end(&state.consecutive_local),
            Seen::Nothing => {}
        }
    }

    /// Ejects a host, if `max_ejection_percent` allows it, with a probability of `enforcing` percent.
    fn eject(&self, config: &OutlierConfig, host: &Host, cause: Cause, enforcing: u32, now: Instant) {
        let (stats, of_cause) = (&self.stats.ejections, self.stats.ejections.of(cause));
        self.change_hosts(|set| {
            let ejected = set.hosts.iter().filter(|one| one.state.ejected.load(Relaxed)).count();
            if host.state.removed.load(Relaxed) || host.state.ejected.load(Relaxed) {
                return None;
            }
            of_cause.detected.fetch_add(1, Relaxed);
            let share = 100 * (ejected + 1);
            let allowed = share <= config.max_percent.min(100) as usize * set.hosts.len();
            let first = config.always_one && ejected == 0;
            if !(allowed || first) {
                stats.overflow.fetch_add(1, Relaxed);
                return None;
            }
            if cause.is_of_old() {
                stats.total.fetch_add(1, Relaxed);
            }
            if fastrand::u32(..100) >= enforcing {
                return None;
            }
            host.state.ejection().begin(config, now);
            host.state.ejected.store(true, Relaxed);
            of_cause.enforced.fetch_add(1, Relaxed);
            stats.enforced.fetch_add(1, Relaxed);
            self.stats.ejections_active.store(ejected as u64 + 1, Relaxed);
            tracing::debug!(cluster = %self.config.name, host = %host.address, "ejected");
            Some(set.rebalanced(&self.config, now))
        });
    }

    /// The evaluation at the end of each interval.
    pub(in crate::proxy::upstream) fn sweep_outliers(&self, config: &OutlierConfig, now: Instant) {
        self.bring_back(config, now);
        let hosts = self.hosts.load_full();
        let rate = &config.success_rate;
        let percentage = &config.failure_percentage;
        let kinds: [(TallyOf, _, _); 2] = [
            (
                |state| &state.answers,
                (Cause::SuccessRate, rate.enforcing),
                (Cause::FailurePercentage, percentage.enforcing),
            ),
            (
                |state| &state.connections,
                (Cause::SuccessRateLocal, rate.enforcing_local),
                (Cause::FailurePercentageLocal, percentage.enforcing_local),
            ),
        ];
        for (tally, of_rate, of_percentage) in kinds {
            let counted = hosts.hosts.iter().filter_map(|host| {
                let (volume, rate) = tally(&host.state.outlier).take()?;
                (!host.state.ejected.load(Relaxed)).then_some((&**host, volume, rate))
            });
            let counted: Vec<_> = counted.collect();
            for host in far_below(&counted, rate.minimum_hosts, rate.request_volume, rate.stdev_factor) {
                self.eject(config, host, of_rate.0, of_rate.1, now);
            }
            let enough: Vec<_> = counted
                .iter()
                .filter(|(_, volume, _)| *volume >= percentage.request_volume)
                .collect();
            if enough.len() < percentage.minimum_hosts as usize {
                continue;
            }
            for (host, _, rate) in enough {
                if 100.0 - rate >= f64::from(percentage.threshold) {
                    self.eject(config, host, of_percentage.0, of_percentage.1, now);
                }
            }
        }
    }

    /// Returns the hosts whose ejection time is over.
    fn bring_back(&self, config: &OutlierConfig, now: Instant) {
        self.change_hosts(|set| {
            let mut active = 0;
            let mut changed = false;
            for host in &set.hosts {
                let mut ejection = host.state.ejection();
                if !host.state.ejected.load(Relaxed) {
                    // It has behaved for an interval: the next ejection is shorter.
                    ejection.multiple = ejection.multiple.saturating_sub(1);
                } else if ejection.is_over(config, now) {
                    host.state.uneject();
                    tracing::debug!(cluster = %self.config.name, host = %host.address, "no longer ejected");
                    changed = true;
                } else {
                    active += 1;
                }
            }
            self.stats.ejections_active.store(active, Relaxed);
            changed.then(|| set.rebalanced(&self.config, now))
        });
    }
}

impl Cluster {
    /// A host was found healthy by an active check, which ends an ejection.
    pub(in crate::proxy::upstream) fn uneject(&self, host: &HostState, now: Instant) {
        let wanted = self
            .config
            .outlier
            .as_ref()
            .is_some_and(|outlier| outlier.uneject_checked);
        if !wanted || !host.ejected.load(Relaxed) {
            return;
        }
        self.change_hosts(|set| {
            host.uneject();
            let ejected = set.hosts.iter().filter(|one| one.state.ejected.load(Relaxed)).count();
            self.stats.ejections_active.store(ejected as u64, Relaxed);
            Some(set.rebalanced(&self.config, now))
        });
    }
}

impl Ejection {
    fn begin(&mut self, config: &OutlierConfig, now: Instant) {
        self.since = Some(now);
        if config.base_ejection.saturating_mul(self.multiple) < config.max_ejection + config.base_ejection {
            self.multiple += 1;
        }
    }

    fn is_over(&self, config: &OutlierConfig, now: Instant) -> bool {
        let lasts = config
            .base_ejection
            .saturating_mul(self.multiple)
            .min(config.max_ejection);
        let lasted = self
            .since
            .map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        lasted >= lasts
    }
}

/// The hosts whose success rate is more than `factor` thousandths of a standard deviation below the mean.
fn far_below<'a>(counted: &[(&'a Host, u32, f64)], minimum: u32, volume: u32, factor: u32) -> Vec<&'a Host> {
    let enough: Vec<_> = counted.iter().filter(|(_, requests, _)| *requests >= volume).collect();
    if enough.is_empty() || enough.len() < minimum as usize {
        return Vec::new();
    }
    let number = enough.len() as f64;
    let mean = enough.iter().map(|(.., rate)| rate).sum::<f64>() / number;
    let variance = enough.iter().map(|(.., rate)| (rate - mean).powi(2)).sum::<f64>() / number;
    let threshold = mean - variance.sqrt() * f64::from(factor) / 1000.0;
    let below = enough.into_iter().filter(|(.., rate)| *rate < threshold);
    below.map(|(host, ..)| *host).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proxy::upstream::balance::Choice;
    use crate::proxy::upstream::balance::testing::{cluster, cluster_config, endpoints, outlier_config as config};
    use crate::proxy::upstream::breaker::Thresholds;

    fn cluster_of(hosts: u16, outlier: OutlierConfig) -> Arc<Cluster> {
        let mut config = cluster_config();
        config.outlier = Some(outlier);
        let ports: Vec<_> = (1..=hosts).map(|port| (port, 0)).collect();
        cluster(config, &endpoints(&ports), Thresholds::default())
    }

    fn host(cluster: &Cluster, index: usize) -> Arc<Host> {
        cluster.hosts.load().hosts[index].clone()
    }

    fn is_ejected(cluster: &Cluster, index: usize) -> bool {
        host(cluster, index).state.ejected.load(Relaxed)
    }

    fn answers(cluster: &Cluster, index: usize, status: u16, times: u32) {
        let status = StatusCode::from_u16(status).unwrap();
        (0..times).for_each(|_| cluster.report(&host(cluster, index), Report::Status(status)));
    }

    #[test]
    fn a_host_that_fails_often_enough_in_a_row_is_not_chosen_any_more() {
        let cluster = cluster_of(2, config());
        answers(&cluster, 0, 500, 2);
        answers(&cluster, 0, 200, 1);
        answers(&cluster, 0, 500, 2);
        assert!(!is_ejected(&cluster, 0));
        answers(&cluster, 0, 500, 1);
        assert!(is_ejected(&cluster, 0));
        let other = host(&cluster, 1).address.clone();
        let choices = (0..20).filter_map(|_| cluster.choose(&Choice::default()));
        assert!(choices.into_iter().all(|host| host.address == other));
        assert_eq!(cluster.stats.ejections_active.load(Relaxed), 1);
    }

    #[test]
    fn gateway_errors_are_counted_by_themselves() {
        let mut outlier = config();
        outlier.consecutive_gateway = (2, 100);
        let cluster = cluster_of(2, outlier);
        answers(&cluster, 0, 503, 1);
        answers(&cluster, 0, 500, 1);
        answers(&cluster, 1, 502, 2);
        assert!(!is_ejected(&cluster, 0));
        assert!(is_ejected(&cluster, 1));
    }

    #[test]
    fn what_is_not_enforced_only_counts() {
        let mut outlier = config();
        outlier.consecutive_5xx = (3, 0);
        let cluster = cluster_of(2, outlier);
        answers(&cluster, 0, 500, 30);
        assert!(!is_ejected(&cluster, 0));
    }

    #[test]
    fn failures_to_connect_are_gateway_errors_unless_they_are_split_off() {
        let failure = Report::Failure(FailureKind::Connect);
        assert_eq!(failure.seen(false), Seen::GatewayError);
        assert_eq!(Report::Timeout.seen(true), Seen::LocalFailure);
        assert_eq!(Report::Failure(FailureKind::Overflow).seen(false), Seen::Nothing);
        let mut outlier = config();
        outlier.split_local = true;
        let cluster = cluster_of(3, outlier);
        cluster.report(&host(&cluster, 0), failure);
        cluster.report(&host(&cluster, 0), Report::Reached);
        cluster.report(&host(&cluster, 0), failure);
        assert!(!is_ejected(&cluster, 0));
        // What comes of requests is another matter.
        answers(&cluster, 0, 500, 1);
        cluster.report(&host(&cluster, 0), failure);
        assert!(is_ejected(&cluster, 0));
    }

    #[test]
    fn no_more_hosts_are_ejected_than_allowed_but_one_may_always_be() {
        let mut outlier = config();
        outlier.max_percent = 50;
        let cluster = cluster_of(4, outlier.clone());
        (0..3).for_each(|index| answers(&cluster, index, 500, 3));
        let ejected: Vec<_> = (0..4).map(|index| is_ejected(&cluster, index)).collect();
        assert_eq!(ejected, [true, true, false, false]);
        assert_eq!(cluster.stats.ejections.overflow.load(Relaxed), 1);
        outlier.max_percent = 10;
        let cluster = cluster_of(2, outlier.clone());
        answers(&cluster, 0, 500, 3);
        assert!(!is_ejected(&cluster, 0));
        outlier.always_one = true;
        let cluster = cluster_of(2, outlier);
        (0..2).for_each(|index| answers(&cluster, index, 500, 3));
        assert!(is_ejected(&cluster, 0) && !is_ejected(&cluster, 1));
    }

    #[test]
    fn ejections_last_longer_each_time_up_to_the_longest() {
        let cluster = cluster_of(2, config());
        let outlier = config();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let eject = |seconds| cluster.eject(&outlier, &host(&cluster, 0), Cause::Consecutive5xx, 100, at(seconds));
        let back = |seconds| {
            cluster.bring_back(&outlier, at(seconds));
            !is_ejected(&cluster, 0)
        };
        eject(0);
        assert!(!back(29) && back(30));
        eject(31);
        // Twice the base time would be 60 seconds.
        assert!(!back(80) && back(81));
        assert!(cluster.choose(&Choice::default()).is_some());
        // Two intervals of good behaviour.
        assert!(back(91) && back(101));
        eject(102);
        assert!(!back(131) && back(132));
    }

    #[test]
    fn a_host_far_below_the_others_is_ejected_at_the_end_of_the_interval() {
        let mut outlier = config();
        outlier.consecutive_5xx = (1000, 100);
        let cluster = cluster_of(5, outlier);
        let start = Instant::now();
        cluster.upkeep(start);
        for index in 0..5 {
            answers(&cluster, index, 200, 10);
        }
        answers(&cluster, 4, 500, 10);
        cluster.upkeep(start + Duration::from_secs(9));
        assert!(!is_ejected(&cluster, 4));
        cluster.upkeep(start + Duration::from_secs(10));
        let ejected: Vec<_> = (0..5).map(|index| is_ejected(&cluster, index)).collect();
        assert_eq!(ejected, [false, false, false, false, true]);
    }

    #[test]
    fn a_host_that_fails_too_large_a_share_is_ejected() {
        let mut outlier = config();
        outlier.consecutive_5xx = (1000, 100);
        outlier.success_rate.enforcing = 0;
        outlier.failure_percentage.enforcing = 100;
        let cluster = cluster_of(3, outlier);
        let start = Instant::now();
        cluster.upkeep(start);
        answers(&cluster, 0, 200, 10);
        answers(&cluster, 1, 500, 6);
        answers(&cluster, 1, 200, 4);
        // Too few to say anything.
        answers(&cluster, 2, 500, 4);
        cluster.upkeep(start + Duration::from_secs(10));
        let ejected: Vec<_> = (0..3).map(|index| is_ejected(&cluster, index)).collect();
        assert_eq!(ejected, [false, true, false]);
    }
}
