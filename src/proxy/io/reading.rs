//! Reading into a buffer that idle connections of a thread share.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Sizes of reads: small for connections that send little, growing as they fill it. As long as there is room for the
/// smallest, short messages share a buffer.
const LEAST: usize = 2 << 10;
const USUAL: usize = 8 << 10;
const MOST: usize = 64 << 10;

thread_local! {
    /// The thread's spare read buffer: an idle connection holds none.
    static SHARED: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// The size of a connection's next read.
#[derive(Debug)]
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl Room {
    /// Reads; returns how many bytes were received, 0 at the end.
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
            // TLS that ends without close_notify.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => give_back(read),
        }
        polled
    }
}

/// Returns an empty buffer to the thread, for the next connection that reads.
pub(crate) fn give_back(read: &mut BytesMut) {
    if read.is_empty() && read.capacity() > 0 {
        SHARED.set(std::mem::take(read));
    }
}
