//! Keepalive PINGs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connection::{ALIVE, Shared};
use super::frame;

/// `connection_keepalive`: sends a PING at each interval; the peer has to acknowledge it, or send anything else, within
/// the timeout.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    /// Fires at the next PING, or when the acknowledgement is overdue.
    timer: Pin<Box<Sleep>>,
    /// Bytes received when the current PING was sent, while it is unacknowledged.
    waiting: Option<u64>,
}

impl KeepAlive {
    /// With interval and timeout.
    pub(super) fn new(times: (Duration, Duration)) -> Self {
        let (interval, timeout) = times;
        Self {
            interval,
            timeout,
            timer: Box::pin(tokio::time::sleep(interval)),
            waiting: None,
        }
    }

    /// Ready when the peer does not respond.
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
            // The acknowledgement may be queued behind other frames: as long as anything arrives, the peer is alive.
            if self.waiting.is_none() {
                frame::write_ping(connection.out.short(), 0, ALIVE);
                connection.wake_driver();
            }
            self.waiting = Some(received);
            self.next_after(self.timeout);
        }
    }

    fn next_after(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}
