//! Retries: whether a request is sent again, when, and to which hosts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Response};

use super::exchange::Exchange;
use super::forward::Outcome;
use super::route::{RetryOn, RetryPolicy, Route};
use crate::proxy::flags::Flags;
use crate::proxy::http::grpc::GRPC_STATUS;
use crate::proxy::upstream::breaker::Permit;
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::connect::FailureKind;
use crate::proxy::upstream::host::Host;

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// The retry state of a request: attempts so far, and the policy for further ones (Envoy's `RetryState`).
#[derive(Debug)]
pub(super) struct Retries {
    policy: Option<Arc<RetryPolicy>>,
    left: u32,
    made: u32,
    tried: Vec<Arc<Host>>,
    /// The response flag for why there was no further retry although the policy asked for one.
    held_back: Flags,
    /// Occupies the cluster's `max_retries` while a retry is under way.
    permit: Option<Permit>,
}

impl Retries {
    /// For a new request.
    pub(super) fn new(exchange: &Exchange, policy: Option<Arc<RetryPolicy>>) -> Self {
        let allowed = |policy: &Arc<RetryPolicy>| {
            let request = exchange.for_matching();
            let asked = &policy.request_headers;
            asked.is_empty() || asked.iter().any(|header| header.matches(&request))
        };
        let policy = policy.filter(allowed);
        Self {
            left: policy.as_ref().map_or(0, |policy| policy.retries),
            policy,
            made: 0,
            tried: Vec::new(),
            held_back: Flags::NONE,
            permit: None,
        }
    }

    /// Whether another attempt is possible.
    pub(super) fn is_possible(&self) -> bool {
        self.left > 0
    }

    /// Rules out retries: part of the response has been sent to the client.
    pub(super) fn forgo(&mut self) {
        (self.policy, self.left) = (None, 0);
    }

    /// The response flag for why there was no further retry although the policy asked for one.
    pub(super) fn held_back(&self) -> Flags {
        self.held_back
    }

    /// `per_try_timeout`.
    pub(super) fn per_try_timeout(&self) -> Option<Duration> {
        self.policy.as_ref()?.per_try_timeout
    }

    /// Records a host that is being tried.
    pub(super) fn tried(&mut self, host: &Arc<Host>) {
        if self.policy.is_some() {
            self.tried.push(host.clone());
        }
    }

    /// Hosts whose priorities are to be skipped.
    pub(super) fn passed(&self) -> &[Arc<Host>] {
        let frequency = self.policy.as_ref().and_then(|policy| policy.other_priorities);
        let passed = frequency.map_or(0, |frequency| self.tried.len() / frequency.max(1) * frequency.max(1));
        &self.tried[..passed]
    }

    /// Hosts to avoid, and how many times to choose again to avoid them.
    pub(super) fn avoided(&self) -> (&[Arc<Host>], u32) {
        match self.policy.as_ref().filter(|policy| policy.other_hosts) {
            Some(policy) => (&self.tried, policy.host_attempts),
            None => (&[], 1),
        }
    }

    /// How long to wait before the next attempt; `None`: this outcome is final.
    pub(super) fn next(
        &mut self,
        cluster: &Cluster,
        route: &Route,
        outcome: &Outcome,
        repeatable: bool,
        high_priority: bool,
    ) -> Option<Duration> {
        let policy = self.policy.as_deref()?;
        self.permit = None;
        if !policy.wants(outcome) {
            if self.made > 0 {
                cluster.stats.rq_retry_success.fetch_add(1, Relaxed);
                route.count(|route| &route.rq_retry_success);
            }
            return None;
        }
        if self.left == 0 {
            self.held_back = Flags::RETRY_LIMIT_EXCEEDED;
            cluster.stats.rq_retry_limit_exceeded.fetch_add(1, Relaxed);
            route.count(|route| &route.rq_retry_limit_exceeded);
            return None;
        }
        if !repeatable {
            return None;
        }
        let Some(permit) = cluster.breakers.of(high_priority).enter_retry() else {
            self.held_back = Flags::UPSTREAM_OVERFLOW;
            cluster.stats.rq_retry_overflow.fetch_add(1, Relaxed);
            route.count(|route| &route.rq_retry_overflow);
            return None;
        };
        self.permit = Some(permit);
        self.left -= 1;
        self.made += 1;
        Some(policy.pause(self.made, fastrand::f64()))
    }
}

