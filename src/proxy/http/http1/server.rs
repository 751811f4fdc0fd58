//! The HTTP/1.1 server: reads one request at a time from a downstream connection and answers it.
//!
//! ```text
//! head ── exchange ── response ──┬─> head …
//!   └ malformed: last response   └─> linger, if it was the last
//! ```
//!
//! The request's body is read by [`ClientStream`], from the same socket, when the exchange polls it. Once the request
//! is complete, the connection is watched: if the client leaves, its request ends.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version, response};
use http_body::Body;
use tokio::time::{Instant, Sleep};

use super::encode::{self, Coding, WrongLength};
use super::lines::{ScanSchedule, Size};
use super::receiving::{ClientStream, Connection, InterimSender};
use super::request::{self, Head};
use super::response::RequestKind;
use super::wire::Wire;
use super::{Refusal, Rest};
use crate::proxy::flags::Flags;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::body::{ResponseBody, Waiting};
use crate::proxy::http::connection::{Downstream, DrainDeadlines, GracefulClose, Open, Stage};
use crate::proxy::http::deadlines::Timer;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter;
use crate::proxy::http::{HttpManager, exchange};
use crate::proxy::io::metered::Metered;
use crate::proxy::turn;

/// Serves a connection, of which `read` has been read already, to its end. When `ending` is ready the connection closes
/// gracefully, as that says.
///
/// # Errors
/// If the connection fails.
pub(crate) async fn serve<'a, E>(
    io: Metered<Open>,
    read: BytesMut,
    downstream: &'a Rc<Downstream>,
    ending: GracefulClose<'a, E>,
) -> io::Result<()>
where
    E: Future<Output = DrainDeadlines>,
{
    let connection = Rc::new(RefCell::new(Connection::new(Wire::new(io, read), &downstream.manager)));
    let mut server = Server {
        connection,
        downstream,
        late: HeaderTimeout::new(&downstream.manager),
        ending,
    };
    let over = {
        let mut requests = pin!(server.requests());
        poll_fn(|cx| turn::within(|| requests.as_mut().poll(cx))).await?
    };
    match over {
        CloseCause::Announced => server.linger().await,
        CloseCause::Gone => Ok(()),
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseCause {
    /// The client has been told, or nothing was under way.
    Announced,
    /// The client has left, or its time is up.
    Gone,
}

/// `request_headers_timeout`, or the idle timeout before the first byte, and the reply when it is reached.
#[derive(Clone, Copy, Debug)]
struct HeaderTimeout(Option<(Duration, Refusal)>);

impl HeaderTimeout {
    fn new(manager: &HttpManager) -> Self {
        let limits = &manager.limits;
        let timeout = |limit: Option<Duration>, text, flags, details| {
            let refusal = Refusal {
                status: StatusCode::REQUEST_TIMEOUT,
                text,
                flags,
                details,
            };
            limit.filter(|limit| !limit.is_zero()).map(|limit| (limit, refusal))
        };
        let all = [
            timeout(
                limits.request_headers,
                "request header timeout",
                Flags::NONE,
                "request_header_timeout",
            ),
            timeout(
                limits.stream_idle,
                "stream timeout",
                Flags::STREAM_IDLE_TIMEOUT,
                "stream_idle_timeout",
            ),
            timeout(
                limits.request,
                "request timeout",
                Flags::NONE,
                "request_overall_timeout",
            ),
        ];
        Self(all.into_iter().flatten().min_by_key(|(limit, _)| *limit))
    }

    /// Ready when the timeout is reached, with the reply. `timer` starts with the first call.
    fn poll(self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<Refusal> {
        let Some((limit, refusal)) = self.0 else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(cx).map(|()| refusal)
    }
}

/// Parses the head of a request; `None` if it is not complete, or not worth another look yet.
fn parse_head(connection: &mut Connection, scans: &mut ScanSchedule, manager: &HttpManager) -> Option<Next> {
    let size = Size {
        bytes: manager.limits.header_bytes,
        count: manager.limits.header_count,
    };
    let Connection { wire, fields, .. } = connection;
    let received = wire.read.len();
    if !scans.is_due(&wire.read, size) {
        return None;
    }
    match request::take(&mut wire.read, fields, size) {
        Ok(None) => None,
        Ok(Some(head)) => {
            connection.rest = head.rest;
            if manager.metered {
                connection.meter(received, meter::http1_headers(head.request.headers()));
            }
            // The worker's buffer is then free for the upstream response.
            connection.wire.release_buffer();
            Some(Next::Request(head))
        }
        Err(refusal) => {
            if manager.metered {
                connection.meter(received, 0);
            }
            Some(Next::Refused(refusal))
        }
    }
}

/// A response whose body is being written.
struct Writing {
    body: ResponseBody,
    coding: Coding,
    stage: BodyStage,
    /// Whether it is the last on its connection.
    last: bool,
    held_up: DelayedClose,
}

/// How much of a response's body has been passed to the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyStage {
    Open,
    Complete,
    /// It ended early. Closing without the last chunk tells the client so.
    Truncated,
}

impl Writing {
    /// Passes what the body yields to the outbox, as long as that has room.
    fn poll_frames(&mut self, cx: &mut Context<'_>, connection: &RefCell<Connection>) {
        while self.stage == BodyStage::Open && connection.borrow().wire.out.has_room() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return;
            };
            let out = &mut connection.borrow_mut().wire.out;
            let (wrote, last) = match frame {
                Some(Ok(frame)) => {
                    let last = self.body.is_end_stream() || frame.is_trailers();
                    (
                        self.coding.piece(out, frame.into_data().unwrap_or_default(), last),
                        last,
                    )
                }
                None => (self.coding.end(out), true),
                Some(Err(_)) => (Err(WrongLength), true),
            };
            self.stage = match wrote {
                Err(WrongLength) => BodyStage::Truncated,
                Ok(()) if last => BodyStage::Complete,
                Ok(()) => BodyStage::Open,
            };
        }
    }
}

