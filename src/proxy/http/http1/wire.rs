//! A connection's read buffer and outbox.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::http::meter::Meter;
use crate::proxy::io::reading::{Room, give_back};

/// How much is gathered before it is written.
const GATHERED: usize = 32 << 10;

/// Pieces this long are written from where they are, not copied.
const LONG: usize = 8 << 10;

thread_local! {
    /// The thread's spare write buffer: an idle connection holds none.
    static WRITING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection with its buffers.
#[derive(Debug)]
pub(crate) struct Wire<I> {
    io: I,
    /// Bytes received and not yet consumed.
    pub(crate) read: BytesMut,
    room: Room,
    /// Whether the peer has half-closed the connection.
    pub(crate) ended: bool,
    /// Bytes to be written.
    pub(crate) out: Outbox,
    /// Counts the bytes on the wire of the current request.
    pub(crate) meter: Option<Rc<Meter>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    /// A connection of which `read` has been read already.
    pub(crate) fn new(io: I, read: BytesMut) -> Self {
        Self {
            io,
            read,
            room: Room::default(),
            ended: false,
            out: Outbox::default(),
            meter: None,
        }
    }

    /// Reads. When ready, more bytes are there or the peer has ended.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let len = ready!(self.room.poll_fill(cx, &mut self.io, &mut self.read))?;
        self.ended = len == 0;
        if let Some(meter) = &self.meter {
            meter.receive(len);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the peer of a connection that waits for nothing has neither sent anything nor ended.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Returns an empty buffer to the thread, for the next connection that reads.
    pub(crate) fn release_buffer(&mut self) {
        give_back(&mut self.read);
    }

    /// Writes everything in the outbox.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(meter) = &self.meter else {
            return self.out.poll_flush(cx, &mut self.io);
        };
        let before = self.out.unwritten();
        let polled = self.out.poll_flush(cx, &mut self.io);
        meter.send(before - self.out.unwritten());
        polled
    }

    /// Writes everything in the outbox and half-closes the connection.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes to be written: short pieces gathered, then one long piece, then a static end.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    short: Vec<u8>,
    written: usize,
    long: Bytes,
    after: &'static [u8],
    unflushed: bool,
}

impl Outbox {
    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty() && self.after.is_empty() && !self.unflushed
    }

    /// How much is unwritten.
    pub(crate) fn unwritten(&self) -> usize {
        self.short.len() - self.written + self.long.len() + self.after.len()
    }

    /// How many header bytes were added since the outbox held `before` bytes, not counting the first line.
    pub(crate) fn headers_since(&self, before: usize) -> usize {
        let head = self.short.get(before..).unwrap_or_default();
        let first = head.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        (head.len() - first).saturating_sub(b"\r\n".len())
    }

    /// Whether it takes another piece before the next write.
    pub(crate) fn has_room(&self) -> bool {
        self.long.is_empty() && self.after.is_empty() && self.short.len() < GATHERED
    }

    /// The buffer for short pieces; only while [`Outbox::has_room`].
    pub(crate) fn short(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.has_room());
        if self.short.capacity() == 0 {
            self.short = WRITING.take();
        }
        &mut self.short
    }

    /// Adds a piece, and what follows it.
    pub(crate) fn put(&mut self, piece: Bytes, after: &'static [u8]) {
        if piece.len() < LONG {
            let short = self.short();
            short.extend_from_slice(&piece);
            short.extend_from_slice(after);
        } else {
            (self.long, self.after) = (piece, after);
        }
    }

    /// Drops what can no longer be written.
    pub(crate) fn forget(&mut self) {
        self.written = 0;
        (self.long, self.after, self.unflushed) = (Bytes::new(), b"", false);
        if self.short.capacity() > 0 {
            self.short.clear();
            WRITING.set(std::mem::take(&mut self.short));
        }
    }

    fn poll_flush<I: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut I) -> Poll<io::Result<()>> {
        loop {
            let short = &self.short[self.written..];
            let written = match (short.is_empty(), self.long.is_empty() && self.after.is_empty()) {
                (true, true) => break,
                (false, true) => Pin::new(&mut *io).poll_write(cx, short),
                _ => {
                    let pieces = [short, &self.long, self.after].map(IoSlice::new);
                    let from = usize::from(short.is_empty());
                    Pin::new(&mut *io).poll_write_vectored(cx, &pieces[from..])
                }
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.advance(len),
            }
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
        }
        self.forget();
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, len: usize) {
        self.unflushed = true;
        let short = len.min(self.short.len() - self.written);
        self.written += short;
        let long = (len - short).min(self.long.len());
        self.long.advance(long);
        self.after = &self.after[len - short - long..];
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_put_in_comes_out_in_order_whatever_the_peer_takes() {
        for taken in [1, 7, 1 << 20] {
            let (near, mut far) = duplex(taken);
            let mut wire = Wire::new(near, BytesMut::new());
            let long = Bytes::from(vec![b'l'; LONG]);
            let expected = [b"short piece;".as_slice(), &long, b"end;next;"].concat();
            let writing = async {
                wire.out.short().extend_from_slice(b"short ");
                wire.out.put(Bytes::from_static(b"piece"), b";");
                wire.out.put(long.clone(), b"end;");
                assert!(!wire.out.has_room());
                poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
                assert!(wire.out.is_empty() && wire.out.has_room());
                wire.out.put(Bytes::from_static(b"next;"), b"");
                poll_fn(|cx| wire.poll_shutdown(cx)).await.unwrap();
            };
            let mut got = Vec::new();
            let reading = far.read_to_end(&mut got);
            let ((), read) = tokio::join!(writing, reading);
            assert_eq!(read.unwrap(), expected.len());
            assert!(got == expected, "{taken}");
        }
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_happens_has_no_buffer() {
        let (near, mut far) = duplex(100);
        let mut wire = Wire::new(near, BytesMut::new());
        let mut fill = async || poll_fn(|cx| Poll::Ready(wire.poll_fill(cx).is_ready())).await;
        assert!(!fill().await);
        far.write_all(b"some").await.unwrap();
        assert!(fill().await && !fill().await);
        assert_eq!(wire.read, "some");
        wire.read.clear();
        assert!(poll_fn(|cx| Poll::Ready(wire.poll_fill(cx).is_pending())).await);
        assert_eq!(wire.read.capacity(), 0);
        drop(far);
        assert!(poll_fn(|cx| wire.poll_fill(cx)).await.is_ok() && wire.ended);
    }

    #[tokio::test]
    async fn connections_take_turns_with_a_buffer() {
        let (one, mut to_one) = duplex(100);
        let (two, mut to_two) = duplex(100);
        let mut wires = [one, two].map(|near| Wire::new(near, BytesMut::new()));
        to_one.write_all(b"some").await.unwrap();
        to_two.write_all(b"more").await.unwrap();
        let mut buffers = Vec::new();
        for wire in &mut wires {
            poll_fn(|cx| wire.poll_fill(cx)).await.unwrap();
            let taken = wire.read.split();
            wire.release_buffer();
            assert_eq!(wire.read.capacity(), 0);
            buffers.push(taken.as_ptr().addr() + taken.len());
        }
        // What the second said stands right behind what the first did.
        assert_eq!(buffers[1] - buffers[0], 4);
    }
}
