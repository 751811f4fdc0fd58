//! Bodies of requests and responses as they pass through the proxy: who produces them, what limits them, who is told.

pub(crate) mod client;
mod host;
pub(crate) mod incoming;
pub(crate) mod replay;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::exchange::Recorder;
use super::filter::grpc_stats::Messages;
use super::filter::grpc_web::Encoder;
use super::http1::Refusal;
use super::http2;
use crate::proxy::connection::Stream;
use crate::proxy::flags::Flags;
use crate::proxy::turn;
use crate::proxy::upstream::pool::Lease;
use client::ClientBody;
pub(crate) use host::BodyLimits;
use host::HostBody;
use incoming::{Incoming, PeerError};
use replay::Replay;

/// How much of a request's body has been received, shared by those who send it and those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: Cell<u64>,
    ended: Cell<Option<Instant>>,
    /// Why the body is malformed, if it is.
    refused: Cell<Option<Refusal>>,
    /// Whether it ended early, for that or another reason.
    broken: Cell<bool>,
    /// When data was last received.
    moved: Cell<Option<Instant>>,
    notify: Notify,
    /// Counts gRPC messages, if the `grpc_stats` filter is on.
    messages: Option<Messages>,
}

impl Progress {
    /// For a body of which nothing has been received.
    pub(crate) fn new(messages: Option<Messages>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }

    /// Records on the stream how many bytes were received, and when the last was.
    pub(crate) fn note(&self, stream: &mut Stream) {
        stream.bytes_received = self.bytes.get();
        if let Some(end) = self.ended.get() {
            let taken = end.into_std().saturating_duration_since(stream.start);
            stream.timing.request_received.get_or_insert(taken);
        }
    }

    /// Waits until the request is completely received. Cancel safe.
    pub(crate) async fn ended(&self) {
        let notified = self.notify.notified();
        if self.ended.get().is_none() {
            notified.await;
        }
    }

    /// Why the body is malformed, if it ended early for that.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.get()
    }

    /// Whether it ended early.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// When data was last received, if any was.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.moved.get()
    }

    /// Marks the body as completely received.
    pub(crate) fn end(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(turn::now()));
            self.notify.notify_waiters();
        }
    }

    /// Wakes those who wait for the end of a body that nobody will read to its end.
    pub(crate) fn leave(&self) {
        if self.ended.get().is_none() {
            self.broken.set(true);
            self.end();
        }
    }

    /// When the request was completely received.
    pub(crate) fn end_time(&self) -> Option<Instant> {
        self.ended.get()
    }

    fn saw(&self, frame: Option<&Result<Frame<Bytes>, BodyError>>, last: bool) {
        if let Some(Err(BodyError::Peer(PeerError::Malformed(refusal)) | BodyError::Malformed(refusal))) = frame {
            self.refused.set(Some(*refusal));
        }
        self.broken.set(frame.is_some_and(Result::is_err));
        if let Some(Ok(frame)) = frame {
            self.moved.set(Some(turn::now()));
            let len = frame.data_ref().map_or(0, Bytes::len);
            self.bytes.set(self.bytes.get() + len as u64);
            if let (Some(messages), Some(data)) = (&self.messages, frame.data_ref()) {
                messages.saw(data);
            }
        }
        if last || frame.is_none_or(Result::is_err) {
            self.end();
        }
    }
}

/// The body of an upstream request.
#[derive(Debug, Default)]
pub(crate) enum RequestBody {
    /// No body.
    #[default]
    Empty,
    /// A body made by the proxy.
    Whole(Option<Bytes>),
    /// The client's, streamed.
    Client(ClientBody, Rc<Progress>),
    /// The client's, buffered for retries or mirrors.
    Replay(Replay),
}

