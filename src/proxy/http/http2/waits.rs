//! The waiting operations of stream halves.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::connection::Connection;
use super::error::{Error, Reason};
use super::frame;
use super::head::ResponseHead;
use super::stream::{RecvState, register};

/// What a stream yields after its headers.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Connection {
    /// Waits for data, then trailers or the end.
    pub(super) fn poll_piece(&mut self, place: usize, cx: &Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        let Some(stream) = self.table.get_mut(place) else {
            return Poll::Ready(Some(Err(Error::Ended)));
        };
        if let Some(data) = stream.data.pop() {
            let len = data.len() as u32;
            let open = stream.recv != RecvState::Ended && stream.broken.is_none();
            if open && let Some(more) = stream.receiving.free(len) {
                frame::write_window_update(self.out.short(), stream.id, more);
                self.wake_driver();
            }
            self.free(len as usize);
            return Poll::Ready(Some(Ok(Piece::Data(data))));
        }
        match stream.broken {
            _ if stream.recv == RecvState::Ended => {
                let trailers = stream.trailers.take();
                Poll::Ready(trailers.map(|trailers| Ok(Piece::Trailers(trailers))))
            }
            Some(error) => Poll::Ready(Some(Err(error))),
            None => {
                register(&mut stream.reader, cx);
                Poll::Pending
            }
        }
    }

    /// Whether all that was received on a stream was taken.
    pub(super) fn is_taken(&mut self, place: usize) -> bool {
        self.table.get_mut(place).is_none_or(|stream| stream.is_taken())
    }

    /// Waits until the peer allows another stream.
    ///
    /// # Errors
    /// If it never will.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(error) = self.over() {
            return Poll::Ready(Err(error));
        }
        if self.is_leaving() {
            return Poll::Ready(Err(Error::GoneAway(Reason::NO_ERROR)));
        }
        if self.active >= self.room() {
            if !self.open_waiters.iter().any(|waiting| waiting.will_wake(cx.waker())) {
                self.open_waiters.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until a stream fails.
    pub(super) fn poll_broken(&mut self, place: usize, cx: &Context<'_>) -> Poll<Error> {
        match self.table.get_mut(place) {
            None => Poll::Ready(Error::Ended),
            Some(stream) => match stream.broken {
                Some(error) => Poll::Ready(error),
                None => {
                    register(&mut stream.writer, cx);
                    Poll::Pending
                }
            },
        }
    }

    /// Waits for response headers, final or interim.
    pub(super) fn poll_answer(&mut self, place: usize, cx: &Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        let Some(stream) = self.table.get_mut(place) else {
            return Poll::Ready(Err(Error::Ended));
        };
        let interim = stream.interim.take().map(|interim| *interim);
        if let Some(response) = interim.or_else(|| stream.answer.take()) {
            let length = stream.length;
            return Poll::Ready(Ok(ResponseHead { response, length }));
        }
        if let Some(error) = stream.broken {
            return Poll::Ready(Err(error));
        }
        register(&mut stream.reader, cx);
        Poll::Pending
    }

    /// Waits until all data given to a stream has been sent.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn poll_sent(&mut self, place: usize, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if let Poll::Ready(error) = self.poll_broken(place, cx) {
            return Poll::Ready(Err(error));
        }
        let waits = self
            .table
            .get_mut(place)
            .is_some_and(|stream| !stream.waiting.is_empty());
        if waits { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}
