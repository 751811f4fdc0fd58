//! What is read from a connection, into a buffer that the connections of a thread share while nothing comes on them.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at once: little from who says little, more from who fills it. So long as there is room for the least,
/// short messages share a buffer.
const LEAST: usize = 2 << 10;
const USUAL: usize = 8 << 10;
const MOST: usize = 64 << 10;

thread_local! {
    /// The buffer of this thread: a connection on which nothing happens has none.
    static SHARED: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// How much is read from a connection next.
#[derive(Debug)]
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl Room {
    /// Reads what has come, and says how much it was: nothing when the peer has sent all it will.
    pub(crate) fn poll_fill<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
        read: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if read.capacity() == 0 {
            *read = SHARED.take();
        }
        let least = if self.0 > USUAL { self.0 } else { LEAST };
        if read.capacity() - read.len() < least {
            read.reserve(self.0);
        }
        let free = read.capacity() - read.len();
        let polled = pin!(io.read_buf(read)).poll(cx);
        match polled {
            Poll::Ready(Ok(0)) => {}
            Poll::Ready(Ok(len)) if len == free => self.0 = (2 * self.0).min(MOST),
            Poll::Ready(Ok(_)) => self.0 = USUAL,
            // TLS that ends without saying so.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => give_back(read),
        }
        polled
    }
}

/// Gives a buffer back to the thread, if there is nothing in it: for the next connection of which something is read.
pub(crate) fn give_back(read: &mut BytesMut) {
    if read.is_empty() && read.capacity() > 0 {
        SHARED.set(std::mem::take(read));
    }
}
