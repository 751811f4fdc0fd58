//! Timeouts of a request: which apply, one timer for all of them, and the local replies when one is reached.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep};

use super::HttpManager;
use super::body::Progress;
use super::exchange::Exchange;
use super::grpc::DEADLINE_EXCEEDED;
use super::local_reply::LocalReply;
use super::route::{RouteAction, Timeouts};
use crate::proxy::flags::Flags;
use crate::proxy::turn;

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Timeouts of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// The route's `timeout`, counted from the end of the request.
    pub(super) response: Option<Duration>,
    /// When `max_stream_duration` ends.
    pub(super) stream: Option<Instant>,
    /// The stream idle timeout.
    pub(super) idle: Option<Duration>,
    /// When `request_timeout` ends.
    pub(super) request: Option<Instant>,
}

impl Deadlines {
    /// Those for a request with this route, or with none that forwards it.
    pub(super) fn new(exchange: &Exchange, route: Option<&Timeouts>) -> Self {
        let limits = &exchange.downstream.manager.limits;
        let idle = route.and_then(|timeouts| timeouts.idle).or(limits.stream_idle);
        let began = Instant::from_std(exchange.stream.start);
        Self {
            response: route.and_then(|timeouts| timeouts.response),
            stream: stream_limit(exchange, route).map(|limit| began + limit),
            idle: idle.filter(|idle| !idle.is_zero()),
            request: limits
                .request
                .filter(|limit| !limit.is_zero())
                .map(|limit| began + limit),
        }
    }

    /// Sets `grpc-timeout` of a gRPC request to what the stream may take, where its route has a `max_stream_duration`.
    pub(super) fn set_grpc_timeout(&self, exchange: &mut Exchange, route: &Timeouts) {
        if !exchange.speaks_grpc() || route.stream.is_none() {
            return;
        }
        let start = Instant::from_std(exchange.stream.start);
        let headers = &mut exchange.request.headers;
        match self.stream {
            Some(end) => drop(headers.insert(GRPC_TIMEOUT, as_grpc_timeout(end - start))),
            // Envoy removes it only where the connection manager, too, has a limit, which the route has lifted.
            None if exchange.downstream.manager.limits.stream.is_some() => drop(headers.remove(GRPC_TIMEOUT)),
            None => {}
        }
    }
}

/// The stream's maximum duration: the client's `grpc-timeout` if the route honours it (`grpc_timeout_header_max`), else
/// the route's `max_stream_duration`, where zero lifts the limit, else the connection manager's.
fn stream_limit(exchange: &Exchange, route: Option<&Timeouts>) -> Option<Duration> {
    let said = route.and_then(|timeouts| timeouts.stream);
    let asked = said.and_then(|said| said.grpc_max).and_then(|max| {
        let asked = exchange.request.headers.get(&GRPC_TIMEOUT).and_then(grpc_timeout)?;
        Some(if max.is_zero() { asked } else { asked.min(max) })
    });
    let whole = said
        .and_then(|said| said.whole)
        .or(exchange.downstream.manager.limits.stream);
    asked.or(whole.filter(|limit| !limit.is_zero()))
}

/// Formats a `grpc-timeout` in the smallest unit, from milliseconds up, in which it has at most eight digits.
pub(crate) fn as_grpc_timeout(time: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let (mut number, mut units) = (time.as_millis(), "mSMH".chars());
    let mut unit = units.next();
    for (factor, next) in [1000, 60, 60].into_iter().zip(units) {
        if number > MOST {
            (number, unit) = (number / factor, Some(next));
        }
    }
    let text = format!("{}{}", number.min(MOST), unit.unwrap_or('m'));
    // Digits and a letter are always valid.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0m"))
}

/// Parses `grpc-timeout`: at most eight digits and a unit. Like Envoy, rounds up to milliseconds.
pub(crate) fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_millis(number.div_ceil(1_000)),
        "n" => Duration::from_millis(number.div_ceil(1_000_000)),
        _ => return None,
    })
}

/// Waits for a response under a request's timeouts, and for a failure of the request's body.
#[derive(Debug)]
pub(super) struct Watch {
    progress: Rc<Progress>,
    deadlines: Deadlines,
    /// Whether a filter holds the request, so that `request_timeout` applies although all of it has been received.
    held: bool,
    began: Instant,
    timer: Timer,
}

/// One timer for all timeouts, reset only when it fires or has to fire earlier. The next request on the connection
/// reuses it: letting it fire in vain is cheaper than setting one for each request.
pub(super) type Timer = Option<Pin<Box<Sleep>>>;

/// Which timeout, or which failure of the request, ended the wait.
#[derive(Debug)]
pub(super) enum WaitEnded {
    /// The request is malformed or was not received in time.
    Client(LocalReply),
    /// `max_stream_duration` ended.
    Stream(LocalReply),
    /// The host did not respond in time.
    Host,
}

