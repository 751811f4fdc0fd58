//! The two halves of a stream, for those who receive and those who send on it. Dropping a half before its end resets
//! the stream.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::connection::Shared;
use super::error::{Error, Reason};
use super::head::{ResponseHead, write_answer};
use super::waits::Piece;
use crate::proxy::flags::Flags;
use crate::proxy::http::meter::Meter;

/// The receiving half of a stream.
pub(super) struct Receiver {
    connection: Shared,
    place: usize,
}

/// The sending half of a stream.
pub(super) struct Sender {
    connection: Shared,
    place: usize,
}

impl Receiver {
    pub(super) fn new(connection: Shared, place: usize) -> Self {
        Self { connection, place }
    }

    /// Waits for the response headers.
    pub(super) fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        self.connection.borrow_mut().poll_answer(self.place, cx)
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        self.connection.borrow_mut().poll_piece(self.place, cx)
    }

    /// Whether everything received was taken.
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
        write!(f, "receiving on stream {}", self.place)
    }
}

impl Sender {
    pub(super) fn new(connection: Shared, place: usize) -> Self {
        Self { connection, place }
    }

    /// Sends interim responses on the same stream.
    pub(super) fn interim_sender(&self) -> InterimSender {
        InterimSender {
            connection: self.connection.clone(),
            place: self.place,
        }
    }

    /// Why the stream failed, if it did.
    pub(super) fn broken(&self) -> Option<Error> {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.table.get_mut(self.place);
        stream.map_or(Some(Error::Ended), |stream| stream.broken)
    }

    /// The counter of its bytes on the wire, if they are counted.
    pub(super) fn meter(&self) -> Option<Rc<Meter>> {
        let mut connection = self.connection.borrow_mut();
        connection.table.get_mut(self.place)?.meter.clone()
    }

    /// Sends response headers, and the end of the stream with them if `ended`.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn answer(&mut self, head: &Response<()>, ended: bool) -> Result<(), Error> {
        let mut connection = self.connection.borrow_mut();
        connection.answer(self.place, ended, |encoder, out| {
            write_answer(encoder, head.status(), head.headers(), out);
        })
    }

    /// Waits until more data can be sent.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.connection.borrow_mut().poll_sent(self.place, cx)
    }

    /// Whether flow control or the outbox holds back data that was given to it.
    pub(super) fn is_held_up(&self) -> bool {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.table.get_mut(self.place);
        stream.is_some_and(|stream| stream.broken.is_none() && !stream.waiting.is_empty())
    }

    /// Waits until the stream fails.
    pub(super) fn poll_broken(&mut self, cx: &Context<'_>) -> Poll<Error> {
        self.connection.borrow_mut().poll_broken(self.place, cx)
    }

    /// Sends data, for which [`Sender::poll_room`] was ready.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn data(&mut self, data: Bytes, last: bool) -> Result<(), Error> {
        self.connection.borrow_mut().say(self.place, data, last)
    }

    /// Sends trailers, which end it.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        self.connection.borrow_mut().trailers(self.place, trailers)
    }

    /// Resets the stream.
    pub(super) fn reset(&mut self, reason: Reason) {
        let mut connection = self.connection.borrow_mut();
        connection.reset(self.place, reason, Error::GivenUp(reason));
    }
}

/// Sends interim responses on a stream, as long as its [`Sender`] lives.
pub(crate) struct InterimSender {
    connection: Shared,
    place: usize,
}

impl InterimSender {
    /// Sends one.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        let mut connection = self.connection.borrow_mut();
        connection.interim(self.place, |encoder, out| write_answer(encoder, status, headers, out));
    }

    /// Flag and `%RESPONSE_CODE_DETAILS%` of a stream that the client reset, or that was reset for what it sent.
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

impl fmt::Debug for InterimSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interim responses on stream {}", self.place)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.connection.borrow_mut().sender_leaves(self.place);
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sending on stream {}", self.place)
    }
}
