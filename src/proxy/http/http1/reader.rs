//! A client's connection of which hyper reads only what was checked.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::chunks::Chunks;
use super::head::{self, Framing, Rules};
use super::{Refusal, Wire};
use crate::proxy::flags::Flags;
use crate::proxy::http::HttpManager;
use crate::proxy::io::Io;

/// How long a connection whose end we have announced may take to end (Envoy's `delayed_close_timeout`): closed at once,
/// what the client is still sending would make the system reset it, and the client might never read the last answer.
const LINGER: Duration = Duration::from_secs(1);

/// The request that stands in for one that is refused: see [`super::REFUSED`].
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\n\r\n";

/// Limits of requests that come by HTTP/1.
#[derive(Debug)]
pub(crate) struct Limits {
    manager: Arc<HttpManager>,
    late: Option<(Duration, Refusal)>,
}

impl Limits {
    /// Those of a connection manager.
    pub(crate) fn new(manager: Arc<HttpManager>) -> Self {
        let limits = &manager.limits;
        let timeout = |text, flags, details| Refusal {
            status: StatusCode::REQUEST_TIMEOUT,
            text,
            flags,
            details,
        };
        let headers = limits.request_headers.map(|limit| {
            let refusal = timeout("request header timeout", Flags::NONE, "request_header_timeout");
            (limit, refusal)
        });
        let idle = limits.stream_idle.map(|limit| {
            let refusal = timeout("stream timeout", Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
            (limit, refusal)
        });
        let whole = limits.request.map(|limit| {
            let refusal = timeout("request timeout", Flags::NONE, "request_overall_timeout");
            (limit, refusal)
        });
        let all = headers.into_iter().chain(idle).chain(whole);
        let late = all
            .filter(|(limit, _)| !limit.is_zero())
            .min_by_key(|(limit, _)| *limit);
        Self { manager, late }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            bytes: self.manager.limits.header_bytes,
            count: self.manager.limits.header_count,
            upgrades: &self.manager.upgrades,
        }
    }
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Checked {
    io: Io,
    state: State,
    /// Bytes that pass next.
    passed: Bytes,
    /// Bytes that are to be looked at, from the beginning of a head if that is what is waited for.
    waiting: BytesMut,
    /// How many of them have to be there before another look is worth its while, unless a line ends.
    worth: usize,
    /// How often the head that is waited for was looked at.
    looks: usize,
    /// When the head that is waited for is late.
    late: Option<Pin<Box<Sleep>>>,
    /// Whether the client has sent all it will.
    ended: bool,
    lingering: Option<Pin<Box<Sleep>>>,
    limits: Limits,
    wire: Arc<Wire>,
}

/// What is expected next.
#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunks(Chunks),
    /// Bytes that are not for us to check: HTTP/2, or what comes after a request to go over to another protocol. If that
    /// is turned down, no further request is taken.
    Raw,
    /// Nothing: there was a head that is no request's.
    Refused,
    /// Nothing: there was a body that broke off.
    Broken,
}

impl Checked {
    /// HTTP/1, of which `read` has come already.
    pub(crate) fn http1(io: Io, read: BytesMut, limits: Limits, wire: Arc<Wire>) -> Self {
        Self {
            io,
            state: State::Head,
            passed: Bytes::new(),
            waiting: read,
            worth: 0,
            looks: 0,
            late: None,
            ended: false,
            lingering: None,
            limits,
            wire,
        }
    }

    /// HTTP/2, of which `read` has come already: nothing is checked.
    pub(crate) fn http2(io: Io, read: BytesMut, limits: Limits, wire: Arc<Wire>) -> Self {
        let mut raw = Self::http1(io, BytesMut::new(), limits, wire);
        (raw.state, raw.passed) = (State::Raw, read.freeze());
        raw
    }

