//! The two halves of a stream, for those who receive from it and those who send on it. A half that is dropped before its
//! end gives it up: the stream is reset.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::connection::Shared;
use super::error::{Error, Reason};
use super::head::{Answer, write_answer};
use super::waits::Piece;
use crate::proxy::flags::Flags;
use crate::proxy::http::meter::Meter;

/// What comes on a stream.
pub(super) struct Receiver {
    connection: Shared,
    place: usize,
}

/// What goes out on a stream.
pub(super) struct Sender {
    connection: Shared,
    place: usize,
}

impl Receiver {
    pub(super) fn new(connection: Shared, place: usize) -> Self {
        Self { connection, place }
    }

    /// The head of a host's answer.
    pub(super) fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Result<Answer, Error>> {
        self.connection.borrow_mut().poll_answer(self.place, cx)
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        self.connection.borrow_mut().poll_heard(self.place, cx)
    }

    /// Whether all of it was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.connection.borrow_mut().is_taken(self.place)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.connection.borrow_mut().receiver_leaves(self.place);
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what comes on stream {}", self.place)
    }
}

impl Sender {
    pub(super) fn new(connection: Shared, place: usize) -> Self {
        Self { connection, place }
    }

    /// Tells interim answers on the same stream.
    pub(super) fn teller(&self) -> Teller {
        Teller {
            connection: self.connection.clone(),
            place: self.place,
        }
    }

    /// Why the stream is over before its time, if it is.
    pub(super) fn broken(&self) -> Option<Error> {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.table.get_mut(self.place);
        stream.map_or(Some(Error::Ended), |stream| stream.broken)
    }

    /// Where bytes on the wire are counted, if they are.
    pub(super) fn meter(&self) -> Option<Rc<Meter>> {
        let mut connection = self.connection.borrow_mut();
        connection.table.get_mut(self.place)?.meter.clone()
    }

    /// Answers with a head, which may be all.
    ///
    /// # Errors
    /// When the stream is broken.
    pub(super) fn answer(&mut self, head: &Response<()>, ended: bool) -> Result<(), Error> {
        let mut connection = self.connection.borrow_mut();
        connection.answer(self.place, ended, |encoder, out| {
            write_answer(encoder, head.status(), head.headers(), out);
        })
    }

    /// Waits until there is room for more.
    ///
    /// # Errors
    /// When the stream is broken.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.connection.borrow_mut().poll_sent(self.place, cx)
    }

    /// Whether some of what was given to it waits for room.
    pub(super) fn is_held_up(&self) -> bool {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.table.get_mut(self.place);
        stream.is_some_and(|stream| stream.broken.is_none() && !stream.waiting.is_empty())
    }

    /// Waits until the stream is broken.
    pub(super) fn poll_broken(&mut self, cx: &Context<'_>) -> Poll<Error> {
        self.connection.borrow_mut().poll_broken(self.place, cx)
    }

    /// Sends data, for which there is room.
    ///
    /// # Errors
    /// When the stream is broken.
    pub(super) fn data(&mut self, data: Bytes, last: bool) -> Result<(), Error> {
        self.connection.borrow_mut().say(self.place, data, last)
    }

    /// Sends trailers, which are the last.
    ///
    /// # Errors
    /// When the stream is broken.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        self.connection.borrow_mut().trailers(self.place, trailers)
    }

    /// Resets the stream.
    pub(super) fn reset(&mut self, reason: Reason) {
        let mut connection = self.connection.borrow_mut();
        connection.reset(self.place, reason, Error::GivenUp(reason));
    }
}

/// Tells a client interim answers on a stream, for as long as its [`Sender`] is there.
pub(crate) struct Teller {
    connection: Shared,
    place: usize,
}

impl Teller {
    /// Tells one.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        let mut connection = self.connection.borrow_mut();
        connection.interim(self.place, |encoder, out| write_answer(encoder, status, headers, out));
    }

    /// The flag and the `%RESPONSE_CODE_DETAILS%` of a stream that the client has reset, or that was reset for what it said.
    pub(crate) fn reset(&self) -> Option<(Flags, &'static str)> {
        let mut connection = self.connection.borrow_mut();
        match connection.table.get_mut(self.place)?.broken? {
            Error::Reset(Reason::PROTOCOL_ERROR) => Some((Flags::DOWNSTREAM_PROTOCOL_ERROR, "http2.remote_reset")),
            Error::Reset(Reason::REFUSED_STREAM) => Some((Flags::DOWNSTREAM_REMOTE_RESET, "http2.remote_refuse")),
            Error::Reset(_) => Some((Flags::DOWNSTREAM_REMOTE_RESET, "http2.remote_reset")),
            Error::Unwanted(details) => Some((Flags::DOWNSTREAM_REMOTE_RESET, details)),
            Error::Broken(_) | Error::GivenUp(_) | Error::GoneAway(_) | Error::Ended | Error::Io(_) => None,
        }
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interim answers on stream {}", self.place)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.connection.borrow_mut().sender_leaves(self.place);
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what goes out on stream {}", self.place)
    }
}
