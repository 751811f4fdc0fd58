//! `envoy.filters.http.local_ratelimit`: a token bucket for a route or a whole filter chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::proxy::flags::Flags;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::grpc::RESOURCE_EXHAUSTED;
use crate::proxy::http::header_ops::{HeaderOps, MessageKind};
use crate::proxy::http::local_reply::LocalReply;

/// A limit.
#[derive(Debug)]
pub(crate) struct LocalRateLimit {
    /// The bucket, shared by all workers; `None`: no limit.
    pub(crate) bucket: Option<Bucket>,
    /// Status of the local reply to requests over the limit.
    pub(crate) status: StatusCode,
    /// `filter_enabled`: the share of requests that the limit is checked for, in parts per million.
    pub(crate) enabled: u32,
    /// `filter_enforced`: the share of requests over the limit that are refused.
    pub(crate) enforced: u32,
    /// Added to the local reply.
    pub(crate) response_headers: HeaderOps,
    /// `request_headers_to_add_when_not_enforced`: added to requests over the limit that are forwarded all the same.
    pub(crate) request_headers: HeaderOps,
    /// `rate_limited_as_resource_exhausted`: gRPC status `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`.
    pub(crate) as_resource_exhausted: bool,
    /// Counters.
    pub(crate) stats: Arc<RateLimitStats>,
}

/// Counters of a limit, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct RateLimitStats {
    /// `enabled`: requests that the limit was checked for.
    pub(crate) enabled: AtomicU64,
    /// `ok`: those within the limit.
    pub(crate) ok: AtomicU64,
    /// `rate_limited`: those over it.
    pub(crate) rate_limited: AtomicU64,
    /// `enforced`: those over it that were refused.
    pub(crate) enforced: AtomicU64,
}

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    max: u32,
    per_fill: u32,
    interval: Duration,
    started: Instant,
    tokens: AtomicU32,
    /// How many intervals have been added to `tokens`.
    fills: AtomicU64,
}

impl Bucket {
    /// A full bucket of `max` tokens that gains `per_fill` every `interval`.
    pub(crate) fn new(max: u32, per_fill: u32, interval: Duration, now: Instant) -> Self {
        Self {
            max,
            per_fill,
            interval: interval.max(Duration::from_millis(1)),
            started: now,
            tokens: AtomicU32::new(max),
            fills: AtomicU64::new(0),
        }
    }

    /// Takes a token; `false` if there is none.
    pub(crate) fn take(&self, now: Instant) -> bool {
        self.fill(now);
        let one_less = |tokens: u32| tokens.checked_sub(1);
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    /// Adds the tokens that are due. Only the worker that advances `fills` adds them, so none are added twice.
    fn fill(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started).as_nanos();
        let due = u64::try_from(elapsed / self.interval.as_nanos()).unwrap_or(u64::MAX);
        let before = self.fills.fetch_max(due, Ordering::Relaxed);
        let new = u32::try_from(due.saturating_sub(before)).unwrap_or(u32::MAX);
        if new > 0 {
            let more = |tokens: u32| Some(tokens.saturating_add(new.saturating_mul(self.per_fill)).min(self.max));
            // The closure always yields a value.
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }
}

impl LocalRateLimit {
    /// Checks the limit; returns the local reply to a request over it.
    pub(super) fn request(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        let bucket = self.bucket.as_ref().filter(|_| hits(self.enabled))?;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&self.stats.enabled);
        if bucket.take(Instant::now()) {
            count(&self.stats.ok);
            return None;
        }
        count(&self.stats.rate_limited);
        if !hits(self.enforced) {
            let mut headers = std::mem::take(&mut exchange.request.headers);
            self.request_headers
                .apply(&mut headers, MessageKind::Request, &exchange.context());
            exchange.request.headers = headers;
            return None;
        }
        count(&self.stats.enforced);
        let mut reply = LocalReply::new(
            self.status,
            "local_rate_limited",
            Flags::RATE_LIMITED,
            "local_rate_limited",
        );
        self.response_headers
            .apply(&mut reply.headers, MessageKind::Response, &exchange.context());
        reply.grpc_status = self.as_resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        Some(reply)
    }
}

fn hits(per_million: u32) -> bool {
    per_million >= 1_000_000 || fastrand::u32(..1_000_000) < per_million
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_in_time_and_never_overflows() {
        let start = Instant::now();
        let bucket = Bucket::new(2, 1, Duration::from_secs(1), start);
        let take = |seconds| bucket.take(start + Duration::from_secs(seconds));
        assert!(take(0) && take(0) && !take(0));
        assert!(take(1) && !take(1));
        assert!(take(100) && take(100) && !take(100));
    }
}
