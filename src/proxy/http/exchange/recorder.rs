//! The end of a request: statistics, access logs and its span.

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

/// Follows a response to its end, and records how the request ended.
#[derive(Debug)]
pub(crate) struct Recorder(pub(super) Box<Exchange>);

impl Recorder {
    /// Keeps the response headers as sent.
    pub(crate) fn headers_sent(&mut self, headers: HeaderMap) {
        self.0.sent_headers = Some(headers);
    }

    /// Counts the gRPC messages or the gRPC status in a frame received from the host.
    pub(crate) fn saw(&self, frame: &Frame<Bytes>) {
        if let Some(call) = &self.0.grpc_call {
            call.saw(frame);
        }
        if let (Some(call), Some(trailers)) = (&self.0.grpc_web, frame.trailers_ref()) {
            call.charge(trailers);
        }
    }

    /// Counts bytes of the response body.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.0.stream.bytes_sent += bytes as u64;
    }

    /// The response is complete. Returns the recorder if access logs need bytes on the wire: [`Recorder::written`] is
    /// then to be called when the last byte is written.
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

    /// The last byte is written.
    pub(crate) fn written(mut self) {
        let trailers = self.0.sent_trailers.take();
        self.0.take_down(trailers.as_deref());
    }

    /// The response ended early.
    pub(crate) fn broken(mut self, error: &BodyError) {
        if matches!(error, BodyError::MaxDuration) {
            let stats = &self.0.downstream.manager.stats;
            stats.rq_max_duration.fetch_add(1, Relaxed);
        }
        let (flags, details) = error.flags_and_details();
        self.0.stream.blame(flags, details);
        self.0.close();
    }

    /// The client closed its connection or reset the stream.
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
    /// Flags and details of a request that the client abandoned: it closed the connection, or reset the stream.
    fn why_abandoned(&self) -> (Flags, &'static str) {
        let gone = (Flags::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect");
        self.interims.as_ref().and_then(Interims::reset).unwrap_or(gone)
    }

    /// Sets route and cluster for a request that never reached the router.
    fn note_route(&mut self) {
        let Some(matched) = self.matched.as_ref().filter(|_| self.stream.cluster.is_none()) else {
            return;
        };
        self.stream.route = matched.route.name.clone();
        if let RouteAction::Forward(action) = &matched.route.action {
            let (slot, _) = self.destination(action);
            self.stream.cluster = slot.and_then(|slot| slot.load_full());
        }
    }

    pub(super) fn close(&mut self) {
        self.ends();
        self.take_down(None);
    }

    /// Updates the statistics at the end of the request.
    fn ends(&mut self) {
        self.note_route();
        let took = self.stream.elapsed();
        self.stream.timing.end = Some(took);
        if let Some(progress) = &self.progress {
            progress.note(&mut self.stream);
            // Mirrored copies do not wait for the rest of the body.
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

    /// Counts an interim response of the host.
    fn count_interim(&mut self) {
        let Some(interims) = &self.interims else { return };
        let Some(status) = interims.heard() else { return };
        if let Some(cluster) = &self.stream.cluster {
            cluster.stats.external.count_status(status.as_u16());
        }
        if interims.are_passed_on() {
            self.count_status(status.as_u16());
            if self.stream.status == 0 {
                // The client was sent nothing else.
                self.stream.status = status.as_u16();
            }
        }
    }

    /// Writes the access logs and ends the span.
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
