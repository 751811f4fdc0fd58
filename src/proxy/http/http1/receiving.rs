//! The receiving side of an HTTP/1.1 connection, shared by its server loop and the request's body: reads the body,
//! sends interim responses, and notices when the client leaves.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::Rest;
use super::encode;
use super::lines::Field;
use super::wire::Wire;
use crate::proxy::http::HttpManager;
use crate::proxy::http::body::incoming::PeerError;
use crate::proxy::http::connection::Open;
use crate::proxy::http::meter::Meter;
use crate::proxy::io::metered::Metered;

/// How much of further (pipelined) requests is read ahead.
const AHEAD: usize = 16 << 10;

/// A downstream connection as the reader of a request body shares it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire<Metered<Open>>,
    /// What is still to be received of the request.
    pub(super) rest: Rest,
    /// Size limit of trailers.
    limit: usize,
    /// Whether anyone reads the body.
    pub(super) wanted: bool,
    /// Why the body ended early, if it did.
    pub(super) broken: Option<Broken>,
    /// Waits for the end of the body, or of the connection.
    watcher: Option<Waker>,
    /// Scratch space for header offsets, reused by each request.
    pub(super) fields: Vec<Field>,
}

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is malformed.
    Malformed,
    /// The client closed the connection.
    Gone,
}

impl Connection {
    /// A connection that will receive requests.
    pub(super) fn new(wire: Wire<Metered<Open>>, manager: &HttpManager) -> Self {
        Self {
            wire,
            rest: Rest::Nothing,
            limit: manager.limits.header_bytes,
            wanted: false,
            broken: None,
            watcher: None,
            fields: Vec::new(),
        }
    }

    /// Counts bytes for a new request: of those received with its head, the ones that belong to no other, as in Envoy.
    pub(super) fn meter(&mut self, came: usize, headers: usize) {
        let meter = Meter::default();
        meter.receive(came);
        meter.receive_headers(headers);
        self.wire.meter = Some(Rc::new(meter));
    }

    /// Wakes the watcher: the body has ended.
    fn wake(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PeerError>>> {
        self.wanted = true;
        loop {
            if self.rest == Rest::Nothing || self.broken.is_some() {
                return Poll::Ready(None);
            }
            match self.rest.take(&mut self.wire.read, self.limit) {
                Ok(Some(piece)) => {
                    if self.rest == Rest::Nothing {
                        self.wake();
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Ok(None) if self.rest == Rest::Nothing => {
                    self.wake();
                    return Poll::Ready(None);
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.broken = Some(Broken::Malformed);
                    self.wake();
                    return Poll::Ready(Some(Err(PeerError::Malformed(refusal))));
                }
            }
            // Everything received has been consumed. As in Envoy, a client that half-closes a tunnel has left.
            if self.wire.ended || ready!(self.wire.poll_fill(cx)).is_err() {
                self.broken = Some(Broken::Gone);
                self.wake();
                return Poll::Ready(Some(Err(PeerError::BrokeOff)));
            }
        }
    }

    /// Waits until the client leaves.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.broken {
            Some(Broken::Gone) => return Poll::Ready(()),
            Some(Broken::Malformed) => return Poll::Pending,
            None => {}
        }
        // The bytes after an upgrade request are not read until the host has accepted it.
        if self.rest != Rest::Nothing && (self.wanted || self.rest != Rest::UntilEnd) {
            // The reader of the body notices it.
            if !self
                .watcher
                .as_ref()
                .is_some_and(|watcher| watcher.will_wake(cx.waker()))
            {
                self.watcher = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        while !self.wire.ended {
            if self.wire.read.len() >= AHEAD {
                return Poll::Pending;
            }
            if ready!(self.wire.poll_fill(cx)).is_err() {
                self.broken = Some(Broken::Gone);
                break;
            }
        }
        Poll::Ready(())
    }
}

/// The body of a downstream request.
#[derive(Debug)]
pub(crate) struct ClientStream(pub(super) Rc<RefCell<Connection>>);

/// Sends interim (1xx) responses to the client.
#[derive(Debug)]
pub(crate) struct InterimSender(pub(super) Rc<RefCell<Connection>>);

impl InterimSender {
    /// Sends one.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        encode::interim(&mut self.0.borrow_mut().wire.out, status, headers);
    }
}

impl Body for ClientStream {
    type Data = Bytes;
    type Error = PeerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        let piece = ready!(self.0.borrow_mut().poll_body(cx));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().rest == Rest::Nothing
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.borrow().rest {
            Rest::Nothing => SizeHint::with_exact(0),
            Rest::Length(left) => SizeHint::with_exact(left),
            Rest::Chunks(_) | Rest::UntilEnd => SizeHint::default(),
        }
    }
}