    /// Goes through bytes as far as they pass, and returns how many do: they are moved together at the beginning.
    /// What is left over waits.
    fn check(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut len) = (0, bytes.len());
        while at < len {
            match &mut self.state {
                State::Head => match head::parse(&bytes[at..len], self.limits.rules()) {
                    Ok(Some(head)) => {
                        (self.late, self.looks) = (None, 0);
                        self.wire.body_begun.store(false, Ordering::Relaxed);
                        self.state = match head.framing {
                            Framing::Nothing => State::Head,
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunks(Chunks::START),
                            Framing::Tunnel => State::Raw,
                        };
                        if let Some(rewritten) = head.rewritten {
                            self.passed = rewritten.into();
                            self.wait_for(&bytes[at + head.len..len], 0);
                            return at;
                        }
                        at += head.len;
                    }
                    Ok(None) => {
                        self.wait_for(&bytes[at..len], 2 * (len - at));
                        return at;
                    }
                    Err(refusal) => {
                        self.refuse(refusal);
                        return at;
                    }
                },
                State::Length(left) => {
                    self.wire.body_begun.store(true, Ordering::Relaxed);
                    let taken = usize::try_from(*left).map_or(len - at, |left| left.min(len - at));
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                }
                State::Chunks(chunks) => {
                    self.wire.body_begun.store(true, Ordering::Relaxed);
                    let limit = self.limits.manager.limits.header_bytes;
                    let (kept, ran) = chunks.run(&mut bytes[at..len], limit);
                    match ran {
                        Ok(read) => {
                            let over = *chunks == Chunks::Over;
                            bytes.copy_within(at + read..len, at + kept);
                            len -= read - kept;
                            at += kept;
                            if over {
                                self.state = State::Head;
                            }
                        }
                        Err(refusal) => {
                            // Only the first one counts.
                            let _ = self.wire.body.set(refusal);
                            self.state = State::Broken;
                            return at + kept;
                        }
                    }
                }
                State::Raw => return len,
                State::Refused | State::Broken => return at,
            }
        }
        len
    }

    fn wait_for(&mut self, bytes: &[u8], worth: usize) {
        self.waiting.extend_from_slice(bytes);
        self.worth = worth;
    }

    fn refuse(&mut self, refusal: Refusal) {
        // Only the first one counts.
        let _ = self.wire.head.set(refusal);
        self.passed = Bytes::from_static(STAND_IN);
        self.waiting = BytesMut::new();
        self.state = State::Refused;
        self.late = None;
    }

    /// Looks at what waits.
    fn look(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let passed = self.check(&mut waiting);
        if passed > 0 {
            waiting.truncate(passed);
            let rewritten = std::mem::take(&mut self.passed);
            self.passed = match rewritten.is_empty() {
                true => waiting.freeze(),
                false => [&waiting[..], &rewritten].concat().into(),
            };
        }
    }

    /// Waits for the rest of a head, at most as long as it may take.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some((limit, refusal)) = self.limits.late {
            let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if late.as_mut().poll(cx).is_ready() {
                self.refuse(refusal);
                return Poll::Ready(Ok(()));
            }
        }
        let mut room = [0; 4096];
        let mut more = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut more))?;
        let more = more.filled();
        if more.is_empty() {
            self.ended = true;
            self.waiting = BytesMut::new();
            return Poll::Ready(Ok(()));
        }
        self.waiting.extend_from_slice(more);
        // However the head trickles, there are no more looks than a head has lines, and some at twice the length.
        let ends_line = more.contains(&b'\n') && self.looks <= self.limits.manager.limits.header_count + 2;
        if ends_line || self.waiting.len() >= self.worth {
            self.looks += 1;
            self.look();
        }
        Poll::Ready(Ok(()))
    }

    /// What comes when the client has sent all it will.
    fn end(&mut self) {
        self.ended = true;
        if matches!(self.state, State::Length(_) | State::Chunks(_)) {
            self.wire.gone.notify_one();
        }
    }
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.passed.is_empty() {
                let len = this.passed.len().min(buf.remaining());
                buf.put_slice(&this.passed[..len]);
                this.passed.advance(len);
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Raw if this.waiting.is_empty() => return Pin::new(&mut this.io).poll_read(cx, buf),
                // The answer ends the connection.
                State::Refused => return Poll::Pending,
                State::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                _ if this.ended => return Poll::Ready(Ok(())),
                State::Head | State::Length(_) | State::Chunks(_) | State::Raw => {}
            }
            if !this.waiting.is_empty() {
                if this.worth == 0 {
                    this.look();
                } else {
                    ready!(this.poll_rest(cx))?;
                }
                continue;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                this.end();
                return Poll::Ready(Ok(()));
            }
            let passed = this.check(&mut buf.filled_mut()[before..]);
            buf.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Checked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Tells the client that nothing more comes, and lets it read that before the connection is gone.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if matches!(this.state, State::Raw) {
                return Poll::Ready(Ok(()));
            }
        }
        let lingering = this
            .lingering
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut room = [0; 4096];
        while !this.ended && lingering.as_mut().poll(cx).is_pending() {
            let mut unread = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut unread)) {
                Ok(()) => this.ended = unread.filled().is_empty(),
                Err(_) => this.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }
}
