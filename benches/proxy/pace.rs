//! Schedules requests with a precision of 0.1 ms. tokio's timers have millisecond resolution: all
//! requests due within a millisecond would be sent at once and distort latencies. A sleeping thread
//! would have to wait for its turn on the CPU of the load, so a kernel timer wakes the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;

/// Interval between checks.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000,
};

/// A constant rate, independent of responses.
#[derive(Clone)]
pub(crate) struct Pace {
    start: Instant,
    rate: u64,
    total: u64,
    next: Arc<AtomicU64>,
    due: Arc<Semaphore>,
}

impl Pace {
    /// Starts shortly, and ends after `total` requests.
    pub(crate) fn begin(rate: u64, total: u64) -> Self {
        let pace = Self {
            start: Instant::now() + Duration::from_millis(50),
            rate,
            total,
            next: Arc::default(),
            due: Arc::new(Semaphore::new(0)),
        };
        let (starter, mut started, mut ticks) = (pace.clone(), 0, Ticks::start());
        tokio::spawn(async move {
            while started < total {
                ticks.next().await;
                if Instant::now() < starter.when(started) {
                    continue;
                }
                let late = Instant::now().saturating_duration_since(starter.start);
                let by_now = (late.as_secs_f64() * rate as f64) as u64 + 1;
                let more = by_now.min(total).saturating_sub(started);
                starter
                    .due
                    .add_permits(usize::try_from(more).expect("a machine of 64 bits"));
                started += more;
            }
            // Wakes those still waiting: there are no more requests.
            starter.due.close();
        });
        pace
    }

    /// Start time.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Waits until another request is due; returns its due time, or `None` at the end.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.total {
            return None;
        }
        // A closed semaphore fails even if permits are left.
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        Some(self.when(number))
    }

    fn when(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.rate)
    }
}

/// Kernel timer with ten thousand ticks per second (timerfd).
struct Ticks(Receiver);

impl Ticks {
    fn start() -> Self {
        let clock = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        );
        let clock = clock.expect("a clock");
        let every = Itimerspec {
            it_interval: TICK,
            it_value: TICK,
        };
        timerfd_settime(&clock, TimerfdTimerFlags::empty(), &every).expect("a clock that runs");
        Self(Receiver::from_owned_fd_unchecked(clock).expect("a clock that can be waited for"))
    }

    /// Waits for the next tick; missed ones are merged.
    async fn next(&mut self) {
        // The number of expirations since the last read.
        self.0.read_u64().await.expect("a clock that runs");
    }
}
