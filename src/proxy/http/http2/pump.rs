//! A body on its way into a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::error::{Error, Reason};
use super::half::Sender;
use crate::proxy::http::body::{BodyError, Waiting};

/// The stream, and what is left of the body. No more is taken of it than the stream has room for, and one piece.
#[derive(Debug)]
pub(crate) struct Pump<B> {
    // Dropped first: it asks the stream why it was not taken.
    body: B,
    sender: Sender,
    /// Whether it is what goes by in a client's tunnel.
    tunnel: bool,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Waiting + Unpin> Pump<B> {
    /// Nothing of the body has been sent.
    pub(super) fn new(sender: Sender, body: B) -> Self {
        Self {
            body,
            sender,
            tunnel: false,
        }
    }

    /// The same, of a tunnel: one that fails is told so (RFC 9113 section 8.5).
    pub(super) fn tunnel(sender: Sender, body: B) -> Self {
        Self {
            tunnel: true,
            ..Self::new(sender, body)
        }
    }

    /// Sends all of it, unless the peer resets the stream, or takes nothing of it for too long.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending => self.sender.poll_broken(cx).map(Err),
            ready => ready,
        })
        .await?;
        if self.sender.is_held_up() {
            poll_fn(|cx| self.poll_last(cx)).await?;
        }
        self.body.written();
        Ok(())
    }

    /// Waits until the last of it is written. The stream is reset if that takes too long.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.poll_room(cx) {
            Poll::Ready(Err(Error::GivenUp(_))) => Poll::Ready(Ok(())),
            room => room,
        }
    }

    /// Waits for room for more. The stream is reset if it does not come in time.
    ///
    /// # Errors
    /// When the stream breaks.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let room = self.sender.poll_room(cx);
        if room.is_pending() && self.body.poll_overdue(cx).is_ready() {
            self.give_up();
            return Poll::Ready(Err(Error::GivenUp(Reason::INTERNAL_ERROR)));
        }
        room
    }

    fn give_up(&mut self) {
        self.sender.reset(match self.tunnel {
            true => Reason::CONNECT_ERROR,
            // Whatever it was: what a peer says to us is not meant for others.
            false => Reason::INTERNAL_ERROR,
        });
    }

    /// Sends as much as there is and the peer takes. Ready when that was the last.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.poll_room(cx))?;
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.sender.data(Bytes::new(), true));
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    let last = self.body.is_end_stream();
                    self.sender.data(data, last)?;
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                }
                Ok(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.sender.trailers(&trailers));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a body broke off");
                    self.give_up();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
