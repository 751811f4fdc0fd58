//! Flow control between a response and the connection's write queue.
//!
//! The HTTP/2 window is set by the client, and Envoy's is hundreds of megabytes; hyper's send
//! buffer holds up to 400 KiB per stream, which is more than everything else a connected proxy
//! costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;

/// Maximum number of chunks in the queue.
const CHUNKS: usize = 4;

/// Counts chunks of a stream that are not yet written to the connection.
#[derive(Debug, Default)]
pub(super) struct Window(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    on_their_way: AtomicUsize,
    waker: AtomicWaker,
}

impl Window {
    /// Ready when there is room for a chunk.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.has_room() {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        // A chunk written since the first check has not woken the task.
        if self.0.has_room() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Counts a chunk until it is dropped.
    pub(super) fn count(&self, bytes: Bytes) -> Bytes {
        self.0.on_their_way.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Chunk {
            bytes,
            count: self.0.clone(),
        })
    }
}

impl Count {
    fn has_room(&self) -> bool {
        self.on_their_way.load(Ordering::Acquire) < CHUNKS
    }
}

struct Chunk {
    bytes: Bytes,
    count: Arc<Count>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let before = self.count.on_their_way.fetch_sub(1, Ordering::AcqRel);
        // Wakes at half of the window, so that the tasks do not alternate for every chunk.
        if before <= CHUNKS / 2 + 1 {
            self.count.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[tokio::test]
    async fn room_is_signalled_at_half_of_the_window() {
        let window = Window::default();
        let mut chunks: Vec<Bytes> = (0..CHUNKS).map(|_| window.count(Bytes::from_static(b"x"))).collect();
        assert_eq!(chunks[0], "x");
        let mut room = pin!(std::future::poll_fn(|cx| window.poll_room(cx)));
        assert!(futures::poll!(&mut room).is_pending());
        let written = tokio::spawn(async move {
            chunks.truncate(CHUNKS / 2);
            chunks
        });
        room.await;
        drop(written.await.unwrap());
        assert_eq!(window.0.on_their_way.load(Ordering::Acquire), 0);
    }
}