impl RetryPolicy {
    /// Whether the policy retries on this outcome.
    fn wants(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::NoHost(_) => false,
            Outcome::Answer(response, _) => self.wants_after(response),
            Outcome::Failed(kind, _) => self.wants_after_failure(*kind),
        }
    }

    fn wants_after<B>(&self, response: &Response<B>) -> bool {
        let (on, status) = (self.on, response.status().as_u16());
        let headers = response.headers();
        let conditions = (on.contains(RetryOn::SERVER_ERROR) && status >= 500)
            || (on.contains(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on.contains(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on.contains(RetryOn::STATUS_CODES) && self.status_codes.contains(&status))
            || (on.contains(RetryOn::HEADERS) && self.headers.iter().any(|header| header.matches_response(headers)))
            || (on.looks_at_grpc() && grpc_condition(headers).is_some_and(|condition| on.contains(condition)));
        let rate_limited = on.contains(RetryOn::RATE_LIMITED);
        // The header is looked up only if it decides.
        match conditions == rate_limited {
            true => conditions,
            false => headers.contains_key(RATE_LIMITED) == rate_limited,
        }
    }

    fn wants_after_failure(&self, kind: FailureKind) -> bool {
        let on = |conditions: &[RetryOn]| conditions.iter().any(|condition| self.on.contains(*condition));
        let any_reset = [RetryOn::SERVER_ERROR, RetryOn::GATEWAY_ERROR, RetryOn::RESET];
        match kind {
            FailureKind::Overflow => false,
            FailureKind::Connect | FailureKind::NoSocket | FailureKind::ConnectTimeout => {
                on(&any_reset) || on(&[RetryOn::CONNECT_FAILURE, RetryOn::RESET_BEFORE_REQUEST])
            }
            FailureKind::Refused => on(&any_reset) || on(&[RetryOn::REFUSED_STREAM]),
            FailureKind::Reset | FailureKind::RemoteReset | FailureKind::PerTryTimeout | FailureKind::Protocol => {
                on(&any_reset)
            }
        }
    }

    /// Envoy's fully jittered exponential back-off: `random` in 0..1 picks a time up to the base interval, doubled with
    /// each retry up to the maximum.
    fn pause(&self, number: u32, random: f64) -> Duration {
        let factor = 1_u32
            .checked_shl(number.min(31))
            .unwrap_or(u32::MAX)
            .saturating_sub(1)
            .max(1);
        let longest = self.base_interval.saturating_mul(factor).min(self.max_interval);
        longest.mul_f64(random)
    }
}

/// The retry condition for a gRPC status in the headers.
fn grpc_condition(headers: &HeaderMap) -> Option<RetryOn> {
    Some(match headers.get(GRPC_STATUS)?.as_bytes() {
        b"1" => RetryOn::GRPC_CANCELLED,
        b"4" => RetryOn::GRPC_DEADLINE_EXCEEDED,
        b"8" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        b"13" => RetryOn::GRPC_INTERNAL,
        b"14" => RetryOn::GRPC_UNAVAILABLE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &str) -> RetryPolicy {
        RetryPolicy {
            on: RetryOn::parse(on),
            retries: 2,
            per_try_timeout: None,
            status_codes: vec![418],
            headers: Vec::new(),
            request_headers: Vec::new(),
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            other_priorities: None,
            other_hosts: false,
            host_attempts: 1,
        }
    }

    fn answers(on: &str, status: u16, header: Option<(&'static str, &'static str)>) -> bool {
        let mut response = Response::builder().status(status);
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        policy(on).wants_after(&response.body(()).unwrap())
    }

    #[test]
    fn statuses_are_retried_as_the_words_say() {
        assert!(answers("5xx", 500, None) && !answers("5xx", 404, None));
        assert!(answers("gateway-error", 503, None) && !answers("gateway-error", 500, None));
        assert!(answers("retriable-4xx", 409, None));
        assert!(answers("retriable-status-codes", 418, None));
        assert!(answers("connect-failure,unavailable", 200, Some(("grpc-status", "14"))));
        assert!(!answers("unavailable", 200, Some(("grpc-status", "0"))));
        assert!(answers("5xx", 503, Some(("x-envoy-overloaded", "true"))));
        assert!(!answers("5xx", 503, Some(("x-envoy-ratelimited", "true"))));
    }

    #[test]
    fn failures_are_retried_as_the_words_say() {
        let fails = |on: &str, kind| policy(on).wants_after_failure(kind);
        assert!(fails("connect-failure", FailureKind::Connect));
        assert!(!fails("connect-failure", FailureKind::Reset));
        assert!(fails("reset", FailureKind::PerTryTimeout));
        assert!(fails("refused-stream", FailureKind::Refused));
        assert!(!fails("5xx", FailureKind::Overflow));
    }

    #[test]
    fn pauses_grow_up_to_the_limit() {
        let policy = policy("5xx");
        let longest: Vec<_> = (1..6).map(|number| policy.pause(number, 1.0).as_millis()).collect();
        assert_eq!(longest, [25, 75, 175, 250, 250]);
        assert_eq!(policy.pause(3, 0.0), Duration::ZERO);
    }
}
