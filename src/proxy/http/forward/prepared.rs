//! The request body as the router sends it: once as it is received, or buffered for retries and mirrors.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Version;
use http_body::Body;

use crate::proxy::http::body::client::ClientBody;
use crate::proxy::http::body::replay::Kept;
use crate::proxy::http::body::{Progress, RequestBody};
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::filter::grpc_stats::Call;
use crate::proxy::http::route::{Forward, Matched};

/// Buffer limit for retries and mirrors over HTTP/2 by default. Envoy's is 16 MiB, for each of up to a thousand streams
/// of a connection.
const KEPT_BYTES: usize = 1 << 20;

/// The buffer limit of a request whose route has none: that of its connection or stream.
fn usually_kept(exchange: &Exchange) -> usize {
    let manager = &exchange.downstream.manager;
    match exchange.request.version {
        Version::HTTP_2 => manager.http2.stream_window.map_or(KEPT_BYTES, |window| window as usize),
        _ => manager.buffer_limit,
    }
}

/// A request body that is sent once or more.
pub(in crate::proxy::http) struct UpstreamBody {
    empty: bool,
    once: Option<ClientBody>,
    kept: Option<Kept>,
    /// How much of it has been received.
    pub(in crate::proxy::http) progress: Rc<Progress>,
}

impl UpstreamBody {
    /// Takes the body out of the exchange.
    pub(super) fn new(exchange: &mut Exchange, matched: &Matched, action: &Forward) -> Self {
        let messages = exchange.grpc_call.as_ref().map(Call::request);
        let progress = Rc::new(Progress::new(messages));
        exchange.progress = Some(progress.clone());
        let body = exchange.body.take().filter(|body| !body.is_end_stream());
        let several = action.retry.is_some() || !action.mirrors.is_empty();
        let limit = matched.route.buffer_limit.unwrap_or_else(|| usually_kept(exchange));
        let (once, kept) = match body {
            Some(body) if several => (None, Some(Kept::new(body, progress.clone(), limit))),
            body => (body, None),
        };
        let empty = once.is_none() && kept.is_none();
        if empty {
            progress.end();
        }
        Self {
            empty,
            once,
            kept,
            progress,
        }
    }

    /// Whether there is no body.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// Takes back a body of which nothing was sent.
    pub(super) fn give_back(&mut self, body: ClientBody) {
        self.once = Some(body);
    }

    /// The body for the next attempt; `None` if it cannot be sent again.
    pub(super) fn next(&mut self) -> Option<RequestBody> {
        if self.empty {
            return Some(RequestBody::Empty);
        }
        if let Some(kept) = &self.kept {
            return kept.replay().map(RequestBody::Replay);
        }
        self.once
            .take()
            .map(|body| RequestBody::Client(body, self.progress.clone()))
    }

    /// Reads what has been received of a body that reached no host. As in Envoy, a client that has sent all of it may
    /// then keep its connection.
    pub(super) fn drain_received(&mut self) {
        let Some(mut body) = self.next() else { return };
        let (mut left, mut cx) = (KEPT_BYTES, Context::from_waker(Waker::noop()));
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
            let len = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(len) else { return };
            left = less;
        }
    }

    /// Whether it can be sent again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.empty || self.kept.as_ref().is_some_and(Kept::is_complete)
    }

    /// The whole body for a mirrored request, once the client has sent it; `None` if it is not buffered.
    pub(in crate::proxy::http) fn copy(&self) -> Option<impl Future<Output = Option<RequestBody>> + use<>> {
        if self.once.is_some() {
            return None;
        }
        let (empty, kept, progress) = (self.empty, self.kept.clone(), self.progress.clone());
        Some(async move {
            if empty {
                return Some(RequestBody::Empty);
            }
            progress.ended().await;
            // A body that ended early is not mirrored.
            kept.filter(|_| !progress.is_broken())?
                .replay()
                .map(RequestBody::Replay)
        })
    }
}
