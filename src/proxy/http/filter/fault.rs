//! `envoy.filters.http.fault`: injects delays and errors.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;

use crate::proxy::flags::Flags;
use crate::proxy::http::body::Progress;
use crate::proxy::http::deadlines;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::local_reply::LocalReply;
use crate::proxy::http::route::HeaderMatch;

/// Faults to inject.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The delay, and the share of requests that get it in parts per million.
    pub(crate) delay: Option<(Duration, u32)>,
    /// The error, and its share.
    pub(crate) abort: Option<(Abort, u32)>,
    /// Requests must match all of these; empty: every request does.
    pub(crate) headers: Vec<HeaderMatch>,
}

/// The error that a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abort {
    /// With this status.
    Http(StatusCode),
    /// With this gRPC status.
    Grpc(u32),
}

impl Fault {
    /// Delays or aborts the request, each with its probability.
    pub(super) async fn inject(&self, exchange: &mut Exchange) -> Option<LocalReply> {
        if !self.concerns(exchange) {
            return None;
        }
        if let Some((delay, share)) = self.delay
            && hits(share)
        {
            exchange.stream.flags.set(Flags::DELAY_INJECTED);
            exchange.downstream.manager.stats.delays_injected.fetch_add(1, Relaxed);
            let progress = Rc::<Progress>::default();
            // The filter holds the body back, which must not count against the client.
            progress.end();
            let delayed = deadlines::within(exchange, progress, tokio::time::sleep(delay));
            // Boxed: the future is large and rarely needed.
            if let Err(reply) = Box::pin(delayed).await {
                return Some(reply);
            }
        }
        let (abort, _) = self.abort.filter(|(_, share)| hits(*share))?;
        exchange.downstream.manager.stats.aborts_injected.fetch_add(1, Relaxed);
        Some(abort.reply())
    }

    fn concerns(&self, exchange: &Exchange) -> bool {
        let request = exchange.for_matching();
        self.headers.iter().all(|header| header.matches(&request))
    }
}

/// Draws at random, independently of other decisions about the request.
fn hits(per_million: u32) -> bool {
    fastrand::u32(..1_000_000) < per_million
}

impl Abort {
    fn reply(self) -> LocalReply {
        let (status, grpc) = match self {
            Abort::Http(status) => (status, None),
            Abort::Grpc(status) => (StatusCode::OK, Some(status)),
        };
        let mut reply = LocalReply::new(
            status,
            "fault filter abort",
            Flags::FAULT_INJECTED,
            "fault_filter_abort",
        );
        reply.grpc_status = grpc;
        reply
    }
}
