//! The body of an upstream response, and the timeouts that end it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::incoming::{Incoming, PeerError};
use super::{BodyError, Progress};
use crate::proxy::http::grpc;
use crate::proxy::turn;
use crate::proxy::upstream::pool::Lease;

/// An upstream response body and its timeouts.
#[derive(Debug)]
pub(super) struct HostBody {
    body: Incoming,
    lease: Lease,
    limits: BodyLimits,
    /// The request, which may not be complete yet.
    progress: Rc<Progress>,
    /// When data was last received; kept only if there is an idle timeout.
    moved: Instant,
    /// Whether the gRPC status in the trailers decides if the response is a success.
    tells_success: bool,
    /// One timer for all limits. Most bodies are complete at once and need none.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Timeouts of a response body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BodyLimits {
    /// The route's `timeout`, counted from the end of the request.
    pub(crate) response: Option<Duration>,
    /// When `max_stream_duration` ends.
    pub(crate) stream: Option<Instant>,
    /// The stream idle timeout.
    pub(crate) idle: Option<Duration>,
}

impl HostBody {
    /// The body of a response whose headers have been received.
    pub(super) fn new(body: Incoming, lease: Lease, limits: BodyLimits, progress: Rc<Progress>) -> Self {
        Self {
            body,
            lease,
            limits,
            progress,
            moved: turn::now(),
            tells_success: false,
            timer: None,
        }
    }

    /// Leaves it to the gRPC trailers whether the response is a success.
    pub(super) fn tells_success(&mut self) {
        self.tells_success = true;
    }

    /// Whether the client left while it was still sending its request.
    pub(super) fn is_left_by_client(&self) -> bool {
        self.progress.is_broken() && self.progress.refused().is_none()
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Polls for the next frame, and for the timeouts.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.poll_late(cx).map(|error| Some(Err(error)));
        };
        if self.timer.is_some() {
            self.moved = Instant::now();
        }
        if self.tells_success {
            self.judge(frame.as_ref());
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Peer)))
    }

    /// Reports to the host's statistics whether the response is a success, as soon as that is known or can no longer
    /// become known.
    fn judge(&mut self, frame: Option<&Result<Frame<Bytes>, PeerError>>) {
        let trailers = match frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                None if !self.body.is_end_stream() => return,
                trailers => trailers,
            },
            Some(Err(_)) | None => None,
        };
        let status = trailers.and_then(grpc::status_in);
        self.lease
            .count_success(status.is_some_and(|status| !status.is_server_error()));
        self.tells_success = false;
    }

    /// The end was received. As in Envoy, the stream's timeouts still apply while the client reads the rest.
    pub(super) fn ended(&mut self) {
        complete(&mut self.lease, &self.progress);
        self.limits = BodyLimits {
            idle: self.limits.idle,
            ..Default::default()
        };
    }

    /// The body ended early.
    pub(super) fn broken(&mut self, error: &BodyError) {
        if std::mem::take(&mut self.tells_success) {
            self.lease.count_success(false);
        }
        match error {
            BodyError::Peer(_) => self.lease.broken(),
            BodyError::Timeout => self.lease.timed_out(),
            BodyError::Malformed(_) | BodyError::MaxDuration | BodyError::Idle => {}
        }
    }

    /// Waits for the first limit. The timer is reset only if it fires or has to fire earlier.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        loop {
            let Some((at, error)) = self.next_limit() else {
                return Poll::Pending;
            };
            if at <= Instant::now() {
                return Poll::Ready(error);
            }
            match &mut self.timer {
                Some(timer) if timer.is_elapsed() || at < timer.deadline() => timer.as_mut().reset(at),
                Some(_) => {}
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
        }
    }

    /// The limit that ends first, and when.
    fn next_limit(&self) -> Option<(Instant, BodyError)> {
        let BodyLimits { response, stream, idle } = self.limits;
        let response = response.and_then(|timeout| Some(self.progress.end_time()? + timeout));
        let idle = idle.map(|idle| self.progress.moved().max(Some(self.moved)).unwrap_or(self.moved) + idle);
        let limits = [
            (response, BodyError::Timeout),
            (stream, BodyError::MaxDuration),
            (idle, BodyError::Idle),
        ];
        let set = limits.into_iter().filter_map(|(at, error)| Some((at?, error)));
        set.min_by_key(|(at, _)| *at)
    }
}

/// Releases the connection of a complete response; its time is recorded if the request was complete, too.
pub(super) fn complete(lease: &mut Lease, request: &Progress) {
    if let Some(end) = request.end_time() {
        lease.took(turn::now().saturating_duration_since(end));
    }
    lease.finished();
}