impl From<Bytes> for RequestBody {
    fn from(body: Bytes) -> Self {
        match body.is_empty() {
            true => RequestBody::Empty,
            false => RequestBody::Whole(Some(body)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            RequestBody::Client(body, progress) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                progress.saw(frame.as_ref(), body.is_end_stream());
                Poll::Ready(frame)
            }
            RequestBody::Replay(replay) => replay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Whole(body) => body.is_none(),
            RequestBody::Client(body, _) => body.is_end_stream(),
            RequestBody::Replay(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            RequestBody::Client(body, _) => body.size_hint(),
            RequestBody::Replay(replay) => replay.size_hint(),
        }
    }
}

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Its sender ended it early.
    #[error("the sender ended the body early: {0}")]
    Peer(#[from] PeerError),
    /// It is malformed.
    #[error("the body is not valid base64")]
    Malformed(Refusal),
    /// The route's timeout has passed.
    #[error("the response timed out")]
    Timeout,
    /// `max_stream_duration` has passed.
    #[error("the stream reached its maximum duration")]
    MaxDuration,
    /// The stream idle timeout has passed.
    #[error("the stream was idle for too long")]
    Idle,
}

impl BodyError {
    /// Response flags and `%RESPONSE_CODE_DETAILS%` for a response that ends so.
    pub(crate) fn flags_and_details(&self) -> (Flags, &'static str) {
        let protocol = (
            Flags::UPSTREAM_PROTOCOL_ERROR,
            "upstream_reset_after_response_started{protocol_error}",
        );
        let terminated = (
            Flags::UPSTREAM_CONNECTION_TERMINATION,
            "upstream_reset_after_response_started{connection_termination}",
        );
        match self {
            BodyError::Peer(PeerError::Left) => terminated,
            BodyError::Peer(error) => match error.http2() {
                None | Some(http2::Error::Broken(_)) => protocol,
                Some(http2::Error::Reset(http2::Reason::REFUSED_STREAM) | http2::Error::GoneAway(_)) => (
                    Flags::UPSTREAM_REMOTE_RESET,
                    "upstream_reset_after_response_started{remote_refused_stream_reset}",
                ),
                Some(http2::Error::Reset(_)) => (
                    Flags::UPSTREAM_REMOTE_RESET,
                    "upstream_reset_after_response_started{remote_reset}",
                ),
                Some(_) => terminated,
            },
            BodyError::Malformed(refusal) => refusal.flags_and_details(),
            BodyError::Timeout => (Flags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
            BodyError::MaxDuration => (Flags::NONE, "max_duration_timeout"),
            BodyError::Idle => (Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
        }
    }
}

/// The body of a downstream response. Dropping it, at its end or before, ends the request.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    encoder: Option<Encoder>,
    recorder: Option<Recorder>,
    /// Whether the request ends only when the last byte is written, for logs of bytes on the wire.
    until_written: bool,
    /// For local replies: the stream idle timeout, and when it ends, once the client stops reading.
    idle: Option<Duration>,
    overdue: Option<Pin<Box<Sleep>>>,
    /// The recorder, while the last bytes wait to be written.
    taken: Option<Recorder>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    Host(Box<HostBody>),
}

impl Source {
    /// Whether the response ends because the client left while it was still sending its request.
    fn is_left_by_client(&self) -> bool {
        match self {
            Source::Full(_) => false,
            Source::Host(host) => host.is_left_by_client(),
        }
    }
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body of these bytes.
    pub(crate) fn full(body: Bytes) -> Self {
        Self::of(Source::Full((!body.is_empty()).then_some(body)))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            encoder: None,
            recorder: None,
            until_written: false,
            idle: None,
            overdue: None,
            taken: None,
        }
    }

    /// The body of an upstream response; its connection returns to the pool at the end.
    pub(crate) fn host(body: Incoming, mut lease: Lease, limits: BodyLimits, progress: Rc<Progress>) -> Self {
        if body.is_end_stream() {
            host::complete(&mut lease, &progress);
            return Self::empty();
        }
        Self::of(Source::Host(Box::new(HostBody::new(body, lease, limits, progress))))
    }

    /// Leaves it to the gRPC trailers whether the response is a success.
    pub(crate) fn tells_success(&mut self) {
        if let Source::Host(host) = &mut self.source {
            host.tells_success();
        }
    }

    /// Drops a local reply's body, for HEAD and for statuses without one.
    pub(crate) fn without_own(self) -> Self {
        match self.source {
            Source::Full(_) => Self::empty(),
            Source::Host(_) => self,
        }
    }