/// Waits, as long as `delayed_close_timeout`, for a client that reads nothing of the last response.
#[derive(Default)]
struct DelayedClose(Option<(usize, Pin<Box<Sleep>>)>);

impl DelayedClose {
    /// Ready when the unwritten bytes have not become fewer for `limit`; zero: never, as in Envoy.
    fn poll(&mut self, cx: &mut Context<'_>, unwritten: usize, limit: Duration) -> Poll<()> {
        if limit.is_zero() {
            return Poll::Pending;
        }
        let begin = || (unwritten, Box::pin(tokio::time::sleep(limit)));
        let (before, timer) = self.0.get_or_insert_with(begin);
        if std::mem::replace(before, unwritten) != unwritten {
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx)
    }
}

/// The server loop of one connection.
struct Server<'a, E> {
    connection: Rc<RefCell<Connection>>,
    downstream: &'a Rc<Downstream>,
    late: HeaderTimeout,
    ending: GracefulClose<'a, E>,
}

/// What the server loop does next.
enum Next {
    Request(Head),
    Refused(Refusal),
    Close(CloseCause),
}

impl<E: Future<Output = DrainDeadlines>> Server<'_, E> {
    async fn requests(&mut self) -> io::Result<CloseCause> {
        loop {
            let head = match self.head().await? {
                Next::Request(head) => head,
                Next::Close(over) => return Ok(over),
                Next::Refused(refusal) => {
                    let meter = self.connection.borrow().wire.meter.clone();
                    let response = exchange::refuse(self.downstream.clone(), refusal, Version::HTTP_11, meter);
                    self.write(response, RequestKind::Other, false).await?;
                    return Ok(CloseCause::Announced);
                }
            };
            let keep_alive = head.keep_alive;
            let kind = RequestKind::of(head.request.method(), head.rest == Rest::UntilEnd);
            let Some(response) = self.answer(head).await else {
                return Ok(CloseCause::Gone);
            };
            if let Some(over) = self.write(response, kind, keep_alive).await? {
                return Ok(over);
            }
        }
    }

    /// Waits for the head of a request.
    async fn head(&mut self) -> io::Result<Next> {
        let (mut scans, mut timer) = (ScanSchedule::default(), None);
        poll_fn(|cx| self.poll_head(cx, &mut scans, &mut timer)).await
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scans: &mut ScanSchedule,
        timer: &mut Timer,
    ) -> Poll<io::Result<Next>> {
        let manager = &*self.downstream.manager;
        loop {
            let connection = &mut *self.connection.borrow_mut();
            let received = connection.wire.read.len();
            if let Some(next) = parse_head(connection, scans, manager) {
                return Poll::Ready(Ok(next));
            }
            if connection.wire.ended {
                return Poll::Ready(Ok(Next::Close(CloseCause::Announced)));
            }
            if !connection.wire.read.is_empty()
                && let Poll::Ready(refusal) = self.late.poll(cx, timer)
            {
                if manager.metered {
                    connection.meter(received, 0);
                }
                return Poll::Ready(Ok(Next::Refused(refusal)));
            }
            if connection.wire.poll_fill(cx)?.is_pending() {
                let idle = connection.wire.read.is_empty();
                return Poll::Ready(Ok(Next::Close(match self.ending.poll(cx) {
                    Poll::Ready(()) => CloseCause::Gone,
                    Poll::Pending if idle && self.ending.stage() == Stage::Begun => {
                        self.downstream.connection_closes();
                        CloseCause::Announced
                    }
                    Poll::Pending => return Poll::Pending,
                })));
            }
        }
    }

    /// The response to a request; `None`: the client has left.
    async fn answer(&mut self, head: Head) -> Option<Response<ResponseBody>> {
        self.connection.borrow_mut().wanted = false;
        let request: Request<Incoming> = head
            .request
            .map(|()| Incoming::Http1Client(ClientStream(self.connection.clone())));
        let passed_on = self.downstream.manager.proxy_100_continue;
        let interims = Interims::by_http1(InterimSender(self.connection.clone()), passed_on);
        // Boxed, so that idle connections take little memory.
        let meter = self.connection.borrow().wire.meter.clone();
        let mut exchange = Box::pin(exchange::exchange(self.downstream.clone(), request, interims, meter));
        poll_fn(|cx| {
            if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            self.poll_interims(cx);
            ready!(self.poll_gone(cx));
            self.downstream.connection_ends();
            Poll::Ready(None)
        })
        .await
    }

    /// Writes interim responses.
    fn poll_interims(&self, cx: &mut Context<'_>) {
        let wire = &mut self.connection.borrow_mut().wire;
        if !wire.out.is_empty() {
            // What cannot be written now is written with the response.
            let _ = wire.poll_flush(cx);
        }
    }

    /// Waits until the client leaves or its time is up.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.borrow_mut().poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        self.ending.poll(cx)
    }

    /// Writes a response; `None`: the connection can take another request.
    async fn write(
        &mut self,
        response: Response<ResponseBody>,
        kind: RequestKind,
        keep_alive: bool,
    ) -> io::Result<Option<CloseCause>> {
        let (mut parts, mut body) = response.into_parts();
        let tunnel = kind.is_tunnel(parts.status);
        if !tunnel && (!keep_alive || self.ending.stage() == Stage::Begun) {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let last = tunnel || parts.headers.contains_key(CONNECTION);
        let coding = self.write_head(&parts, &body, kind);
        body.headers_sent(parts.headers);
        let mut writing = Writing {
            stage: match coding {
                Coding::Nothing if !tunnel => BodyStage::Complete,
                _ => BodyStage::Open,
            },
            body,
            coding,
            last,
            held_up: DelayedClose::default(),
        };
        let written = poll_fn(|cx| self.poll_body(cx, &mut writing)).await;
        if !matches!(written, Ok(true)) {
            self.downstream.connection_ends();
        }
        if !written? || writing.stage == BodyStage::Truncated {
            return Ok(Some(CloseCause::Gone));
        }
        let connection = self.connection.borrow();
        let unread = connection.rest != Rest::Nothing || connection.broken.is_some();
        Ok((last || unread).then_some(CloseCause::Announced))
    }

    fn write_head(&self, parts: &response::Parts, body: &ResponseBody, kind: RequestKind) -> Coding {
        let wire = &mut self.connection.borrow_mut().wire;
        let before = wire.out.short().len();
        let coding = encode::response(&mut wire.out, parts.status, &parts.headers, body, kind);
        if let Some(meter) = &wire.meter {
            meter.send_headers(wire.out.headers_since(before));
        }
        coding
    }

    /// Writes the body of a response. Ready when all of it is written (`true`), or nobody waits for the rest.
    fn poll_body(&mut self, cx: &mut Context<'_>, writing: &mut Writing) -> Poll<io::Result<bool>> {
        loop {
            writing.poll_frames(cx, &self.connection);
            let ended = writing.stage != BodyStage::Open;
            let connection = &mut *self.connection.borrow_mut();
            if !connection.wire.out.is_empty() {
                match connection.wire.poll_flush(cx) {
                    Poll::Ready(Ok(())) if !ended => continue,
                    Poll::Ready(done) => return Poll::Ready(done.map(|()| true)),
                    Poll::Pending => {}
                }
            } else if ended {
                return Poll::Ready(Ok(true));
            }
            // A client that reads nothing is still subject to the timeouts.
            if !ended && !connection.wire.out.has_room() && writing.body.poll_overdue(cx).is_ready() {
                return Poll::Ready(Ok(false));
            }
            let gone = !ended && (connection.broken.is_some() || connection.poll_gone(cx).is_ready());
            if gone || self.ending.poll(cx).is_ready() {
                return Poll::Ready(Ok(false));
            }
            let closes = writing.last || writing.stage == BodyStage::Truncated || self.ending.stage() == Stage::Begun;
            if !(ended && closes) {
                return Poll::Pending;
            }
            let unwritten = connection.wire.out.unwritten();
            let limit = self.downstream.manager.limits.delayed_close;
            return writing.held_up.poll(cx, unwritten, limit).map(|()| Ok(false));
        }
    }

    /// Half-closes the connection and waits for the client to close it. Closing at once while the client still sends
    /// would make the kernel reset the connection, and the client might lose the last response.
    async fn linger(&mut self) -> io::Result<()> {
        let mut told = false;
        let unread = poll_fn(|cx| {
            let wire = &mut self.connection.borrow_mut().wire;
            if !told {
                ready!(wire.poll_shutdown(cx))?;
                told = true;
            }
            while !wire.ended {
                wire.read.clear();
                if ready!(wire.poll_fill(cx)).is_err() {
                    break;
                }
            }
            Poll::Ready(Ok(()))
        });
        // Either the client closes or the time is up.
        tokio::time::timeout(self.downstream.manager.limits.delayed_close, unread)
            .await
            .unwrap_or(Ok(()))
    }
}
