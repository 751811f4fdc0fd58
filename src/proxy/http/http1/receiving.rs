//! What a client's connection is to those who deal with a request: its body, a place for interim answers, and whether the
//! client is still there.

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

/// What is read of further requests while one is being answered, at most.
const AHEAD: usize = 16 << 10;

/// The connection, as those see it who read the body of the request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire<Metered<Open>>,
    /// What is still to come of the request.
    pub(super) rest: Rest,
    /// How long trailers may be.
    limit: usize,
    /// Whether anybody reads the body.
    pub(super) wanted: bool,
    /// What is wrong with the body.
    pub(super) broken: Option<Broken>,
    /// Who waits for the end of the body, or for the end of all.
    watcher: Option<Waker>,
    /// Room for the places of headers, used again.
    pub(super) fields: Vec<Field>,
}

/// Why a body is not complete and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is none.
    Malformed,
    /// The client went away.
    Gone,
}

impl Connection {
    /// One that is to carry requests.
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

    /// Counts what goes by for a request from now on: of what came with its head all that was not of another, as in Envoy.
    pub(super) fn meter(&mut self, came: usize, headers: usize) {
        let meter = Meter::default();
        meter.receive(came);
        meter.receive_headers(headers);
        self.wire.meter = Some(Rc::new(meter));
    }

    /// Wakes whoever watches the connection: the body is over, one way or another.
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
            // Nothing of what has come is left. A client that ends a tunnel has gone, as in Envoy.
            if self.wire.ended || ready!(self.wire.poll_fill(cx)).is_err() {
                self.broken = Some(Broken::Gone);
                self.wake();
                return Poll::Ready(Some(Err(PeerError::BrokeOff)));
            }
        }
    }

    /// Waits until the client goes away.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.broken {
            Some(Broken::Gone) => return Poll::Ready(()),
            Some(Broken::Malformed) => return Poll::Pending,
            None => {}
        }
        // What is to go over to another protocol waits for the host's word, and nobody reads what follows until then.
        if self.rest != Rest::Nothing && (self.wanted || self.rest != Rest::UntilEnd) {
            // Who reads the body sees it.
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

/// The body of a client's request.
#[derive(Debug)]
pub(crate) struct ClientStream(pub(super) Rc<RefCell<Connection>>);

/// Tells a client interim answers to its request.
#[derive(Debug)]
pub(crate) struct Teller(pub(super) Rc<RefCell<Connection>>);

impl Teller {
    /// Tells one.
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
