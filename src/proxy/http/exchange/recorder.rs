//! How a request ends: statistics, access logs and its span.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::Exchange;
use crate::proxy::flags::Flags;
use crate::proxy::format::Context;
use crate::proxy::http::HttpStats;
use crate::proxy::http::body::BodyError;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::route::RouteAction;
use crate::proxy::trace::export;

/// Takes down how a request ends: statistics and access logs.
#[derive(Debug)]
pub(crate) struct Recorder(pub(super) Box<Exchange>);

impl Recorder {
    /// These are the headers of the response.
    pub(crate) fn headers_sent(&mut self, headers: HeaderMap) {
        self.0.sent_headers = Some(headers);
    }

    /// A part of the body goes by, as it comes from the host.
    pub(crate) fn saw(&self, frame: &Frame<Bytes>) {
        if let Some(call) = &self.0.grpc_call {
            call.saw(frame);
        }
    }

    /// Bytes of the body went by.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.0.stream.bytes_sent += bytes as u64;
    }

    /// The response is complete. It comes back where logs ask for bytes on the wire, on which the last are not yet: then
    /// it is to be told when they are.
    pub(crate) fn ended(mut self, trailers: Option<&HeaderMap>) -> Option<Self> {
        let stream = &mut self.0.stream;
        stream.timing.downstream_last_tx = Some(stream.elapsed());
        self.0.ends();
        if self.0.stream.downstream_bytes.is_some() {
            self.0.sent_trailers = trailers.cloned().map(Box::new);
            return Some(self);
        }
        self.0.take_down(trailers);
        None
    }

    /// All of it is written.
    pub(crate) fn written(mut self) {
        let trailers = self.0.sent_trailers.take();
        self.0.take_down(trailers.as_deref());
    }

    /// The response broke off.
    pub(crate) fn broken(mut self, error: &BodyError) {
        if matches!(error, BodyError::MaxDuration) {
            let stats = &self.0.downstream.manager.stats;
            stats.rq_max_duration.fetch_add(1, Relaxed);
        }
        let (flags, details) = error.told();
        self.0.stream.blame(flags, details);
        self.0.close();
    }

    /// The client went away.
    pub(crate) fn abandoned(mut self) {
        let (flags, details) = self.0.why_abandoned();
        let Exchange { stream, downstream, .. } = &mut *self.0;
        stream.blame(flags, details);
        downstream.request_abandoned(stream.elapsed());
        downstream.manager.stats.rq_rx_reset.fetch_add(1, Relaxed);
        self.0.close();
    }
}

impl Exchange {
    /// Why the client does not get its answer: it has gone, or it has given up a stream of its connection.
    fn why_abandoned(&self) -> (Flags, &'static str) {
        let gone = (Flags::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect");
        self.interims.as_ref().and_then(Interims::reset).unwrap_or(gone)
    }

    /// Notes the route and the cluster of a request that got no further.
    fn note_route(&mut self) {
        let Some(matched) = self.matched.as_ref().filter(|_| self.stream.cluster.is_none()) else {
            return;
        };
        self.stream.route = matched.route.name.clone();
        if let RouteAction::Forward(action) = &matched.route.action {
            let (slot, _) = self.destination(action);
            self.stream.cluster = slot.and_then(|slot| slot.take());
        }
    }

    pub(super) fn close(&mut self) {
        self.ends();
        self.take_down(None);
    }

    /// It is over, and counted so.
    fn ends(&mut self) {
        self.note_route();
        let took = self.stream.elapsed();
        self.stream.timing.end = Some(took);
        if let Some(progress) = &self.progress {
            progress.note(&mut self.stream);
            // Copies that wait for the rest wait no longer.
            progress.leave();
        }
        let manager = &self.downstream.manager;
        let stats: &HttpStats = &manager.stats;
        stats.rq_active.fetch_sub(1, Relaxed);
        self.downstream.request_ends();
        stats.rq_time.record(took);
        self.count_status(self.stream.status);
        self.count_interim();
    }

    /// Counts what the host said before its answer, whatever became of that.
    fn count_interim(&mut self) {
        let Some(interims) = &self.interims else { return };
        let Some(status) = interims.heard() else { return };
        if let Some(cluster) = &self.stream.cluster {
            cluster.stats.external.count_status(status.as_u16());
        }
        if interims.are_passed_on() {
            self.count_status(status.as_u16());
            if self.stream.status == 0 {
                // It is all that the client was told.
                self.stream.status = status.as_u16();
            }
        }
    }

    /// Writes it into logs, and ends its span.
    fn take_down(&mut self, trailers: Option<&HeaderMap>) {
        let span = self.span.take();
        let manager = &self.downstream.manager;
        if !manager.access_logs.is_empty() {
            let context = self.context_at_end(trailers);
            manager.access_logs.iter().for_each(|log| log.log(&context));
        }
        if let (Some(tracing), Some(span)) = (&manager.tracing, span) {
            let (tracer, spans) = span.end(tracing, &self.context_at_end(trailers));
            export::hand_over(&self.downstream.worker, &tracer, spans);
        }
    }

    fn context_at_end<'a>(&'a self, response_trailers: Option<&'a HeaderMap>) -> Context<'a> {
        Context {
            response_trailers,
            ..self.context()
        }
    }
}
