//! Sends a body on a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::error::{Error, Reason};
use super::half::Sender;
use crate::proxy::http::body::{BodyError, Waiting};

/// A stream, and the body that is sent on it. It is polled only as the stream has room, and holds back one piece.
#[derive(Debug)]
pub(crate) struct Pump<B> {
    // Declared first, so dropped first: dropping the body asks the stream why it ended.
    body: B,
    sender: Sender,
    /// Whether it is a client's tunnel.
    tunnel: bool,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Waiting + Unpin> Pump<B> {
    /// For a body of which nothing was sent.
    pub(super) fn new(sender: Sender, body: B) -> Self {
        Self {
            body,
            sender,
            tunnel: false,
        }
    }

    /// The same for a tunnel, whose failure is signalled by CONNECT_ERROR (RFC 9113 section 8.5).
    pub(super) fn tunnel(sender: Sender, body: B) -> Self {
        Self {
            tunnel: true,
            ..Self::new(sender, body)
        }
    }

    /// Sends the whole body, unless the stream fails or the peer reads nothing for too long.
    ///
    /// # Errors
    /// If the stream fails.
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

    /// Waits until the last data is written. Resets the stream if that takes too long.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.poll_room(cx) {
            Poll::Ready(Err(Error::GivenUp(_))) => Poll::Ready(Ok(())),
            room => room,
        }
    }

    /// Waits for room. Resets the stream if that takes too long.
    ///
    /// # Errors
    /// If the stream fails.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let room = self.sender.poll_room(cx);
        if room.is_pending() && self.body.poll_overdue(cx).is_ready() {
            self.record_reset();
            return Poll::Ready(Err(Error::GivenUp(Reason::INTERNAL_ERROR)));
        }
        room
    }

    fn record_reset(&mut self) {
        self.sender.reset(match self.tunnel {
            true => Reason::CONNECT_ERROR,
            // The other side's error code is its own affair.
            false => Reason::INTERNAL_ERROR,
        });
    }

    /// Sends what the body yields and the peer takes. Ready at the end of the body.
    ///
    /// # Errors
    /// If the stream fails.
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
                    tracing::debug!(%error, "a body ended early");
                    self.record_reset();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