    /// Reports the response's progress to its recorder.
    pub(crate) fn record(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Sets the stream idle timeout of a local reply; upstream bodies have theirs in [`BodyLimits`].
    pub(crate) fn idle(mut self, limit: Option<Duration>) -> Self {
        self.idle = limit.filter(|limit| !limit.is_zero());
        self
    }

    /// Defers the end of the request to [`Waiting::written`].
    pub(crate) fn until_written(mut self) -> Self {
        self.until_written = true;
        self
    }

    /// Records the response headers as sent, for access logs.
    pub(crate) fn headers_sent(&mut self, headers: HeaderMap) {
        if let Some(recorder) = &mut self.recorder {
            recorder.headers_sent(headers);
        }
    }

    /// Encodes it for a gRPC-Web client.
    pub(crate) fn encode(mut self, encoder: Encoder) -> Self {
        self.encoder = Some(encoder);
        self
    }

    /// A frame as a gRPC-Web client gets it.
    fn encoded(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(encoder) = &self.encoder else {
            return frame;
        };
        match frame.into_data() {
            Ok(data) => Frame::data(encoder.data(data)),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Frame::data(encoder.trailers(&trailers)),
                Err(frame) => frame,
            },
        }
    }

    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        if let Source::Host(host) = &mut self.source {
            host.ended();
        }
        // HTTP/1.1 and HTTP/2 write trailers last: nothing is left to wait for.
        if self.until_written && trailers.is_none() {
            return;
        }
        if let Some(recorder) = self.recorder.take() {
            self.taken = recorder.ended(trailers);
        }
    }

    fn broken(&mut self, error: &BodyError) {
        if let Source::Host(host) = &mut self.source {
            host.broken(error);
        }
        if let Some(recorder) = self.recorder.take() {
            match self.source.is_left_by_client() {
                true => recorder.abandoned(),
                false => recorder.broken(error),
            }
        }
    }
}

/// A body whose peer may stop reading.
pub(crate) trait Waiting {
    /// Waits until the peer has read nothing for too long, which ends the body. Poll it while there is no room for more
    /// data or the last data is still to be written.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The last byte is written, or nobody waits for that any more.
    fn written(&mut self);
}

impl Waiting for RequestBody {
    /// A body without a timeout of its own: the response's timeouts apply.
    fn poll_overdue(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn written(&mut self) {}
}

impl Waiting for ResponseBody {
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let error = match (&mut self.source, self.idle) {
            (Source::Host(host), _) => ready!(host.poll_late(cx)),
            (Source::Full(_), None) => return Poll::Pending,
            (Source::Full(_), Some(limit)) => {
                let overdue = self.overdue.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(overdue.as_mut().poll(cx));
                BodyError::Idle
            }
        };
        // As in Envoy, a body sent to its end is not logged as reset.
        if !self.is_end_stream() {
            self.broken(&error);
        }
        Poll::Ready(())
    }

    fn written(&mut self) {
        // A body that ended early has been recorded already.
        if std::mem::take(&mut self.until_written) && self.recorder.is_some() {
            self.ended(None);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.source {
            Source::Full(body) => body.take().map(|body| Ok(Frame::data(body))),
            Source::Host(host) => ready!(host.poll_frame(cx)),
        };
        if let (Some(Ok(frame)), Some(recorder)) = (&frame, &self.recorder) {
            recorder.saw(frame);
        }
        // Access logs count what the client gets.
        let frame = frame.map(|frame| frame.map(|frame| self.encoded(frame)));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(recorder)) = (frame.data_ref(), &mut self.recorder) {
                    recorder.sent(data.len());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.ended(Some(trailers));
                } else if self.is_end_stream() {
                    self.ended(None);
                }
            }
            Some(Err(error)) => self.broken(error),
            None => self.ended(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(body) => body.is_none(),
            Source::Host(host) => host.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            _ if self.encoder.is_some() => SizeHint::default(),
            Source::Full(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Source::Host(host) => host.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.recorder.is_some() {
            // The codec never polls a response without a body.
            if self.is_end_stream() && !self.until_written {
                self.ended(None);
            } else if let Some(recorder) = self.recorder.take() {
                recorder.abandoned();
            }
        }
        if let Some(recorder) = self.taken.take() {
            recorder.written();
        }
    }
}
