//! Drives the socket of an HTTP/2 connection: reads and processes frames, and writes once a turn what that produced.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::connection::{Connection, Shared};
use super::error::{Error, Reason};
use super::frame::{HEAD, Head, LARGEST};
use crate::proxy::http::connection::PREFACE;
use crate::proxy::io::reading::Room;

/// How much is read in one turn.
const TURN: usize = 256 << 10;

/// Read size while what is received is discarded.
const UNREAD: usize = 8 << 10;

/// The driver of a connection.
#[derive(Debug)]
pub(super) struct Driver<I> {
    io: I,
    connection: Shared,
    read: BytesMut,
    room: Room,
    /// What is still to be received of the client's preface.
    preface: &'static [u8],
}

impl<I: AsyncRead + AsyncWrite + Unpin> Driver<I> {
    /// For a downstream connection, of which `read` has been read already.
    pub(super) fn server(io: I, read: BytesMut, connection: Shared) -> Self {
        Self {
            io,
            connection,
            read,
            room: Room::default(),
            preface: PREFACE,
        }
    }

    /// For an upstream connection.
    pub(super) fn client(io: I, connection: Shared) -> Self {
        Self {
            preface: b"",
            ..Self::server(io, BytesMut::new(), connection)
        }
    }

    /// The socket, for tests.
    #[cfg(any(test, fuzzing))]
    pub(super) fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// Reads and processes what has been received. Ready when nothing more will be.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut most = TURN;
        loop {
            match self.understand() {
                Ok(true) => {}
                // The flush at the end of the turn wakes the task.
                Ok(false) => return Poll::Pending,
                Err(reason) => return Poll::Ready(Error::Broken(reason)),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Error::Ended),
                Ok(len) => most = most.saturating_sub(len),
                Err(error) => return Poll::Ready(error.into()),
            }
            if most == 0 {
                let understood = self.understand();
                cx.waker().wake_by_ref();
                return match understood {
                    Ok(_) => Poll::Pending,
                    Err(reason) => Poll::Ready(Error::Broken(reason)),
                };
            }
        }
    }

    /// Processes the frames received. Returns whether more may be read now.
    fn understand(&mut self) -> Result<bool, Reason> {
        if !self.preface.is_empty() {
            let len = self.read.len().min(self.preface.len());
            let (expected, rest) = self.preface.split_at(len);
            if self.read[..len] != *expected {
                return Err(Reason::PROTOCOL_ERROR);
            }
            self.preface = rest;
            self.read.advance(len);
            if !rest.is_empty() {
                return Ok(true);
            }
        }
        let mut connection = self.connection.borrow_mut();
        while let Some(head) = Head::parse(&self.read) {
            if head.len > LARGEST {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            if connection.is_backlogged() {
                return Ok(false);
            }
            if self.read.len() < HEAD + head.len {
                break;
            }
            self.read.advance(HEAD);
            let payload = self.read.split_to(head.len).freeze();
            connection.receive(head, payload)?;
        }
        Ok(true)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = ready!(self.room.poll_fill(cx, &mut self.io, &mut self.read))?;
        self.connection.borrow_mut().received += len as u64;
        Poll::Ready(Ok(len))
    }

    /// The end of a turn: writes as much as the peer takes.
    ///
    /// # Errors
    /// If the connection fails.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = &mut *self.connection.borrow_mut();
        let clogged = connection.is_backlogged();
        let polled = loop {
            connection.send_waiting();
            if connection.out.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match connection.out.poll_flush(cx, &mut self.io) {
                Poll::Ready(Ok(())) => connection.pending_control = 0,
                polled => break polled,
            }
        };
        connection.turn_ends();
        if clogged && !connection.is_backlogged() {
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Ends all streams and sends GOAWAY, as far as the peer takes it at once.
    pub(super) fn leave(&mut self, error: Error, cx: &mut Context<'_>) {
        self.over(error);
        // The peer may have left.
        if self.poll_write(cx).is_ready() {
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
        }
    }

    /// Sends GOAWAY, half-closes the connection and waits up to `linger` for the peer to close it. Closing at once
    /// while the peer still sends would make the kernel reset the connection, and the peer might lose the last frames.
    pub(super) async fn close(mut self, error: Error, linger: Duration) {
        self.over(error);
        if let Error::Io(_) = error {
            return;
        }
        let closing = async {
            poll_fn(|cx| {
                ready!(self.poll_write(cx))?;
                Pin::new(&mut self.io).poll_shutdown(cx)
            })
            .await?;
            let mut unread = BytesMut::with_capacity(UNREAD);
            while self.io.read_buf(&mut unread).await? > 0 {
                unread.clear();
            }
            io::Result::Ok(())
        };
        // Either the peer closes or the time is up.
        let _ = tokio::time::timeout(linger, closing).await;
    }

    fn over(&self, error: Error) {
        let connection = &mut *self.connection.borrow_mut();
        connection.fail(error);
        if let Error::Broken(reason) = error {
            connection.send_goaway(reason);
        }
    }
}

impl Connection {
    /// Wraps it for sharing.
    pub(super) fn shared(self) -> Shared {
        Rc::new(RefCell::new(self))
    }
}
