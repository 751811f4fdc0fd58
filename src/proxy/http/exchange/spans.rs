//! The spans of a request and of its attempts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Exchange;
use crate::proxy::http::HttpManager;
use crate::proxy::trace::Tracing;
use crate::proxy::trace::decision::Reason;
use crate::proxy::trace::span::{ActiveSpan, Beginning, Failure};
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::host::Host;

impl Exchange {
    /// Decides whether the request is traced, and starts its span.
    pub(super) fn trace(&mut self, tracing: &Tracing, manager: &HttpManager) {
        let route = self.matched.as_ref().and_then(|matched| matched.route.tracing.clone());
        let sampling = route.as_ref().and_then(|route| route.sampling.as_ref());
        let sampling = sampling.unwrap_or(&tracing.sampling);
        let reason = sampling.decide(&mut self.request.headers, &manager.request_id, self.random);
        let stats = &manager.stats.tracing;
        let counter = match reason {
            Reason::NotTraceable => &stats.not_traceable,
            Reason::Sampling => &stats.random_sampling,
            Reason::ServiceForced => &stats.service_forced,
            Reason::ClientForced => &stats.client_enabled,
        };
        counter.fetch_add(1, Relaxed);
        self.stream.trace_forced = reason == Reason::ServiceForced;
        let Some(tracer) = &tracing.tracer else {
            return;
        };
        let beginning = Beginning {
            request: &mut self.request,
            authority: &self.authority,
            scheme: self.scheme,
            grpc: self.grpc,
            connection: &self.downstream.connection,
            time: self.stream.start_time,
            route,
        };
        self.span = ActiveSpan::begin(tracing, tracer, reason, beginning).map(Box::new);
        self.stream.trace_id = self.span.as_ref().map(|span| span.trace_id());
    }

    /// Starts the span of an attempt, if attempts have spans of their own.
    pub(crate) fn trace_attempt(&mut self, cluster: &Arc<Cluster>, host: &Arc<Host>) {
        let tracing = self.downstream.manager.tracing.as_ref();
        if let (Some(tracing), Some(span)) = (tracing.filter(|tracing| tracing.upstream_spans), &mut self.span) {
            let retries = self.stream.attempts.saturating_sub(1);
            span.attempt(tracing, cluster, host, retries, &mut self.request.headers);
        }
    }

    /// Ends the span of an attempt that brought no complete response.
    pub(crate) fn trace_attempt_over(&mut self, failure: Failure) {
        let Some(mut span) = self.span.take() else {
            return;
        };
        if let Some(tracing) = &self.downstream.manager.tracing {
            span.attempt_over(tracing, failure, &self.context());
        }
        self.span = Some(span);
    }
}