impl WaitEnded {
    /// The local reply; counts it in the connection manager's statistics.
    pub(super) fn reply(self, manager: &HttpManager) -> LocalReply {
        match self {
            WaitEnded::Client(reply) => reply,
            WaitEnded::Stream(reply) => {
                manager.stats.rq_max_duration.fetch_add(1, Relaxed);
                reply
            }
            WaitEnded::Host => timed_out("response_timeout"),
        }
    }
}

impl Watch {
    /// Starts now, with the connection's timer.
    pub(super) fn new(progress: Rc<Progress>, deadlines: Deadlines, timer: Timer) -> Self {
        Self {
            progress,
            deadlines,
            held: false,
            began: turn::now(),
            timer,
        }
    }

    /// The same for a request that a filter holds.
    fn held(self) -> Self {
        Self { held: true, ..self }
    }

    /// Gives the timer back.
    pub(super) fn into_timer(self) -> Timer {
        self.timer
    }

    /// Waits for a future that drives the request's body, no longer than the timeouts allow.
    pub(super) async fn wait<F: Future>(&mut self, mut future: Pin<&mut F>) -> Result<F::Output, WaitEnded> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }

    /// Why the request's body is malformed, if it is.
    pub(super) fn refusal(&self) -> Option<LocalReply> {
        Some(self.progress.refused()?.reply())
    }

    /// Checks the timeouts; to be polled after whatever drives the request's body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<WaitEnded> {
        if let Some(refusal) = self.refusal() {
            return Poll::Ready(WaitEnded::Client(refusal));
        }
        loop {
            let Some((at, limit)) = self.next() else {
                return Poll::Pending;
            };
            match &mut self.timer {
                Some(timer) if timer.is_elapsed() => {
                    if at <= Instant::now() {
                        return Poll::Ready(self.over(limit));
                    }
                    timer.as_mut().reset(at);
                }
                Some(timer) if at < timer.deadline() => timer.as_mut().reset(at),
                Some(_) => {}
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
        }
    }

    /// The timeout that ends first, and when.
    fn next(&self) -> Option<(Instant, Limit)> {
        let end = self.progress.end_time();
        let moved = self.progress.moved().max(end).unwrap_or(self.began);
        let deadlines = &self.deadlines;
        let limits = [
            (deadlines.request.filter(|_| self.held || end.is_none()), Limit::Request),
            (deadlines.idle.map(|idle| moved + idle), Limit::Idle),
            (
                deadlines.response.and_then(|timeout| Some(end? + timeout)),
                Limit::Response,
            ),
            (deadlines.stream, Limit::Stream),
        ];
        let set = limits.into_iter().filter_map(|(at, limit)| Some((at?, limit)));
        set.min_by_key(|(at, _)| *at)
    }

    fn over(&self, limit: Limit) -> WaitEnded {
        let (timeout, client) = (StatusCode::GATEWAY_TIMEOUT, StatusCode::REQUEST_TIMEOUT);
        // The status depends on who keeps whom waiting: the client, until the request is complete, then the host.
        let whole = self.progress.end_time().is_some();
        let request = |status| LocalReply::new(status, "request timeout", Flags::NONE, "request_overall_timeout");
        let idle = |status| {
            LocalReply::new(
                status,
                "stream timeout",
                Flags::STREAM_IDLE_TIMEOUT,
                "stream_idle_timeout",
            )
        };
        match limit {
            Limit::Request if whole => WaitEnded::Client(request(timeout)),
            Limit::Request => WaitEnded::Client(request(client).closing()),
            Limit::Idle if whole => WaitEnded::Client(idle(timeout)),
            Limit::Idle => WaitEnded::Client(idle(client).closing()),
            Limit::Response => WaitEnded::Host,
            Limit::Stream => {
                let status = if whole { timeout } else { client };
                let text = "downstream duration timeout";
                let mut reply = LocalReply::new(status, text, Flags::NONE, "max_duration_timeout");
                reply.grpc_status = Some(DEADLINE_EXCEEDED);
                WaitEnded::Stream(reply)
            }
        }
    }
}

/// Waits for something before a request is forwarded, under the request's timeouts.
///
/// # Errors
/// The local reply when one of them is reached.
pub(super) async fn within<F: Future>(
    exchange: &Exchange,
    progress: Rc<Progress>,
    future: F,
) -> Result<F::Output, LocalReply> {
    let route = exchange
        .matched
        .as_ref()
        .and_then(|matched| match &matched.route.action {
            RouteAction::Forward(action) => Some(&action.timeouts),
            RouteAction::Redirect(_) | RouteAction::Direct(_) => None,
        });
    let deadlines = Deadlines {
        response: None,
        ..Deadlines::new(exchange, route)
    };
    let downstream = &exchange.downstream;
    let mut watch = Watch::new(progress, deadlines, downstream.timer.take()).held();
    let over = watch.wait(pin!(future)).await;
    downstream.timer.replace(watch.into_timer());
    over.map_err(|overdue| overdue.reply(&downstream.manager))
}

