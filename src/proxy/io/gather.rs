//! Writes of one turn, gathered.
//!
//! HTTP/2 writes frame by frame: each is a system call, and over TLS a record. A [`Gathered`] connection keeps what is
//! written until the task that drives the protocol has had its turn; [`Turns::end`] then writes all of it at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept at most; more is written before the turn has ended.
const MOST: usize = 64 << 10;

/// Writes of this length are not worth a copy.
const LONG: usize = 16 << 10;

thread_local! {
    /// The buffer of this thread's turns: a connection that has nothing to write has none.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection whose writes are gathered.
#[derive(Debug)]
pub(crate) struct Gathered<I>(Rc<RefCell<Inner<I>>>);

/// The turns of the task that drives the connection.
#[derive(Debug)]
pub(crate) struct Turns<I>(Rc<RefCell<Inner<I>>>);

#[derive(Debug)]
struct Inner<I> {
    io: I,
    /// How many bytes have come.
    received: Rc<Cell<u64>>,
    /// What was taken and not yet written, from `written` on.
    held: Vec<u8>,
    written: usize,
    /// Whether the end of the turn has to flush.
    flush: bool,
    /// What the end of a turn met.
    failed: Option<io::Error>,
}

/// Makes a connection one whose writes wait for the end of the turn. Whoever drives it sees to that there is one.
pub(crate) fn gathered<I>(io: I) -> (Gathered<I>, Turns<I>) {
    let shared = Rc::new(RefCell::new(Inner {
        io,
        received: Rc::default(),
        held: Vec::new(),
        written: 0,
        flush: false,
        failed: None,
    }));
    (Gathered(shared.clone()), Turns(shared))
}

impl<I> Turns<I> {
    /// How many bytes have come, now and from now on.
    pub(crate) fn received(&self) -> Rc<Cell<u64>> {
        self.0.borrow().received.clone()
    }
}

impl<I: AsyncWrite + Unpin> Turns<I> {
    /// Drives the protocol: what it writes goes out at the end of each turn.
    pub(crate) async fn drive<T>(&self, mut protocol: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|cx| {
            let polled = protocol.as_mut().poll(cx);
            self.end(cx);
            polled
        })
        .await
    }

    /// Writes what has gathered. What the connection does not take at once wakes the task when it can.
    fn end(&self, cx: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = inner.poll_end(cx) {
            // The protocol learns of it with its next call.
            inner.failed = Some(error);
            inner.forget();
            cx.waker().wake_by_ref();
        }
    }
}

impl<I: AsyncWrite + Unpin> Inner<I> {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        if self.flush {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is held.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let some = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held[self.written..]))?;
            if some == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += some;
        }
        self.forget();
        Poll::Ready(Ok(()))
    }

    /// Nothing is held any more; the buffer goes back to the thread.
    fn forget(&mut self) {
        self.written = 0;
        if self.held.capacity() > 0 {
            self.held.clear();
            BUFFER.set(std::mem::take(&mut self.held));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if len >= LONG || self.held.len() + len > MOST {
            ready!(self.poll_held(cx))?;
        }
        if len >= LONG {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        if self.held.capacity() == 0 {
            self.held = BUFFER.take();
        }
        bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
        Poll::Ready(Ok(len))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gathered<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        let bytes = buf.filled().len() - before;
        inner.received.set(inner.received.get() + bytes as u64);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gathered<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if let Some(error) = inner.failed.take() {
            return Poll::Ready(Err(error));
        }
        inner.flush = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if let Some(error) = inner.failed.take() {
            return Poll::Ready(Err(error));
        }
        ready!(inner.poll_end(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn connection(room: usize) -> (Gathered<DuplexStream>, Turns<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(room);
        let (io, turns) = gathered(near);
        (io, turns, far)
    }

    async fn end(turns: &Turns<DuplexStream>) {
        poll_fn(|cx| {
            turns.end(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// What has arrived.
    async fn arrived(far: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        let read = poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut *far).poll_read(cx, &mut buf);
            Poll::Ready(polled.map(|read| read.map(|()| buf.filled().len())))
        });
        match read.await {
            Poll::Ready(Ok(len)) => bytes[..len].to_vec(),
            Poll::Ready(Err(_)) | Poll::Pending => Vec::new(),
        }
    }

    #[tokio::test]
    async fn writes_are_one_when_the_turn_ends() {
        let (mut io, turns, mut far) = connection(1 << 20);
        io.write_all(b"b").await.unwrap();
        io.flush().await.unwrap();
        io.write_all(b"c").await.unwrap();
        assert_eq!(arrived(&mut far).await, b"");
        end(&turns).await;
        assert_eq!(arrived(&mut far).await, b"bc");
    }

    #[tokio::test]
    async fn long_writes_and_those_beyond_the_limit_keep_their_order() {
        let (mut io, _turns, mut far) = connection(1 << 20);
        io.write_all(b"first").await.unwrap();
        io.write_all(&[b'x'; LONG]).await.unwrap();
        let seen = arrived(&mut far).await;
        assert!(seen.starts_with(b"firstx") && seen.len() == 5 + LONG, "{}", seen.len());
        for _ in 0..=MOST / 1000 {
            io.write_all(&[b'y'; 1000]).await.unwrap();
        }
        assert_eq!(arrived(&mut far).await.len(), MOST / 1000 * 1000);
    }

    #[tokio::test]
    async fn what_is_not_taken_goes_when_there_is_room_and_the_end_waits_for_it() {
        let (mut io, turns, mut far) = connection(4);
        io.write_all(b"123456").await.unwrap();
        end(&turns).await;
        assert_eq!(arrived(&mut far).await, b"1234");
        end(&turns).await;
        assert_eq!(arrived(&mut far).await, b"56");
        io.write_all(b"last").await.unwrap();
        io.shutdown().await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
    }

    #[tokio::test]
    async fn what_fails_at_the_end_of_a_turn_is_told_with_the_next_call() {
        let (mut io, turns, far) = connection(4);
        io.write_all(b"1").await.unwrap();
        drop(far);
        end(&turns).await;
        assert!(io.flush().await.is_err());
    }
}
