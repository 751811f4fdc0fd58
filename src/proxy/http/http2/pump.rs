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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use http::{Request, Response};
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    const CHUNK: usize = 16 << 10;

    /// A body that is there at once, and counts what is taken of it.
    struct Chunks {
        left: usize,
        taken: Rc<Cell<usize>>,
    }

    impl Body for Chunks {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let Some(left) = self.left.checked_sub(1) else {
                return Poll::Ready(None);
            };
            self.left = left;
            self.taken.set(self.taken.get() + 1);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; CHUNK])))))
        }
    }

    #[tokio::test]
    async fn no_more_is_taken_of_a_body_than_the_peer_has_room_for() {
        let test = async {
            let (near, far) = tokio::io::duplex(1 << 20);
            let (client, server) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
            let ((mut client, driver), mut server) = (client.unwrap(), server.unwrap());
            spawn_local(driver);
            let request = Request::get("http://a/").body(()).unwrap();
            let (answer, _) = client.send_request(request, true).unwrap();
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let stream = respond.send_response(Response::new(()), false).unwrap();
            let taken = Rc::new(Cell::new(0));
            let body = Chunks {
                left: 20,
                taken: taken.clone(),
            };
            spawn_local(Pump::new(stream, body).run());
            spawn_local(async move { while server.accept().await.is_some() {} });
            let mut heard = answer.await.unwrap().into_body();
            for _ in 0..100 {
                yield_now().await;
            }
            // A window has room for almost four, one more waits in the stream, and one for room.
            assert!((4..=6).contains(&taken.get()), "{}", taken.get());
            let mut len = 0;
            while let Some(data) = heard.data().await {
                let data = data.unwrap();
                len += data.len();
                heard.flow_control().release_capacity(data.len()).unwrap();
            }
            assert_eq!((len, taken.get()), (20 * CHUNK, 20));
        };
        LocalSet::new().run_until(test).await;
    }
}
