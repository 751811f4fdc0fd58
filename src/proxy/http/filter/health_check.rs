//! `envoy.filters.http.health_check`: answers health checks by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;

use crate::proxy::flags::Flags;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::local_reply::LocalReply;
use crate::proxy::http::route::HeaderMatch;

/// Whether health checks fail on purpose (`/healthcheck/fail`).
pub(crate) static FAILING: AtomicBool = AtomicBool::new(false);

/// Which requests are health checks.
#[derive(Debug)]
pub(crate) struct HealthCheck {
    /// All of these have to match.
    pub(crate) headers: Vec<HeaderMatch>,
}

impl HealthCheck {
    /// Answers a health check.
    pub(super) fn request(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        let request = exchange.for_matching();
        if !self.headers.iter().all(|header| header.matches(&request)) {
            return None;
        }
        exchange.stream.health_check = true;
        let status = match FAILING.load(Ordering::Relaxed) {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::OK,
        };
        Some(LocalReply::new(status, "", Flags::default(), "health_check_ok"))
    }
}
