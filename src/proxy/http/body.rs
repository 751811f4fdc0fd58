//! Bodies on their way through.

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

/// How far the body of a request has come from the client.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: Cell<u64>,
    ended: Cell<Option<Instant>>,
    /// What is wrong with the client's body.
    refused: Cell<Option<Refusal>>,
    /// Whether it broke off, for that or anything else.
    broken: Cell<bool>,
    /// When something came last.
    moved: Cell<Option<Instant>>,
    notify: Notify,
    /// Counts messages, where it is of a call of gRPC.
    messages: Option<Messages>,
}

impl Progress {
    /// Nothing has come yet.
    pub(crate) fn new(messages: Option<Messages>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }

    /// Notes on the stream how much has come, and when all had.
    pub(crate) fn note(&self, stream: &mut Stream) {
        stream.bytes_received = self.bytes.get();
        if let Some(end) = self.ended.get() {
            let taken = end.into_std().saturating_duration_since(stream.start);
            stream.timing.request_received.get_or_insert(taken);
        }
    }

    /// Waits until the client has sent everything. Cancel safe.
    pub(crate) async fn ended(&self) {
        let notified = self.notify.notified();
        if self.ended.get().is_none() {
            notified.await;
        }
    }

    /// What is wrong with the body, if it has broken off for that.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.get()
    }

    /// Whether there is no more to come although it is not whole.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// When something came last, if anything has.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.moved.get()
    }

    /// There is nothing more to come.
    pub(crate) fn end(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(turn::now()));
            self.notify.notify_waiters();
        }
    }

    /// Nobody asks for what is still to come.
    pub(crate) fn leave(&self) {
        if self.ended.get().is_none() {
            self.broken.set(true);
            self.end();
        }
    }

    /// When the client had sent everything.
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

/// The body of a request to a host.
#[derive(Debug, Default)]
pub(crate) enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// One of our own.
    Whole(Option<Bytes>),
    /// The client's, as it comes.
    Client(ClientBody, Rc<Progress>),
    /// The client's, kept for further attempts.
    Replay(Replay),
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

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Whoever sends it broke off.
    #[error("the sender broke off: {0}")]
    Peer(#[from] PeerError),
    /// It is not what it should be.
    #[error("the body is no base64")]
    Malformed(Refusal),
    /// It took too long.
    #[error("the response took too long")]
    Timeout,
    /// The stream lived too long.
    #[error("the stream lived too long")]
    MaxDuration,
    /// Nothing happened for too long.
    #[error("the response stood still for too long")]
    Idle,
}

impl BodyError {
    /// The flags and the `%RESPONSE_CODE_DETAILS%` that tell it of a response.
    pub(crate) fn told(&self) -> (Flags, &'static str) {
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
            BodyError::Malformed(refusal) => refusal.told(),
            BodyError::Timeout => (Flags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
            BodyError::MaxDuration => (Flags::NONE, "max_duration_timeout"),
            BodyError::Idle => (Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
        }
    }
}

/// The body of a response to the client. Whoever drops it, at its end or before, ends the request.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    encoder: Option<Encoder>,
    recorder: Option<Recorder>,
    /// Whether it is over only once all of it is written.
    until_written: bool,
    /// How long a client may take nothing of a body of our own, and when that is over, once it does not.
    idle: Option<Duration>,
    overdue: Option<Pin<Box<Sleep>>>,
    /// The recorder, once all has been taken that it waits to be written.
    taken: Option<Recorder>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    Host(Box<HostBody>),
}

impl Source {
    /// Whether it breaks off because the client has gone, who was still sending.
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

    /// A body that is there.
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

    /// A host's body; the connection is given back at its end.
    pub(crate) fn host(body: Incoming, mut lease: Lease, limits: BodyLimits, progress: Rc<Progress>) -> Self {
        if body.is_end_stream() {
            host::complete(&mut lease, &progress);
            return Self::empty();
        }
        Self::of(Source::Host(Box::new(HostBody::new(body, lease, limits, progress))))
    }

    /// Its trailers say whether the host was successful (gRPC).
    pub(crate) fn tells_success(&mut self) {
        if let Source::Host(host) = &mut self.source {
            host.tells_success();
        }
    }

    /// The same without a body of our own, where the client is to get none.
    pub(crate) fn without_own(self) -> Self {
        match self.source {
            Source::Full(_) => Self::empty(),
            Source::Host(_) => self,
        }
    }

    /// Tells the recorder what goes by.
    pub(crate) fn record(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// How long the client may take nothing of it, if it is one of our own: those of hosts have limits.
    pub(crate) fn idle(mut self, limit: Option<Duration>) -> Self {
        self.idle = limit.filter(|limit| !limit.is_zero());
        self
    }

    /// It is over only once [`Waiting::written`] is told.
    pub(crate) fn until_written(mut self) -> Self {
        self.until_written = true;
        self
    }

    /// The response's headers are on their way: those who ask for them afterwards get them as they were sent.
    pub(crate) fn headers_sent(&mut self, headers: HeaderMap) {
        if let Some(recorder) = &mut self.recorder {
            recorder.headers_sent(headers);
        }
    }

    /// Turns it into what a browser that speaks gRPC can read.
    pub(crate) fn encode(mut self, encoder: Encoder) -> Self {
        self.encoder = Some(encoder);
        self
    }

    /// What a browser can read of a frame.
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
        // Trailers come after all else was written.
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

/// A body that somebody sends, who may find that it is not taken.
pub(crate) trait Waiting {
    /// Waits until that has lasted too long. Then it is broken off. To be polled while there is no room for more of it, or
    /// while the last of it is still to be written.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// All of it is written, or nobody waits for that any more.
    fn written(&mut self);
}

impl Waiting for RequestBody {
    /// Whoever waits for the answer sees to it.
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
        // What was sent to its end is not logged as broken off, as in Envoy.
        if !self.is_end_stream() {
            self.broken(&error);
        }
        Poll::Ready(())
    }

    fn written(&mut self) {
        // What broke off is told of already.
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
        // Logs tell what the client gets.
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
            // A response without a body is never asked for one.
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
