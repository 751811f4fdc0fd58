//! A connection that counts its bytes and which side closes it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Io;

/// Byte counters, by Envoy's names. TLS overhead is not counted.
#[derive(Debug, Default)]
pub(crate) struct ByteStats {
    /// `…_rx_bytes_total`.
    pub(crate) rx_total: AtomicU64,
    /// `…_rx_bytes_buffered`: the size of the last read of each open connection. As in Envoy, it is set by reading and
    /// not by processing, so it stays until the next read.
    pub(crate) rx_buffered: AtomicU64,
    /// `…_tx_bytes_total`.
    pub(crate) tx_total: AtomicU64,
    /// `…_tx_bytes_buffered`: what a peer has not taken at once.
    pub(crate) tx_buffered: AtomicU64,
}

/// Closed connections, by the side that closed them.
#[derive(Debug, Default)]
pub(crate) struct Closings {
    /// `…_destroy_local`.
    pub(crate) local: AtomicU64,
    /// `…_destroy_remote`.
    pub(crate) remote: AtomicU64,
}

impl Closings {
    /// Counts a closed connection.
    pub(crate) fn count(&self, by_peer: bool) {
        let counter = if by_peer { &self.remote } else { &self.local };
        counter.fetch_add(1, Relaxed);
    }
}

/// Receives the counts of a connection.
pub(crate) trait Counts {
    /// The byte counters.
    fn bytes(&self) -> &ByteStats;

    /// The connection is closed; by the peer if its end was seen first.
    fn closed(&mut self, by_peer: bool);
}

/// A counted connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Metered<C: Counts> {
    io: Io,
    counts: C,
    /// This connection's part of `rx_buffered`.
    rx_buffered: usize,
    tx_buffered: usize,
    /// Whether the peer has closed it, or it failed.
    peer_ended: bool,
}

impl<C: Counts> Metered<C> {
    /// A connection that is counted from now on.
    pub(crate) fn new(io: Io, counts: C) -> Self {
        Self {
            io,
            counts,
            rx_buffered: 0,
            tx_buffered: 0,
            peer_ended: false,
        }
    }

    /// The receiver of the counts.
    pub(crate) fn counts(&mut self) -> &mut C {
        &mut self.counts
    }

    /// Makes closing the TCP connection send a reset, which discards unsent data, too.
    pub(crate) fn reset_when_closed(&self) {
        self.io.reset_when_closed();
    }

    /// Counts bytes read.
    fn received(&mut self, read: &io::Result<usize>) {
        let bytes = match read {
            Ok(bytes) => *bytes,
            Err(_) => 0,
        };
        self.peer_ended |= bytes == 0;
        let stats = self.counts.bytes();
        stats.rx_total.fetch_add(bytes as u64, Relaxed);
        change(&stats.rx_buffered, &mut self.rx_buffered, bytes);
    }

    /// Counts bytes written, and those that the peer has not taken.
    fn sent(&mut self, offered: usize, written: &Poll<io::Result<usize>>) {
        let bytes = match written {
            Poll::Ready(Ok(bytes)) => *bytes,
            Poll::Ready(Err(_)) => {
                self.peer_ended = true;
                return;
            }
            Poll::Pending => 0,
        };
        let stats = self.counts.bytes();
        stats.tx_total.fetch_add(bytes as u64, Relaxed);
        change(&stats.tx_buffered, &mut self.tx_buffered, offered - bytes);
    }
}

/// Changes a connection's part of a gauge.
fn change(sum: &AtomicU64, part: &mut usize, to: usize) {
    if *part != to {
        // Wraps if it is negative for a moment.
        sum.fetch_add((to as u64).wrapping_sub(*part as u64), Relaxed);
        *part = to;
    }
}

impl<C: Counts> Drop for Metered<C> {
    fn drop(&mut self) {
        let stats = self.counts.bytes();
        change(&stats.rx_buffered, &mut self.rx_buffered, 0);
        change(&stats.tx_buffered, &mut self.tx_buffered, 0);
        self.counts.closed(self.peer_ended);
    }
}

impl<C: Counts + Unpin> AsyncRead for Metered<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let read = read.map(|()| buf.filled().len() - before);
        self.received(&read);
        Poll::Ready(read.map(|_| ()))
    }
}

impl<C: Counts + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(buf.len(), &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(bufs.iter().map(|buf| buf.len()).sum(), &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Counted {
        bytes: Rc<ByteStats>,
        closed_by_peer: Rc<Cell<Option<bool>>>,
    }

    impl Counts for Counted {
        fn bytes(&self) -> &ByteStats {
            &self.bytes
        }

        fn closed(&mut self, by_peer: bool) {
            self.closed_by_peer.set(Some(by_peer));
        }
    }

    fn connection() -> (Metered<Counted>, UnixStream, Counted) {
        let (near, far) = UnixStream::pair().unwrap();
        let counted = Counted::default();
        (Metered::new(Io::Unix(near), counted.clone()), far, counted)
    }

    fn now(Counted { bytes, .. }: &Counted) -> [u64; 4] {
        let all = [&bytes.rx_total, &bytes.rx_buffered, &bytes.tx_total, &bytes.tx_buffered];
        all.map(|counter| counter.load(Relaxed))
    }

    #[tokio::test]
    async fn bytes_are_counted_and_what_is_buffered_goes_with_the_connection() {
        let (mut near, mut far, counted) = connection();
        far.write_all(b"hello").await.unwrap();
        near.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(now(&counted), [5, 5, 0, 0]);
        far.write_all(b"x").await.unwrap();
        near.read_exact(&mut [0; 1]).await.unwrap();
        near.write_all(b"answer").await.unwrap();
        assert_eq!(now(&counted), [6, 1, 6, 0]);
        // More than a socket holds.
        let much = vec![0; 16 << 20];
        let mut written = 0;
        poll_fn(|cx| {
            while let Poll::Ready(some) = Pin::new(&mut near).poll_write(cx, &much[written..]) {
                written += some.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(now(&counted), [6, 1, 6 + written as u64, (much.len() - written) as u64]);
        drop(near);
        assert_eq!(now(&counted), [6, 0, 6 + written as u64, 0]);
        assert_eq!(counted.closed_by_peer.get(), Some(false));
    }

    #[tokio::test]
    async fn a_peer_that_ends_a_connection_has_closed_it() {
        let (mut near, far, counted) = connection();
        drop(far);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(counted.closed_by_peer.get(), None);
        drop(near);
        assert_eq!(counted.closed_by_peer.get(), Some(true));
    }
}
