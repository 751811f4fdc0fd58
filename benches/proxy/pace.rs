//! When requests are due, to a tenth of a millisecond. The runtime's own timers count in milliseconds: all that is due within
//! one would be sent at once, and latencies would say more of that than of the proxy. A thread that sleeps until the next is due
//! would have to wait for its turn on the processor of the load, so the system's clock wakes the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;

/// Between two looks at what is due.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000,
};

/// So many requests a second, whatever becomes of those before.
#[derive(Clone)]
pub(crate) struct Pace {
    start: Instant,
    rate: u64,
    total: u64,
    next: Arc<AtomicU64>,
    due: Arc<Semaphore>,
}

impl Pace {
    /// Begins in a moment, and is over after `total` requests.
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
            // Whoever still waits is told that there are no more.
            starter.due.close();
        });
        pace
    }

    /// When it began.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Waits until another request is due, and says since when it is; none: there are no more.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.total {
            return None;
        }
        // A closed semaphore gives no permits, though it may have some.
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        Some(self.when(number))
    }

    fn when(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.rate)
    }
}

/// Ten thousand a second, of the system's clock, which is read like a pipe.
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

    /// Waits for the next one; those that were missed count as one.
    async fn next(&mut self) {
        // What is read is how many there were since.
        self.0.read_u64().await.expect("a clock that runs");
    }
}
