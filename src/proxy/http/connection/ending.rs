//! The graceful end of a downstream connection: announced (GOAWAY, `connection: close`), drained, and closed when
//! `drain_timeout` is over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, Sleep};

use super::Downstream;

/// Waits until a connection has reached its idle timeout or `max_connection_duration`.
pub(super) async fn expired(downstream: &Downstream) {
    let limits = &downstream.manager.limits;
    let idle = async {
        match limits.idle.filter(|limit| !limit.is_zero()) {
            Some(limit) => downstream.usage.idle(limit).await,
            None => std::future::pending().await,
        }
    };
    let old = async {
        match limits.connection.filter(|limit| !limit.is_zero()) {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = idle => {}
        () = old => {}
    }
}

/// Waits until a connection is to close.
pub(super) async fn ending(downstream: &Downstream) -> DrainDeadlines {
    let over = tokio::select! {
        () = downstream.chain.draining.wait() => Some(Instant::now() + downstream.worker.drain_time()),
        () = expired(downstream) => None,
        () = downstream.usage.notify.notified() => None,
    };
    downstream.usage.worn_out.set(true);
    DrainDeadlines {
        last_call: Instant::now() + downstream.manager.limits.drain,
        over,
    }
}

/// How a connection closes. HTTP/2 clients get a GOAWAY at once, HTTP/1.1 clients `connection: close` with the next
/// response. An idle connection stays open for a while, since a request may be under way on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainDeadlines {
    /// When it stops taking requests (`drain_timeout`).
    last_call: Instant,
    /// When it is closed whatever is on it, if ever.
    over: Option<Instant>,
}

/// How far a connection's graceful close has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not begun.
    Before,
    /// Announced: further requests are still served.
    Announced,
    /// No further requests are taken.
    Begun,
}

/// The graceful close of a connection as a state machine: `Awaited` → `Announced` → `Begun`.
pub(crate) enum GracefulClose<'a, E> {
    /// Not begun. The future is polled only when it wakes, and not with each poll of the connection.
    Awaited(FuturesUnordered<Pin<&'a mut E>>),
    /// Announced; requests are taken until this timer fires.
    Announced(Pin<Box<Sleep>>, DrainDeadlines),
    /// No further requests; the connection is closed when this timer fires, if there is one.
    Begun(Option<Pin<Box<Sleep>>>),
}

impl<'a, E: Future<Output = DrainDeadlines>> GracefulClose<'a, E> {
    /// Begins when `ending` is ready.
    pub(in crate::proxy::http) fn of(ending: Pin<&'a mut E>) -> Self {
        GracefulClose::Awaited(FuturesUnordered::from_iter([ending]))
    }

    /// Waits until the connection has to be closed.
    pub(in crate::proxy::http) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = |until| Box::pin(tokio::time::sleep_until(until));
        loop {
            match self {
                GracefulClose::Awaited(ending) => {
                    let deadlines = ready!(ending.poll_next_unpin(cx));
                    let announced =
                        deadlines.map(|deadlines| GracefulClose::Announced(sleep(deadlines.last_call), deadlines));
                    *self = announced.unwrap_or(GracefulClose::Begun(None));
                }
                GracefulClose::Announced(last_call, deadlines) => {
                    let over = deadlines.over;
                    ready!(last_call.as_mut().poll(cx));
                    *self = GracefulClose::Begun(over.map(sleep));
                }
                GracefulClose::Begun(Some(over)) => return over.as_mut().poll(cx),
                GracefulClose::Begun(None) => return Poll::Pending,
            }
        }
    }

    /// Waits until no further requests are taken.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.poll(cx);
        match self.stage() {
            Stage::Begun => Poll::Ready(()),
            Stage::Before | Stage::Announced => over,
        }
    }

    /// The current stage.
    pub(in crate::proxy::http) fn stage(&self) -> Stage {
        match self {
            GracefulClose::Awaited(_) => Stage::Before,
            GracefulClose::Announced(..) => Stage::Announced,
            GracefulClose::Begun(_) => Stage::Begun,
        }
    }
}