/// Waits for the response to an attempt under `per_try_timeout`, which starts when the request is complete and a
/// connection is ready. `None`: it is reached.
pub(super) async fn per_try<F: Future>(
    limit: Duration,
    progress: &Progress,
    reached: impl Fn() -> bool,
    mut sent: Pin<&mut F>,
) -> Option<F::Output> {
    let mut timer = pin!(None::<Sleep>);
    poll_fn(|cx| {
        if let Poll::Ready(output) = sent.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        // Polling `sent` may have brought about either.
        if timer.is_none() && progress.end_time().is_some() && reached() {
            timer.set(Some(tokio::time::sleep(limit)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// A timeout of a request.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Request,
    Idle,
    Response,
    Stream,
}

/// The local reply to a request whose host took too long.
pub(super) fn timed_out(details: &'static str) -> LocalReply {
    let flags = Flags::UPSTREAM_REQUEST_TIMEOUT;
    LocalReply::new(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", flags, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Deadlines = Deadlines {
        response: None,
        stream: None,
        idle: None,
        request: None,
    };
    const SECOND: Duration = Duration::from_secs(1);

    /// How many seconds a request goes on whose body ends in this one, and why it does not go on then.
    async fn overdue(deadlines: Deadlines, ends: u32) -> (u64, &'static str) {
        overdue_with(None, deadlines, ends).await
    }

    async fn overdue_with(timer: Timer, deadlines: Deadlines, ends: u32) -> (u64, &'static str) {
        let progress = Rc::new(Progress::default());
        let mut watch = Watch::new(progress.clone(), deadlines, timer);
        let mut ending = pin!(tokio::time::sleep(ends * SECOND));
        let begun = Instant::now();
        let overdue = poll_fn(|cx| {
            if ending.as_mut().poll(cx).is_ready() {
                progress.end();
            }
            watch.poll(cx)
        });
        let why = match overdue.await {
            WaitEnded::Host => "host",
            WaitEnded::Client(reply) if reply.status == StatusCode::GATEWAY_TIMEOUT => "idle host",
            WaitEnded::Client(reply) if reply.details == "stream_idle_timeout" => "idle client",
            WaitEnded::Client(_) => "client",
            WaitEnded::Stream(_) => "stream",
        };
        (begun.elapsed().as_secs(), why)
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_counts_from_its_own_beginning() {
        let response = Some(5 * SECOND);
        assert_eq!(overdue(Deadlines { response, ..NONE }, 3).await, (8, "host"));
        let idle = Some(5 * SECOND);
        assert_eq!(overdue(Deadlines { idle, ..NONE }, 3).await, (8, "idle host"));
        assert_eq!(overdue(Deadlines { idle, ..NONE }, 9).await, (5, "idle client"));
        let stream = Some(Instant::now() + 4 * SECOND);
        let both = Deadlines {
            response,
            stream,
            ..NONE
        };
        assert_eq!(overdue(both, 1).await, (4, "stream"));
        let request = Some(Instant::now() + 6 * SECOND);
        assert_eq!(overdue(Deadlines { request, ..NONE }, 9).await, (6, "client"));
        let request = Some(Instant::now() + 6 * SECOND);
        let both = Deadlines {
            response,
            request,
            ..NONE
        };
        assert_eq!(overdue(both, 2).await, (7, "host"));
    }

    #[test]
    fn a_time_of_grpc_is_written_in_the_shortest_unit_that_is_short_enough() {
        let written = |time| as_grpc_timeout(time).to_str().unwrap().to_owned();
        assert_eq!(written(Duration::from_millis(250)), "250m");
        assert_eq!(written(Duration::from_millis(99_999_999)), "99999999m");
        assert_eq!(written(Duration::from_millis(100_000_999)), "100000S");
        assert_eq!(written(Duration::from_secs(100_000_000)), "1666666M");
        assert_eq!(written(Duration::MAX), "99999999H");
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_of_an_earlier_request_changes_nothing() {
        let idle = Some(5 * SECOND);
        for seconds in [0, 1, 4, 7, 100] {
            let timer = Some(Box::pin(tokio::time::sleep(seconds * SECOND)));
            assert_eq!(
                overdue_with(timer, Deadlines { idle, ..NONE }, 3).await,
                (8, "idle host"),
                "{seconds}"
            );
        }
        let mut gone_off = Box::pin(tokio::time::sleep(SECOND));
        gone_off.as_mut().await;
        let over = overdue_with(Some(gone_off), Deadlines { idle, ..NONE }, 3).await;
        assert_eq!(over, (8, "idle host"));
    }
}
