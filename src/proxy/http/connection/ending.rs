//! How a client's connection ends while nobody is to blame for it: it is told, drained and in the end cut off.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, Sleep};

use super::Downstream;

/// Waits until a connection has been idle for too long or has lived for too long.
pub(super) async fn spent(downstream: &Downstream) {
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

/// Waits until a connection is to end.
pub(super) async fn ending(downstream: &Downstream) -> Farewell {
    let over = tokio::select! {
        () = downstream.chain.draining.wait() => Some(Instant::now() + downstream.worker.drain_time()),
        () = spent(downstream) => None,
        () = downstream.usage.notify.notified() => None,
    };
    downstream.usage.worn_out.set(true);
    Farewell {
        last_call: Instant::now() + downstream.manager.limits.drain,
        over,
    }
}

/// How a connection ends. Whoever is on it is told: by HTTP/2 at once, by HTTP/1.1 with the next answer. One that is not
/// used goes on for a while, as what ends at once could meet a request that is on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    /// Until when it takes requests (`drain_timeout`).
    last_call: Instant,
    /// When it is cut off, if it is.
    over: Option<Instant>,
}

/// How far a connection is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is not to end yet.
    Before,
    /// The client is told, and what it sends is answered.
    Announced,
    /// No further requests are taken.
    Begun,
}

/// The end of a connection.
pub(crate) enum Ending<'a, E> {
    /// It is looked at when it says so, and not whenever something happens on the connection.
    Awaited(FuturesUnordered<Pin<&'a mut E>>),
    /// Until then there may be requests.
    Announced(Pin<Box<Sleep>>, Farewell),
    /// When the connection is cut off.
    Begun(Option<Pin<Box<Sleep>>>),
}

impl<'a, E: Future<Output = Farewell>> Ending<'a, E> {
    /// It begins when this is over.
    pub(in crate::proxy::http) fn of(ending: Pin<&'a mut E>) -> Self {
        Ending::Awaited(FuturesUnordered::from_iter([ending]))
    }

    /// Waits until the connection is cut off.
    pub(in crate::proxy::http) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = |until| Box::pin(tokio::time::sleep_until(until));
        loop {
            match self {
                Ending::Awaited(ending) => {
                    let farewell = ready!(ending.poll_next_unpin(cx));
                    let announced = farewell.map(|farewell| Ending::Announced(sleep(farewell.last_call), farewell));
                    *self = announced.unwrap_or(Ending::Begun(None));
                }
                Ending::Announced(last_call, farewell) => {
                    let over = farewell.over;
                    ready!(last_call.as_mut().poll(cx));
                    *self = Ending::Begun(over.map(sleep));
                }
                Ending::Begun(Some(over)) => return over.as_mut().poll(cx),
                Ending::Begun(None) => return Poll::Pending,
            }
        }
    }

    /// Waits until there are no further requests.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.poll(cx);
        match self.stage() {
            Stage::Begun => Poll::Ready(()),
            Stage::Before | Stage::Announced => over,
        }
    }

    /// How far it is.
    pub(in crate::proxy::http) fn stage(&self) -> Stage {
        match self {
            Ending::Awaited(_) => Stage::Before,
            Ending::Announced(..) => Stage::Announced,
            Ending::Begun(_) => Stage::Begun,
        }
    }
}
