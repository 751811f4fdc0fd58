//! How long a request may take, and what becomes of it when it takes longer or its client fails it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep};

use super::body::Progress;
use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::route::Forward;
use crate::proxy::flags::Flags;
use crate::proxy::turn;

/// `DEADLINE_EXCEEDED` of gRPC.
const DEADLINE_EXCEEDED: u32 = 4;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// From the end of the request.
    pub(super) response: Option<Duration>,
    /// From now.
    pub(super) stream: Option<Instant>,
    /// Without anything sent or received.
    pub(super) idle: Option<Duration>,
    /// Until the whole request has come.
    pub(super) request: Option<Instant>,
}

impl Deadlines {
    /// Those of a request that takes a route.
    pub(super) fn new(exchange: &Exchange, action: &Forward) -> Self {
        let limits = &exchange.downstream.manager.limits;
        let timeouts = &action.timeouts;
        let speaks_grpc = exchange.grpc || exchange.grpc_web.is_some();
        let grpc = timeouts.grpc_max.filter(|_| speaks_grpc).and_then(|max| {
            let asked = exchange.request.headers.get(&GRPC_TIMEOUT).and_then(grpc_timeout)?;
            Some(if max.is_zero() { asked } else { asked.min(max) })
        });
        let stream = grpc.or(timeouts.stream).or(limits.stream);
        let idle = timeouts.idle.or(limits.stream_idle).filter(|idle| !idle.is_zero());
        Self {
            response: timeouts.response,
            stream: stream.map(|stream| turn::now() + stream),
            idle,
            request: limits
                .request
                .filter(|limit| !limit.is_zero())
                .map(|limit| turn::now() + limit),
        }
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
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
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Watches a request that waits for its answer: what its client does, and how long it takes.
#[derive(Debug)]
pub(super) struct Watch {
    progress: Rc<Progress>,
    deadlines: Deadlines,
    began: Instant,
    timer: Timer,
}

/// Goes off when it may be too late: one timer for all limits, set anew only when it goes off or has to be earlier. So
/// the next request on the connection takes it over: to set one for each would cost more than to let it go off in vain.
pub(super) type Timer = Option<Pin<Box<Sleep>>>;

/// Why a request waits no longer.
#[derive(Debug)]
pub(super) enum Overdue {
    /// The client's body is none, or does not come.
    Client(LocalReply),
    /// It is not to live longer.
    Stream(LocalReply),
    /// It takes too long.
    Host,
}

impl Watch {
    /// From now on, with a timer that is there.
    pub(super) fn new(progress: Rc<Progress>, deadlines: Deadlines, timer: Timer) -> Self {
        Self {
            progress,
            deadlines,
            began: turn::now(),
            timer,
        }
    }

    /// What is left of it.
    pub(super) fn into_timer(self) -> Timer {
        self.timer
    }

    /// What is wrong with the client's body.
    pub(super) fn refusal(&self) -> Option<LocalReply> {
        Some(self.progress.refused()?.reply())
    }

    /// To be polled after whatever may move the request's body.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        if let Some(refusal) = self.refusal() {
            return Poll::Ready(Overdue::Client(refusal));
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

    /// The limit that is met first as things are, and when.
    fn next(&self) -> Option<(Instant, Limit)> {
        let end = self.progress.end_time();
        let moved = self.progress.moved().max(end).unwrap_or(self.began);
        let deadlines = &self.deadlines;
        let limits = [
            (deadlines.request.filter(|_| end.is_none()), Limit::Request),
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

    fn over(&self, limit: Limit) -> Overdue {
        let (timeout, client) = (StatusCode::GATEWAY_TIMEOUT, StatusCode::REQUEST_TIMEOUT);
        let idle = |status| {
            LocalReply::new(
                status,
                "stream timeout",
                Flags::STREAM_IDLE_TIMEOUT,
                "stream_idle_timeout",
            )
        };
        match limit {
            Limit::Request => Overdue::Client(
                LocalReply::new(client, "request timeout", Flags::NONE, "request_overall_timeout").closing(),
            ),
            // Who keeps whom waiting depends on whether the whole request has come.
            Limit::Idle if self.progress.end_time().is_some() => Overdue::Client(idle(timeout)),
            Limit::Idle => Overdue::Client(idle(client).closing()),
            Limit::Response => Overdue::Host,
            Limit::Stream => {
                let status = if self.progress.end_time().is_some() {
                    timeout
                } else {
                    client
                };
                let text = "downstream duration timeout";
                let mut reply = LocalReply::new(status, text, Flags::NONE, "max_duration_timeout");
                reply.grpc_status = Some(DEADLINE_EXCEEDED);
                Overdue::Stream(reply)
            }
        }
    }
}

/// A limit of a request.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Request,
    Idle,
    Response,
    Stream,
}

/// What is answered where a host has taken too long.
pub(super) fn timed_out(details: &'static str) -> LocalReply {
    let flags = Flags::UPSTREAM_REQUEST_TIMEOUT;
    LocalReply::new(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", flags, details)
}

/// Reads what is read of headers here.
#[cfg(fuzzing)]
pub(super) fn draw_on(headers: &http::HeaderMap) {
    headers.get(&GRPC_TIMEOUT).and_then(grpc_timeout);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

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
            Overdue::Host => "host",
            Overdue::Client(reply) if reply.status == StatusCode::GATEWAY_TIMEOUT => "idle host",
            Overdue::Client(reply) if reply.details == "stream_idle_timeout" => "idle client",
            Overdue::Client(_) => "client",
            Overdue::Stream(_) => "stream",
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
