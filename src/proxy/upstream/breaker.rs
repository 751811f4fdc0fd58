//! Circuit breakers: limits of concurrent connections, requests and retries of a cluster, across all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The circuit breakers of a cluster, for default and high priority.
#[derive(Clone, Debug)]
pub(crate) struct Breakers {
    default: Arc<Breaker>,
    high: Arc<Breaker>,
}

/// The circuit breakers of one priority.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// `max_connections`.
    pub(crate) connections: Limit,
    /// `max_pending_requests`.
    pub(crate) pending: Limit,
    /// `max_requests`.
    pub(crate) requests: Limit,
    /// `max_retries`.
    pub(crate) retries: Limit,
    /// `retry_budget`, used instead of [`Breaker::retries`].
    pub(crate) budget: Option<RetryBudget>,
    /// `track_remaining`: whether `remaining_…` gauges are shown.
    pub(crate) tells_rest: bool,
}

/// Limits concurrent retries by the number of concurrent requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RetryBudget {
    /// `budget_percent` of active and pending requests (0 to 100).
    pub(crate) percent: f64,
    /// `min_retry_concurrency`.
    pub(crate) min_concurrency: u32,
}

/// Configured thresholds of one priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    /// `max_connections`.
    pub(crate) connections: u32,
    /// `max_pending_requests`.
    pub(crate) pending: u32,
    /// `max_requests`.
    pub(crate) requests: u32,
    /// `max_retries`.
    pub(crate) retries: u32,
    /// `retry_budget`.
    pub(crate) budget: Option<RetryBudget>,
    /// `track_remaining`.
    pub(crate) tells_rest: bool,
}

impl Default for Thresholds {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            budget: None,
            tells_rest: false,
        }
    }
}

/// A limit, and what counts against it now.
#[derive(Debug)]
pub(crate) struct Limit {
    max: u32,
    used: AtomicU32,
}

/// One unit under a limit, released when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    limit: fn(&Breaker) -> &Limit,
}

impl Breakers {
    /// Breakers with these limits.
    pub(crate) fn new(default: Thresholds, high: Thresholds) -> Self {
        Self {
            default: Arc::new(Breaker::new(default)),
            high: Arc::new(Breaker::new(high)),
        }
    }

    /// Those of a priority.
    pub(crate) fn of(&self, high: bool) -> &Arc<Breaker> {
        if high { &self.high } else { &self.default }
    }
}

impl Breaker {
    fn new(thresholds: Thresholds) -> Self {
        let limit = |max| Limit {
            max,
            used: AtomicU32::new(0),
        };
        Self {
            connections: limit(thresholds.connections),
            pending: limit(thresholds.pending),
            requests: limit(thresholds.requests),
            retries: limit(thresholds.retries),
            budget: thresholds.budget,
            tells_rest: thresholds.tells_rest,
        }
    }

    /// Takes a unit under one of the limits; `None` if it is reached.
    pub(crate) fn enter(self: &Arc<Self>, limit: fn(&Breaker) -> &Limit) -> Option<Permit> {
        limit(self).take().then(|| Permit {
            breaker: self.clone(),
            limit,
        })
    }

    /// Takes a unit under one of the limits, even beyond it.
    pub(crate) fn enter_anyway(self: &Arc<Self>, limit: fn(&Breaker) -> &Limit) -> Permit {
        limit(self).used.fetch_add(1, Ordering::Relaxed);
        Permit {
            breaker: self.clone(),
            limit,
        }
    }

    /// Takes a unit for a retry, under the budget if there is one.
    pub(crate) fn enter_retry(self: &Arc<Self>) -> Option<Permit> {
        let Some(budget) = self.budget else {
            return self.enter(|breaker| &breaker.retries);
        };
        let active = f64::from(self.requests.used()) + f64::from(self.pending.used());
        // Envoy rounds down.
        let allowed = (budget.percent / 100.0 * active).floor();
        if f64::from(self.retries.used()) >= allowed.max(f64::from(budget.min_concurrency)) {
            return None;
        }
        self.retries.used.fetch_add(1, Ordering::Relaxed);
        Some(Permit {
            breaker: self.clone(),
            limit: |breaker| &breaker.retries,
        })
    }
}

impl Limit {
    /// Units in use.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit.
    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    fn take(&self) -> bool {
        let before = self.used.fetch_add(1, Ordering::Relaxed);
        if before >= self.max {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        (self.limit)(&self.breaker).used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(thresholds: Thresholds) -> Arc<Breaker> {
        Breakers::new(thresholds, Thresholds::default()).of(false).clone()
    }

    #[test]
    fn what_is_left_is_free_again() {
        let breaker = breaker(Thresholds {
            requests: 1,
            ..Default::default()
        });
        let first = breaker.enter(|breaker| &breaker.requests);
        assert!(first.is_some());
        assert!(breaker.enter(|breaker| &breaker.requests).is_none());
        drop(first);
        assert!(breaker.enter(|breaker| &breaker.requests).is_some());
    }

    #[test]
    fn a_budget_follows_the_active_requests() {
        let budget = RetryBudget {
            percent: 50.0,
            min_concurrency: 1,
        };
        let breaker = breaker(Thresholds {
            budget: Some(budget),
            ..Default::default()
        });
        let first = breaker.enter_retry();
        assert!(first.is_some() && breaker.enter_retry().is_none());
        let requests: Vec<_> = (0..4).map(|_| breaker.enter(|breaker| &breaker.requests)).collect();
        assert!(breaker.enter_retry().is_some());
        drop(requests);
        assert!(breaker.enter_retry().is_none());
        // Two and a half are two.
        drop(first);
        let requests: Vec<_> = (0..5).map(|_| breaker.enter(|breaker| &breaker.requests)).collect();
        let retries: Vec<_> = (0..3).map(|_| breaker.enter_retry()).collect();
        assert_eq!(retries.iter().flatten().count(), 2);
        drop(requests);
    }
}
