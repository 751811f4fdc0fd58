//! HTTP/2, by the `h2` crate: what clients' connections and hosts' have in common, and the streams of a client.
//!
//! A connection is driven by one task, which writes once a turn and, for a client's, polls the streams, too: each answers
//! its request and then sends the answer's body. Towards a host, whoever sends a request drives its stream.

mod body;
#[cfg_attr(
    not(any(test, fuzzing)),
    expect(
        dead_code,
        unused_imports,
        reason = "HTTP/2 is that of the `h2` crate, which has one of its own"
    )
)]
pub(crate) mod hpack;
mod keepalive;
mod pump;
mod streams;
pub(crate) mod tunnel;

pub(crate) use body::StreamBody;
pub(crate) use keepalive::KeepAlive;
pub(crate) use pump::Pump;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TE};
use http::{Request, Response};
use http_body::Body;
use streams::Streams;
use tokio::time::Instant;

use super::HttpManager;
use super::body::ResponseBody;
use super::body::incoming::Incoming;
use super::conditioning::remove_one_hop;
use super::connection::{Downstream, over};
use super::exchange;
use crate::proxy::io::gather::{Gathered, gathered};
use crate::proxy::io::{Io, Rewound};

/// Streams that we reset for what the client did wrong, before the connection ends.
const RESET_STREAMS: usize = 1024;

/// What a stream and a connection may have on their way to us, unless the manager says otherwise.
const WINDOW: u32 = 1 << 20;

/// A client's connection.
struct Serving {
    connection: Connection<Gathered<Rewound<Io>>, Bytes>,
    streams: Streams,
    keepalive: Option<KeepAlive>,
}

/// Serves a client's connection to its end.
///
/// # Errors
/// When it breaks, or the client breaks the protocol.
pub(super) async fn serve(
    io: Rewound<Io>,
    downstream: &Rc<Downstream>,
    mut ending: Pin<&mut impl Future<Output = Option<Instant>>>,
) -> Result<(), h2::Error> {
    let (io, turns) = gathered(io);
    let received = turns.received();
    let served = pin!(async {
        let manager = &downstream.manager;
        let begun = tokio::select! {
            begun = builder(manager).handshake(io) => begun?,
            _ = ending.as_mut() => return Ok(()),
        };
        let mut serving = Serving::new(begun, manager, received);
        let at = tokio::select! {
            result = serving.streams(downstream) => return result,
            () = downstream.abused() => return Ok(()),
            at = ending => at,
        };
        serving.connection.graceful_shutdown();
        tokio::select! {
            result = serving.streams(downstream) => result,
            () = downstream.abused() => Ok(()),
            () = over(at) => Ok(()),
        }
    });
    turns.drive(served).await
}

fn builder(manager: &HttpManager) -> Builder {
    let settings = &manager.http2;
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.stream_window.unwrap_or(WINDOW))
        .initial_connection_window_size(settings.connection_window.unwrap_or(WINDOW))
        .max_header_list_size(u32::try_from(manager.limits.header_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(RESET_STREAMS));
    if let Some(max) = settings.max_concurrent_streams {
        builder.max_concurrent_streams(max);
    }
    if settings.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

impl Serving {
    fn new(
        mut connection: Connection<Gathered<Rewound<Io>>, Bytes>,
        manager: &HttpManager,
        received: Rc<std::cell::Cell<u64>>,
    ) -> Self {
        let times = manager.http2.keepalive;
        let keepalive = times.and_then(|times| Some(KeepAlive::new(connection.ping_pong()?, times, received)));
        Self {
            connection,
            streams: Streams::default(),
            keepalive,
        }
    }

    /// Answers the streams of the client until there are no more. Cancel safe.
    async fn streams(&mut self, downstream: &Rc<Downstream>) -> Result<(), h2::Error> {
        poll_fn(|cx| {
            self.poll_keepalive(cx);
            let connection = &mut self.connection;
            self.streams.poll(cx, |streams, cx| {
                while let Some(accepted) = ready!(connection.poll_accept(cx)) {
                    let (request, respond) = accepted?;
                    streams.begin(downstream.clone(), request, respond);
                }
                Poll::Ready(Ok(()))
            })
        })
        .await
    }

    fn poll_keepalive(&mut self, cx: &mut Context<'_>) {
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(cx).is_ready()
        {
            self.keepalive = None;
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
        }
    }
}

/// Answers one request.
async fn stream(downstream: Rc<Downstream>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (mut parts, stream) = request.into_parts();
    let tunnel = tunnel::heard(&mut parts);
    let body = Incoming::Http2(StreamBody::new(stream, &parts.headers));
    let request = Request::from_parts(parts, body);
    let Some(response) = answered(downstream, request, &mut respond).await else {
        return;
    };
    let (mut parts, body) = response.into_parts();
    if tunnel {
        tunnel::told(&mut parts);
    }
    remove_what_is_not_in_http2(&mut parts.headers);
    let ended = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !ended) {
        let header = parts.headers.entry(CONTENT_LENGTH);
        header.or_insert_with(|| HeaderValue::from(length));
    }
    let sent = match respond.send_response(Response::from_parts(parts, ()), ended) {
        Ok(_) if ended => return,
        Ok(stream) => Pump::new(stream, body).run().await,
        Err(error) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Err(error)
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a client's stream broke");
    }
}

/// The answer to a request; none if the client does not wait for it.
async fn answered(
    downstream: Rc<Downstream>,
    request: Request<Incoming>,
    respond: &mut SendResponse<Bytes>,
) -> Option<Response<ResponseBody>> {
    let mut exchange = pin!(exchange::exchange(downstream, request));
    poll_fn(|cx| match exchange.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    })
    .await
}

/// Removes what HTTP/2 has no use for from the headers of a message (RFC 9113 section 8.2.2).
pub(crate) fn remove_what_is_not_in_http2(headers: &mut HeaderMap) {
    remove_one_hop(headers);
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}
