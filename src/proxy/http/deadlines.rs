//! How long a request may take, and what becomes of it when it takes longer or its client fails it.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::body::Progress;
use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::route::Forward;
use crate::proxy::flags::Flags;

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
        let asked = exchange.request.headers.get(&GRPC_TIMEOUT).and_then(grpc_timeout);
        let grpc = match (timeouts.grpc_max, asked) {
            (Some(max), Some(asked)) if exchange.grpc => Some(if max.is_zero() { asked } else { asked.min(max) }),
            _ => None,
        };
        let stream = grpc.or(timeouts.stream).or(limits.stream);
        let idle = timeouts.idle.or(limits.stream_idle).filter(|idle| !idle.is_zero());
        Self {
            response: timeouts.response,
            stream: stream.map(|stream| Instant::now() + stream),
            idle,
            request: limits
                .request
                .filter(|limit| !limit.is_zero())
                .map(|limit| Instant::now() + limit),
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

/// Waits until the client does what it must not: its body is none, or does not come.
pub(super) async fn client_fails(progress: Rc<Progress>, deadline: Deadlines) -> LocalReply {
    let broken = async {
        match progress.broken().await {
            Some(refusal) => refusal.reply(),
            // The client went away, and with it its connection.
            None => std::future::pending().await,
        }
    };
    let late = async {
        match deadline.request.filter(|_| progress.end_time().is_none()) {
            Some(end) => {
                tokio::select! {
                    () = tokio::time::sleep_until(end) => {}
                    () = progress.ended() => std::future::pending().await,
                }
            }
            None => std::future::pending().await,
        }
        let status = StatusCode::REQUEST_TIMEOUT;
        LocalReply::new(status, "request timeout", Flags::NONE, "request_overall_timeout").closing()
    };
    let began = Instant::now();
    let idle = async {
        let Some(idle) = deadline.idle else {
            return std::future::pending().await;
        };
        loop {
            let since = progress.moved().max(progress.end_time()).unwrap_or(began);
            if since.elapsed() >= idle {
                break;
            }
            tokio::time::sleep_until(since + idle).await;
        }
        let flags = Flags::STREAM_IDLE_TIMEOUT;
        // Who keeps whom waiting depends on whether the whole request has come.
        match progress.end_time() {
            Some(_) => LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                "stream timeout",
                flags,
                "stream_idle_timeout",
            ),
            None => {
                let status = StatusCode::REQUEST_TIMEOUT;
                LocalReply::new(status, "stream timeout", flags, "stream_idle_timeout").closing()
            }
        }
    };
    tokio::select! {
        biased;
        reply = broken => reply,
        reply = late => reply,
        reply = idle => reply,
    }
}

/// Waits until a request has taken too long.
pub(super) async fn expired(progress: Rc<Progress>, response: Option<Duration>, stream: Option<Instant>) {
    let response = async {
        match response {
            Some(timeout) => {
                progress.ended().await;
                tokio::time::sleep(timeout).await;
            }
            None => std::future::pending().await,
        }
    };
    let stream = async {
        match stream {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = response => {}
        () = stream => {}
    }
}

/// What is answered where a host has taken too long.
pub(super) fn timed_out(details: &'static str) -> LocalReply {
    let flags = Flags::UPSTREAM_REQUEST_TIMEOUT;
    let mut reply = LocalReply::new(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", flags, details);
    reply.grpc_status = Some(4);
    reply
}
