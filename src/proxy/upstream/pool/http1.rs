//! Upstream HTTP/1.1 connections.
//!
//! There is no task for a connection: whoever waits for the response, and then reads its body, also writes what is left
//! of the request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};

use super::host_pool::{HostPool, Place};
use crate::proxy::connection::LocalEnd;
use crate::proxy::http::body::incoming::{Incoming, PeerError};
use crate::proxy::http::body::{BodyError, RequestBody};
use crate::proxy::http::http1::encode::{self, Coding};
use crate::proxy::http::http1::response::{self, Head, RequestKind, SIZE};
use crate::proxy::http::http1::wire::Wire;
use crate::proxy::http::http1::{Field, Rest, ScanSchedule};
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::{self, Meter};
use crate::proxy::io::metered::Metered;
use crate::proxy::turn;
use crate::proxy::upstream::cluster::{Cluster, UpstreamHttp};
use crate::proxy::upstream::connect::{FailureKind, Link, Open, SendError};

/// Size limit of response trailers.
const TRAILERS: usize = 60 << 10;

/// A connection, which carries one request at a time. It closes when this and the response are dropped.
#[derive(Debug)]
pub(super) struct Http1 {
    connection: Rc<RefCell<Connection>>,
    /// The pool that it returns to; `None` if it is for one request only.
    home: Option<Weak<HostPool>>,
    /// Our end of it.
    pub(super) near: LocalEnd,
    opened: Instant,
    since: Instant,
    requests: u32,
    max_requests: u32,
}

/// A connection as the reader of the response shares it.
#[derive(Debug)]
struct Connection {
    wire: Wire<Metered<Open>>,
    /// The request body that is still being sent.
    sending: Option<Sending>,
    /// Whether the request has no body.
    bodiless: bool,
    /// What is still to be received of the response.
    rest: Rest,
    /// Whether the response is a tunnel.
    tunnel: bool,
    /// Whether the tunnel closes when the client's direction ends: with CONNECT it does, as in Envoy.
    connect: bool,
    /// Whether the tunnel closes when everything is written.
    leaving: bool,
    /// Whether the connection can be reused.
    keep_alive: bool,
    /// Scratch space for header offsets, reused by each response.
    fields: Vec<Field>,
    // Declared last, so dropped last: the connection is closed before its place is free.
    _place: Place,
}

/// A request body being sent.
#[derive(Debug)]
struct Sending {
    body: RequestBody,
    coding: Coding,
    /// Whether any of it was sent.
    begun: bool,
    /// Held back until the host accepts the upgrade.
    held: bool,
}

/// Why there is no response.
enum Failed {
    /// The host violated HTTP/1.1.
    Protocol(String),
    /// The connection failed; and whether part of a response was received.
    Broke(String, bool),
}

impl Http1 {
    /// A new connection; without a home it is for one request only.
    pub(super) fn new(link: Link, place: Place, home: Option<Weak<HostPool>>, cluster: &Arc<Cluster>) -> Self {
        cluster.stats.cx_http1_total.fetch_add(1, Relaxed);
        let (near, now) = (link.near.clone(), Instant::now());
        let connection = Connection {
            wire: Wire::new(Metered::new(link.io, link.open), BytesMut::new()),
            sending: None,
            bodiless: true,
            rest: Rest::Nothing,
            tunnel: false,
            connect: false,
            leaving: false,
            keep_alive: true,
            fields: Vec::new(),
            _place: place,
        };
        Self {
            connection: Rc::new(RefCell::new(connection)),
            home,
            near,
            opened: now,
            since: now,
            requests: 0,
            max_requests: cluster.config.http.max_requests.unwrap_or(u32::MAX),
        }
    }

