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
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::{Instant, Sleep};

use super::encode::{self, Coding};
use super::lines::{Looks, Size};
use super::receiving::{ClientStream, Connection, Teller};
use super::request::{self, Head};
use super::response::Asked;
use super::wire::Wire;
use super::{Refusal, Rest};
use crate::proxy::flags::Flags;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::body::{ResponseBody, Waiting};
use crate::proxy::http::connection::{Downstream, Ending, Farewell, Open, Stage};
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
    ending: Ending<'a, E>,
) -> io::Result<()>
where
    E: Future<Output = Farewell>,
{
    let connection = Rc::new(RefCell::new(Connection::new(Wire::new(io, read), &downstream.manager)));
    let mut server = Server {
        connection,
        downstream,
        late: Late::new(&downstream.manager),
        ending,
    };
    let over = {
        let mut requests = pin!(server.requests());
        poll_fn(|cx| turn::within(|| requests.as_mut().poll(cx))).await?
    };
    match over {
        Over::Announced => server.linger().await,
        Over::Gone => Ok(()),
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// The client has been told, or nothing was under way.
    Announced,
    /// The client has left, or its time is up.
    Gone,
}

/// `request_headers_timeout`, or the idle timeout before the first byte, and the reply when it is reached.
#[derive(Clone, Copy, Debug)]
struct Late(Option<(Duration, Refusal)>);

impl Late {
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
}

/// Waits, as long as `delayed_close_timeout`, for a client that reads nothing of the last response.
#[derive(Default)]
struct HeldUp(Option<(usize, Pin<Box<Sleep>>)>);

impl HeldUp {
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
    late: Late,
    ending: Ending<'a, E>,
}

/// What the server loop does next.
enum Next {
    Request(Head),
    Refused(Refusal),
    Over(Over),
}

impl<E: Future<Output = Farewell>> Server<'_, E> {
    async fn requests(&mut self) -> io::Result<Over> {
        loop {
            let head = match self.head().await? {
                Next::Request(head) => head,
                Next::Over(over) => return Ok(over),
                Next::Refused(refusal) => {
                    let meter = self.connection.borrow().wire.meter.clone();
                    let response = exchange::refuse(self.downstream.clone(), refusal, Version::HTTP_11, meter);
                    self.write(response, Asked::Other, false).await?;
                    return Ok(Over::Announced);
                }
            };
            let keep_alive = head.keep_alive;
            let asked = Asked::of(head.request.method(), head.rest == Rest::UntilEnd);
            let Some(response) = self.answer(head).await else {
                return Ok(Over::Gone);
            };
            if let Some(over) = self.write(response, asked, keep_alive).await? {
                return Ok(over);
            }
        }
    }

    /// Waits for the head of a request.
    async fn head(&mut self) -> io::Result<Next> {
        let limits = &self.downstream.manager.limits;
        let size = Size {
            bytes: limits.header_bytes,
            count: limits.header_count,
        };
        let mut looks = Looks::default();
        let mut late = None::<Pin<Box<Sleep>>>;
        poll_fn(|cx| {
            loop {
                let connection = &mut *self.connection.borrow_mut();
                let Connection { wire, fields, .. } = connection;
                let came = wire.read.len();
                if looks.is_due(&wire.read, size) {
                    match request::take(&mut wire.read, fields, size) {
                        Ok(Some(head)) => {
                            connection.rest = head.rest;
                            if self.downstream.manager.metered {
                                connection.meter(came, meter::http1_headers(head.request.headers()));
                            }
                            // The worker's buffer is then free for the upstream response.
                            connection.wire.rest();
                            return Poll::Ready(Ok(Next::Request(head)));
                        }
                        Ok(None) => {}
                        Err(refusal) => {
                            if self.downstream.manager.metered {
                                connection.meter(came, 0);
                            }
                            return Poll::Ready(Ok(Next::Refused(refusal)));
                        }
                    }
                }
                if wire.ended {
                    return Poll::Ready(Ok(Next::Over(Over::Announced)));
                }
                if !wire.read.is_empty()
                    && let Some((limit, refusal)) = self.late.0
                {
                    let late = late.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                    if late.as_mut().poll(cx).is_ready() {
                        if self.downstream.manager.metered {
                            connection.meter(came, 0);
                        }
                        return Poll::Ready(Ok(Next::Refused(refusal)));
                    }
                }
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        let nothing = wire.read.is_empty();
                        return match self.ending.poll(cx) {
                            Poll::Ready(()) => Poll::Ready(Ok(Next::Over(Over::Gone))),
                            Poll::Pending if nothing && self.ending.stage() == Stage::Begun => {
                                self.downstream.connection_closes();
                                Poll::Ready(Ok(Next::Over(Over::Announced)))
                            }
                            Poll::Pending => Poll::Pending,
                        };
                    }
                }
            }
        })
        .await
    }

    /// The response to a request; `None`: the client has left.
    async fn answer(&mut self, head: Head) -> Option<Response<ResponseBody>> {
        self.connection.borrow_mut().wanted = false;
        let request: Request<Incoming> = head
            .request
            .map(|()| Incoming::Http1Client(ClientStream(self.connection.clone())));
        let passed_on = self.downstream.manager.proxy_100_continue;
        let interims = Interims::by_http1(Teller(self.connection.clone()), passed_on);
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
        asked: Asked,
        keep_alive: bool,
    ) -> io::Result<Option<Over>> {
        let (mut parts, mut body) = response.into_parts();
        let tunnel = asked.is_tunnel(parts.status);
        if !tunnel && (!keep_alive || self.ending.stage() == Stage::Begun) {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let last = parts.headers.contains_key(CONNECTION);
        let mut coding = {
            let connection = &mut *self.connection.borrow_mut();
            let wire = &mut connection.wire;
            let before = wire.out.short().len();
            let coding = encode::response(&mut wire.out, parts.status, &parts.headers, &body, asked);
            if let Some(meter) = &wire.meter {
                meter.send_headers(wire.out.headers_since(before));
            }
            coding
        };
        body.headers_sent(parts.headers);
        let (mut broken, mut held_up) = (false, HeldUp::default());
        let mut ended = coding == Coding::Nothing && !tunnel;
        let complete = poll_fn(|cx| {
            loop {
                while !ended && self.connection.borrow().wire.out.has_room() {
                    let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) else {
                        break;
                    };
                    let out = &mut self.connection.borrow_mut().wire.out;
                    let wrote = match frame {
                        Some(Ok(frame)) => {
                            ended = body.is_end_stream() || frame.is_trailers();
                            coding.piece(out, frame.into_data().unwrap_or_default(), ended)
                        }
                        Some(Err(_)) => {
                            // Closing without the last chunk tells the client that the body is not complete.
                            (ended, broken) = (true, true);
                            Ok(())
                        }
                        None => {
                            ended = true;
                            coding.end(out)
                        }
                    };
                    if wrote.is_err() {
                        (ended, broken) = (true, true);
                    }
                }
                let connection = &mut *self.connection.borrow_mut();
                let empty = connection.wire.out.is_empty();
                if !empty {
                    match connection.wire.poll_flush(cx) {
                        Poll::Ready(Ok(())) if !ended => continue,
                        Poll::Ready(done) => return Poll::Ready(done.map(|()| true)),
                        Poll::Pending => {}
                    }
                } else if ended {
                    return Poll::Ready(Ok(true));
                }
                // A client that reads nothing is still subject to the timeouts.
                if !ended && !connection.wire.out.has_room() && body.poll_overdue(cx).is_ready() {
                    return Poll::Ready(Ok(false));
                }
                let gone = !ended && (connection.broken.is_some() || connection.poll_gone(cx).is_ready());
                if gone || self.ending.poll(cx).is_ready() {
                    return Poll::Ready(Ok(false));
                }
                let over = last || tunnel || broken || self.ending.stage() == Stage::Begun;
                if !(ended && over) {
                    return Poll::Pending;
                }
                let unwritten = connection.wire.out.unwritten();
                let limit = self.downstream.manager.limits.delayed_close;
                return held_up.poll(cx, unwritten, limit).map(|()| Ok(false));
            }
        })
        .await;
        if !matches!(complete, Ok(true)) {
            self.downstream.connection_ends();
        }
        let connection = self.connection.borrow();
        Ok(match complete? && !broken {
            false => Some(Over::Gone),
            true => (last || tunnel || connection.rest != Rest::Nothing || connection.broken.is_some())
                .then_some(Over::Announced),
        })
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
