//! Pings that find out whether a connection is alive.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connection::{ALIVE, Shared};
use super::frame;

/// `connection_keepalive`: a ping after every interval, which is answered in time, unless anything else comes meanwhile.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    /// The next ping, or the end of the time for an answer.
    timer: Pin<Box<Sleep>>,
    /// How many bytes had come when an answer was last waited for.
    waiting: Option<u64>,
}

impl KeepAlive {
    /// `times` are interval and timeout.
    pub(super) fn new(times: (Duration, Duration)) -> Self {
        let (interval, timeout) = times;
        Self {
            interval,
            timeout,
            timer: Box::pin(tokio::time::sleep(interval)),
            waiting: None,
        }
    }

    /// Ready when the peer is gone.
    pub(super) fn poll(&mut self, connection: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting.is_some() && std::mem::take(&mut connection.borrow_mut().alive) {
                self.waiting = None;
                self.next_after(self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            let connection = &mut *connection.borrow_mut();
            let received = connection.received;
            if self.waiting == Some(received) {
                return Poll::Ready(());
            }
            // A ping may be queued behind much else: as long as anything comes, the peer is there.
            if self.waiting.is_none() {
                frame::write_ping(connection.out.short(), 0, ALIVE);
                connection.kick();
            }
            self.waiting = Some(received);
            self.next_after(self.timeout);
        }
    }

    fn next_after(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}
