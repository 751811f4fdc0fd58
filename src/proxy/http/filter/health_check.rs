//! `envoy.filters.http.health_check`: answers health checks itself (`pass_through_mode: false`).

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{HeaderName, HeaderValue};
use http::{StatusCode, response};

use crate::proxy::flags::Flags;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::local_reply::LocalReply;
use crate::proxy::http::route::HeaderMatch;

/// Whether health checks fail on purpose (`/healthcheck/fail`), for the whole process.
pub(crate) static FAILING: AtomicBool = AtomicBool::new(false);

const CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const FAIL_AT_ONCE: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// Which requests are health checks.
#[derive(Debug)]
pub(crate) struct HealthCheck {
    /// The cluster that this node belongs to (`node.cluster`), for `x-envoy-upstream-healthchecked-cluster`.
    pub(crate) cluster: HeaderValue,
    /// A health check matches all of these.
    pub(crate) headers: Vec<HeaderMatch>,
}

impl HealthCheck {
    /// The local reply to a health check.
    pub(super) fn request(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        let request = exchange.for_matching();
        if !self.headers.iter().all(|header| header.matches(&request)) {
            return None;
        }
        exchange.stream.health_check = true;
        Some(match FAILING.load(Ordering::Relaxed) {
            true => LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "",
                Flags::LOCAL_HEALTH,
                "health_check_failed",
            ),
            false => LocalReply::new(StatusCode::OK, "", Flags::default(), "health_check_ok"),
        })
    }

    /// Names the cluster in responses to health checks, and tells others with `x-envoy-immediate-health-check-fail`
    /// when they fail on purpose.
    pub(super) fn response(&self, exchange: &Exchange, response: &mut response::Parts) {
        if exchange.stream.health_check {
            response.headers.insert(CHECKED_CLUSTER, self.cluster.clone());
        }
        if FAILING.load(Ordering::Relaxed) {
            response.headers.insert(FAIL_AT_ONCE, HeaderValue::from_static("true"));
        }
    }
}
