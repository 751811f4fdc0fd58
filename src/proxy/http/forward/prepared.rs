//! The body of a request, as it is sent to one host after another and to those who get copies.

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

/// What is kept of a body by HTTP/2 for retries and copies, unless something else is said. Envoy keeps 16 MiB, of each of
/// up to a thousand requests of a client.
const KEPT_BYTES: usize = 1 << 20;

/// What is kept of a request's body where its route says nothing: what may wait of it, on its connection or its stream.
fn usually_kept(exchange: &Exchange) -> usize {
    let manager = &exchange.downstream.manager;
    match exchange.request.version {
        Version::HTTP_2 => manager.http2.stream_window.map_or(KEPT_BYTES, |window| window as usize),
        _ => manager.buffer_limit,
    }
}

/// The body of a request, ready to be sent once or more.
pub(in crate::proxy::http) struct Prepared {
    empty: bool,
    once: Option<ClientBody>,
    kept: Option<Kept>,
    /// How far the client is with it.
    pub(in crate::proxy::http) progress: Rc<Progress>,
}

impl Prepared {
    /// That of the request.
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

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// A body of which nothing was taken is there once more.
    pub(super) fn give_back(&mut self, body: ClientBody) {
        self.once = Some(body);
    }

    /// The body for one more sending; none where it is gone.
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

    /// Takes what has come of a body that no host got: a client that has sent all of it may go on after the answer, as in
    /// Envoy.
    pub(super) fn take_what_came(&mut self) {
        let Some(mut body) = self.next() else { return };
        let (mut left, mut cx) = (KEPT_BYTES, Context::from_waker(Waker::noop()));
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
            let len = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(len) else { return };
            left = less;
        }
    }

    /// Whether it can be sent once more.
    pub(super) fn is_repeatable(&self) -> bool {
        self.empty || self.kept.as_ref().is_some_and(Kept::is_complete)
    }

    /// The whole body for a copy, once the client has sent it; none where it cannot be kept.
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
            // What broke off is not to be taken for the whole.
            kept.filter(|_| !progress.is_broken())?
                .replay()
                .map(RequestBody::Replay)
        })
    }
}
