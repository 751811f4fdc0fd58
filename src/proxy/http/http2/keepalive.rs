//! Pings that find out whether a connection is alive.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// `connection_keepalive`: a ping after every interval, which is answered in time, unless anything else comes meanwhile.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    /// The next ping, or the end of the time for an answer.
    timer: Pin<Box<Sleep>>,
    /// How many bytes had come when an answer was last waited for.
    waiting: Option<u64>,
    received: Rc<Cell<u64>>,
}

impl KeepAlive {
    /// For a connection that counts its bytes in `received`; `times` are interval and timeout.
    pub(crate) fn new(pings: PingPong, times: (Duration, Duration), received: Rc<Cell<u64>>) -> Self {
        let (interval, timeout) = times;
        Self {
            pings,
            interval,
            timeout,
            timer: Box::pin(tokio::time::sleep(interval)),
            waiting: None,
            received,
        }
    }

    /// Ready when the peer is gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting.is_some() && self.pings.poll_pong(cx).is_ready() {
                self.waiting = None;
                self.next_after(self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            let received = self.received.get();
            if self.waiting == Some(received) {
                return Poll::Ready(());
            }
            // A ping may be queued behind much else: as long as anything comes, the peer is there.
            if self.waiting.is_none() && self.pings.send_ping(Ping::opaque()).is_err() {
                self.next_after(self.interval);
                continue;
            }
            self.waiting = Some(received);
            self.next_after(self.timeout);
        }
    }

    fn next_after(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}