    /// Sends a request and waits for the response headers; interim responses go to `interims`. A request of which
    /// nothing was sent is put back.
    ///
    /// # Errors
    /// If there is no response.
    pub(super) async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        interims: Option<&Interims>,
        meter: Option<&Rc<Meter>>,
    ) -> Result<Response<Incoming>, SendError> {
        self.requests += 1;
        self.connection.borrow_mut().wire.meter = meter.cloned();
        let asked = self.begin(request.get_or_insert_default());
        let mut scans = ScanSchedule::default();
        let answer = poll_fn(|cx| {
            let mut connection = self.connection.borrow_mut();
            connection.poll_answer(cx, &mut scans, asked, interims)
        });
        let answer = answer.await;
        let sent = request.take();
        let error = match answer {
            Ok(head) => return Ok(self.answered(head)),
            Err(Failed::Protocol(reason) | Failed::Broke(reason, true)) => {
                SendError::new(FailureKind::Protocol, reason)
            }
            Err(Failed::Broke(reason, false)) => {
                // Otherwise the host may have started to process it (RFC 9110 section 9.2.2).
                let unsent = self.connection.borrow_mut().unsent();
                let repeatable = sent.filter(|sent| sent.method().is_idempotent());
                *request = repeatable.zip(unsent).map(|(sent, body)| sent.map(|_| body));
                SendError::new(FailureKind::Reset, reason)
            }
        };
        Err(error)
    }

    fn begin(&mut self, request: &mut Request<RequestBody>) -> RequestKind {
        let body = std::mem::take(request.body_mut());
        let asked = RequestKind::of(request.method(), self.home.is_none());
        self.connection.borrow_mut().begin(request, body, asked);
        asked
    }

    fn answered(&self, head: Head) -> Response<Incoming> {
        let complete = head.rest == Rest::Nothing;
        let stream = HostStream((!complete).then(|| self.connection.clone()));
        head.response.map(|()| Incoming::Http1Host(stream))
    }

    pub(super) fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// Whether it can take a request: the host has sent nothing and not closed it.
    pub(super) fn is_ready(&self) -> bool {
        self.connection.borrow_mut().wire.is_quiet()
    }

    /// Whether it has been idle too long or is too old.
    pub(super) fn is_over(&self, http: &UpstreamHttp, now: Instant) -> bool {
        let longer =
            |than: Option<Duration>, since| than.is_some_and(|than| now.saturating_duration_since(since) >= than);
        longer(http.idle_timeout, self.since) || longer(http.max_connection_duration, self.opened)
    }

    /// Returns it to its pool.
    pub(super) fn give_back(mut self) {
        let pool = self.home.as_ref().and_then(Weak::upgrade);
        let reusable = self.requests < self.max_requests && self.connection.borrow().is_free();
        if let Some(pool) = pool.filter(|_| reusable) {
            self.since = turn::now().into_std();
            {
                let wire = &mut self.connection.borrow_mut().wire;
                wire.release_buffer();
                wire.meter = None;
            }
            pool.take(self);
        }
    }
}

/// The request target.
fn target(uri: &Uri) -> &[u8] {
    let (path, authority) = (uri.path_and_query(), uri.authority());
    let path = path.map(|path| path.as_str().as_bytes());
    path.or(authority.map(|authority| authority.as_str().as_bytes()))
        .unwrap_or(b"/")
}

impl Connection {
    fn begin<B>(&mut self, head: &Request<B>, body: RequestBody, asked: RequestKind) {
        self.bodiless = body.is_end_stream();
        let (method, headers) = (head.method(), head.headers());
        let before = self.wire.out.short().len();
        let coding = encode::request(&mut self.wire.out, method, target(head.uri()), headers, &body, asked);
        if let Some(meter) = &self.wire.meter {
            meter.send_headers(self.wire.out.headers_since(before));
        }
        self.sending = (coding != Coding::Nothing).then_some(Sending {
            body,
            coding,
            begun: false,
            held: coding == Coding::UntilEnd,
        });
    }

