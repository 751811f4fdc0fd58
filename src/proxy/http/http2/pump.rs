//! A body on its way into a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use crate::proxy::http::body::BodyError;

/// The stream, and what is left of the body.
#[derive(Debug)]
pub(crate) struct Pump<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// Data that waits for room, and whether it is the last.
    held: Option<(Bytes, bool)>,
    /// Whether what was sent last may itself wait for room.
    full: bool,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Pump<B> {
    /// Nothing of the body has been sent.
    pub(crate) fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self {
            stream,
            body,
            held: None,
            full: false,
        }
    }

    /// Sends all of it, unless the peer resets the stream.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) async fn run(mut self) -> Result<(), h2::Error> {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending => self.stream.poll_reset(cx).map(|reason| reason.map(|_| ())),
            ready => ready,
        })
        .await
    }

    /// Sends as much as there is and the peer takes. Ready when that was the last.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if let Some((data, last)) = &mut self.held {
                ready!(poll_room(&mut self.stream, cx))?;
                let (data, last) = (std::mem::take(data), *last);
                self.held = None;
                self.stream.send_data(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.stream.send_data(Bytes::new(), true));
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    let last = self.body.is_end_stream();
                    if self.full && !data.is_empty() {
                        self.held = Some((data, last));
                        continue;
                    }
                    // The first need not ask for room: it waits in the stream for it.
                    self.full = !data.is_empty();
                    self.stream.send_data(data, last)?;
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                }
                Ok(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.stream.send_trailers(trailers));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a body broke off");
                    self.stream.send_reset(error.reason());
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Waits until what was sent has found room in the peer's windows, and there is room for more.
fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    // Only when there is something to send, and no more than a byte, which the data makes more of: what a slow body would
    // claim of the connection's window, other streams would be without.
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(room) => drop(room?),
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        }
    }
    Poll::Ready(Ok(()))
}
