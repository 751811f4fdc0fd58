//! Bytes to be written: heads and short pieces are gathered in one buffer, long pieces are written between them without
//! copying.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// How much is gathered; more data waits in its stream.
const GATHERED: usize = 64 << 10;

/// Pieces this long are not copied.
const LONG: usize = 8 << 10;

/// How many long pieces one write takes.
const PIECES: usize = 15;

/// Buffers that have grown beyond this are freed.
const KEPT: usize = 256 << 10;

thread_local! {
    /// The thread's spare write buffer: an idle connection holds none.
    static WRITING: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Bytes to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    short: BytesMut,
    /// How much of `short` is written.
    written: usize,
    /// Long pieces, and the offset in `short` before which each goes.
    long: VecDeque<(usize, Bytes)>,
    /// Their total length.
    long_len: usize,
    unflushed: bool,
}

impl Outbox {
    /// How much is unwritten.
    pub(super) fn unwritten(&self) -> usize {
        self.short_len() + self.long_len
    }

    /// How much of that is not in long pieces.
    pub(super) fn short_len(&self) -> usize {
        self.short.len() - self.written
    }

    /// Whether everything is written.
    pub(super) fn is_empty(&self) -> bool {
        self.unwritten() == 0 && !self.unflushed
    }

    /// Whether it takes more data.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten() < GATHERED
    }

    /// The buffer for frames.
    pub(super) fn short(&mut self) -> &mut BytesMut {
        if self.short.capacity() == 0 {
            self.short = WRITING.take();
        }
        &mut self.short
    }

    /// Adds a piece of data.
    pub(super) fn put(&mut self, piece: Bytes) {
        if piece.len() < LONG {
            return self.short().extend_from_slice(&piece);
        }
        self.long_len += piece.len();
        self.long.push_back((self.short.len(), piece));
    }

    /// Drops what can no longer be written.
    pub(super) fn forget(&mut self) {
        self.long.clear();
        (self.written, self.long_len, self.unflushed) = (0, 0, false);
        if (1..=KEPT).contains(&self.short.capacity()) {
            self.short.clear();
            WRITING.set(std::mem::take(&mut self.short));
        } else {
            self.short = BytesMut::new();
        }
    }

    /// Writes everything.
    pub(super) fn poll_flush<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        while self.unwritten() > 0 {
            let written = match self.long.is_empty() {
                true => Pin::new(&mut *io).poll_write(cx, &self.short[self.written..]),
                false => self.poll_pieces(cx, io),
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

    fn poll_pieces<I: AsyncWrite + Unpin>(&self, cx: &mut Context<'_>, io: &mut I) -> Poll<io::Result<usize>> {
        let mut pieces = [IoSlice::new(&[]); 2 * PIECES + 1];
        let (mut count, mut from) = (0, self.written);
        let mut add = |piece| {
            pieces[count] = IoSlice::new(piece);
            count += usize::from(!<[u8]>::is_empty(piece));
        };
        for (at, long) in self.long.iter().take(PIECES) {
            add(&self.short[from..*at]);
            add(long);
            from = *at;
        }
        if self.long.len() <= PIECES {
            add(&self.short[from..]);
        }
        Pin::new(io).poll_write_vectored(cx, &pieces[..count])
    }

    fn advance(&mut self, mut len: usize) {
        self.unflushed = true;
        while let Some((at, long)) = self.long.front_mut() {
            let short = len.min(*at - self.written);
            self.written += short;
            len -= short;
            let some = len.min(long.len());
            long.advance(some);
            self.long_len -= some;
            len -= some;
            if len == 0 && !long.is_empty() {
                break;
            }
            self.long.pop_front();
        }
        self.written += len;
        if self.written >= GATHERED {
            // A busy connection may never have written everything, so free what is written.
            self.short.advance(self.written);
            self.long.iter_mut().for_each(|(at, _)| *at -= self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[test]
    fn a_buffer_goes_back_when_all_is_written() {
        let mut out = Outbox::default();
        out.put(Bytes::from_static(&[1; 100]));
        assert!(!out.is_empty() && out.short.capacity() > 0);
        out.forget();
        assert!(out.is_empty() && out.short.capacity() == 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_put_in_comes_out_in_order(
            pieces in prop::collection::vec(prop_oneof![1..50_usize, LONG - 1..LONG + 2, 50_000..70_000_usize], 1..40),
            taken in prop_oneof![Just(1000_usize), Just(70_000), Just(1 << 22)],
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut near, mut far) = duplex(taken);
                let pieces: Vec<_> = pieces.iter().enumerate().map(|(at, len)| Bytes::from(vec![at as u8; *len])).collect();
                let expected = pieces.concat();
                let writing = async {
                    let mut out = Outbox::default();
                    for piece in pieces {
                        out.put(piece);
                        // Some of it is written before more is put in.
                        let flushed = poll_fn(|cx| Poll::Ready(out.poll_flush(cx, &mut near))).await;
                        assert!(!matches!(flushed, Poll::Ready(Err(_))));
                    }
                    poll_fn(|cx| out.poll_flush(cx, &mut near)).await.unwrap();
                    assert!(out.is_empty());
                    drop(near);
                };
                let mut got = Vec::new();
                let ((), read) = tokio::join!(writing, far.read_to_end(&mut got));
                read.unwrap();
                assert!(got == expected);
            });
        }
    }
}