    /// The request's body, if none of it was sent.
    fn unsent(&mut self) -> Option<RequestBody> {
        let waiting = self.sending.take().filter(|sending| !sending.begun);
        let empty = self.bodiless.then_some(RequestBody::Empty);
        waiting.map(|sending| sending.body).or(empty)
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        scans: &mut ScanSchedule,
        asked: RequestKind,
        interims: Option<&Interims>,
    ) -> Poll<Result<Head, Failed>> {
        loop {
            match self.poll_send(cx) {
                Ok(()) => {}
                // Whoever provides the body handles its failure.
                Err(BodyError::Peer(_)) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(Failed::Broke(error.to_string(), false))),
            }
            while scans.is_due(&self.wire.read, SIZE) {
                let taken = response::take(&mut self.wire.read, &mut self.fields, asked);
                match taken.map_err(|refusal| Failed::Protocol(refusal.to_string()))? {
                    Some(head) if head.is_interim() => {
                        *scans = ScanSchedule::default();
                        if let Some(interims) = interims {
                            interims.hear(head.response);
                        }
                    }
                    Some(head) => {
                        self.answered(&head, asked);
                        return Poll::Ready(Ok(head));
                    }
                    None => {}
                }
            }
            let begun = !self.wire.read.is_empty();
            if self.wire.ended {
                return Poll::Ready(Err(Failed::Broke("the host closed the connection".to_owned(), begun)));
            }
            if let Err(error) = ready!(self.wire.poll_fill(cx)) {
                return Poll::Ready(Err(Failed::Broke(error.to_string(), begun)));
            }
        }
    }

    fn answered(&mut self, head: &Head, asked: RequestKind) {
        if let Some(meter) = &self.wire.meter {
            meter.receive_headers(meter::http1_headers(head.response.headers()));
        }
        self.rest = head.rest;
        self.keep_alive &= head.keep_alive;
        self.tunnel = asked.is_tunnel(head.response.status());
        self.connect = self.tunnel && asked == RequestKind::Connect;
        match &mut self.sending {
            Some(sending) if self.tunnel => sending.held = false,
            // Data after a refused upgrade request is not sent.
            Some(sending) if sending.held => self.sending = None,
            Some(_) | None => {}
        }
    }

    /// Sends what can be sent of the request's body.
    ///
    /// # Errors
    /// If the body ends early.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            while self.wire.out.has_room()
                && let Some(sending) = self.sending.as_mut().filter(|sending| !sending.held)
                && let Poll::Ready(frame) = Pin::new(&mut sending.body).poll_frame(cx)
            {
                let out = &mut self.wire.out;
                sending.begun = true;
                let (sent, last) = match frame {
                    Some(Ok(frame)) => {
                        let last = sending.body.is_end_stream() || frame.is_trailers();
                        let piece = frame.into_data().unwrap_or_default();
                        (sending.coding.piece(out, piece, last), last)
                    }
                    None => (sending.coding.end(out), true),
                    Some(Err(error)) => {
                        (self.keep_alive, self.sending) = (false, None);
                        return Err(error);
                    }
                };
                self.keep_alive &= sent.is_ok();
                if last || sent.is_err() {
                    self.sending = None;
                    self.leaving = self.connect;
                }
            }
            if self.wire.out.is_empty() {
                return Ok(());
            }
            match self.wire.poll_flush(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if self.sending.is_none() => return Ok(()),
                Poll::Ready(Ok(())) => {}
                // The host reads no more, and may have responded already.
                Poll::Ready(Err(_)) => {
                    self.wire.out.forget();
                    self.keep_alive = false;
                    self.sending = self.sending.take().filter(|sending| !sending.begun);
                    if let Some(unsent) = &mut self.sending {
                        unsent.held = true;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PeerError>>> {
        // Whoever provides the body handles its failure.
        let _ = self.poll_send(cx);
        if self.leaving && self.wire.out.is_empty() {
            return Poll::Ready(self.broken(PeerError::Left));
        }
        loop {
            match self.rest.take(&mut self.wire.read, TRAILERS) {
                Ok(None) if self.rest != Rest::Nothing => {}
                Ok(piece) => return Poll::Ready(piece.map(Ok)),
                Err(refusal) => return Poll::Ready(self.broken(PeerError::Malformed(refusal))),
            }
            if self.wire.ended && self.rest == Rest::UntilEnd && !self.tunnel {
                self.rest = Rest::Nothing;
                return Poll::Ready(None);
            }
            if self.wire.ended || ready!(self.wire.poll_fill(cx)).is_err() {
                // As in Envoy, a tunnel closes as a whole when the host half-closes it.
                return Poll::Ready(self.broken(match self.tunnel {
                    true => PeerError::Left,
                    false => PeerError::BrokeOff,
                }));
            }
        }
    }

    fn broken(&mut self, error: PeerError) -> Option<Result<Bytes, PeerError>> {
        (self.rest, self.keep_alive) = (Rest::Nothing, false);
        Some(Err(error))
    }

    /// Whether request and response are complete, and the connection can be reused.
    fn is_free(&self) -> bool {
        let quiet = self.wire.out.is_empty() && self.wire.read.is_empty() && !self.wire.ended;
        self.keep_alive && quiet && self.sending.is_none() && self.rest == Rest::Nothing
    }
}

/// The body of a response, until its end.
#[derive(Debug)]
pub(crate) struct HostStream(Option<Rc<RefCell<Connection>>>);

impl Body for HostStream {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        let Some(connection) = &self.0 else {
            return Poll::Ready(None);
        };
        let (piece, complete) = {
            let mut connection = connection.borrow_mut();
            (ready!(connection.poll_body(cx)), connection.rest == Rest::Nothing)
        };
        if complete {
            self.0 = None;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_ref().map(|connection| connection.borrow().rest) {
            None | Some(Rest::Nothing) => SizeHint::with_exact(0),
            Some(Rest::Length(left)) => SizeHint::with_exact(left),
            Some(Rest::Chunks(_) | Rest::UntilEnd) => SizeHint::default(),
        }
    }
}
