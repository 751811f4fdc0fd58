//! Downstream HTTP/2 connections.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::StreamBody;
use super::connection::{Config, Connection, PendingRequest, Role, Shared};
use super::driver::Driver;
use super::error::{Error, Reason};
use super::frame;
use super::half::{Receiver, Sender};
use super::head::RequestHead;
use super::keepalive::KeepAlive;
use super::pump::Pump;
use super::streams::Streams;
use super::{remove_what_is_not_in_http2, tunnel};
use crate::proxy::http::body::ResponseBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::connection::{Downstream, DrainDeadlines, GracefulClose, Stage};
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::Meter;
use crate::proxy::http::{HttpManager, exchange};

/// Receive window of a stream by default.
const WINDOW: u32 = 1 << 20;

/// The same for a connection: a few streams that nobody reads leave room for the others.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Concurrent streams by default: as in Envoy.
const STREAMS: u32 = 1024;

/// Serves a downstream connection, of which `read` has been read already, to its end.
///
/// # Errors
/// If it fails, or the client violates the protocol.
pub(crate) async fn serve<'a, I, E>(
    io: I,
    read: BytesMut,
    downstream: &'a Rc<Downstream>,
    ending: GracefulClose<'a, E>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
    E: Future<Output = DrainDeadlines>,
{
    let manager = &downstream.manager;
    let connection = Connection::new(config(manager)).shared();
    let mut serving = Serving {
        driver: Driver::server(io, read, connection.clone()),
        keepalive: manager.http2.keepalive.map(KeepAlive::new),
        connection,
        downstream,
        streams: Streams::default(),
        ending,
    };
    let over = poll_fn(|cx| serving.poll(cx)).await;
    let Serving { driver, streams, .. } = serving;
    downstream.connection_ends();
    // Nobody will receive what they respond.
    drop(streams);
    if let Some(error) = over {
        driver.close(error, downstream.manager.limits.delayed_close).await;
        if error != Error::Ended {
            return Err(error);
        }
    }
    Ok(())
}

fn config(manager: &HttpManager) -> Config {
    let settings = &manager.http2;
    Config {
        role: Role::Server,
        stream_window: settings.stream_window.unwrap_or(WINDOW),
        connection_window: settings.connection_window.unwrap_or(CONNECTION_WINDOW),
        header_bytes: u32::try_from(manager.limits.header_bytes).unwrap_or(u32::MAX),
        max_streams: settings.max_concurrent_streams.unwrap_or(STREAMS),
        connect_protocol: settings.allow_connect,
        underscores: manager.underscores,
        metered: manager.metered,
    }
}

struct Serving<'a, I, E> {
    driver: Driver<I>,
    connection: Shared,
    downstream: &'a Rc<Downstream>,
    streams: Streams,
    keepalive: Option<KeepAlive>,
    ending: GracefulClose<'a, E>,
}

impl<I, E> Serving<'_, I, E>
where
    I: AsyncRead + AsyncWrite + Unpin,
    E: Future<Output = DrainDeadlines>,
{
    /// One turn: reads what was received, lets the streams respond, and writes. Ready when the connection ends, with
    /// the error to close it with, if any.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        self.connection.borrow_mut().turn_begins(cx);
        if self.poll_ending(cx).is_ready() {
            return Poll::Ready(None);
        }
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(&self.connection, cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let (driver, connection, downstream) = (&mut self.driver, &self.connection, self.downstream);
        let read = self.streams.poll(cx, |streams, cx| {
            let read = driver.poll_read(cx);
            begin(connection, streams, downstream);
            read
        });
        if let Poll::Ready(error) = read {
            return Poll::Ready(Some(error));
        }
        if self.downstream.is_abused() {
            return Poll::Ready(Some(Error::Broken(Reason::ENHANCE_YOUR_CALM)));
        }
        if let Poll::Ready(Err(error)) = self.driver.poll_write(cx) {
            return Poll::Ready(Some(error.into()));
        }
        match self.connection.borrow().is_done() && self.streams.is_empty() {
            true => Poll::Ready(Some(Error::Ended)),
            false => Poll::Pending,
        }
    }

    /// Ready when the connection has to be closed.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.ending.poll(cx);
        match self.ending.stage() {
            Stage::Before => {}
            Stage::Announced => self.connection.borrow_mut().announce_goaway(),
            // A client that has not acknowledged the first GOAWAY is not waited for any longer.
            Stage::Begun => self.connection.borrow_mut().finish_goaway(),
        }
        polled
    }
}

/// Starts streams for the requests received.
fn begin(connection: &Shared, streams: &Streams, downstream: &Rc<Downstream>) {
    loop {
        // Not in the loop's condition, where the borrow would outlive it.
        let begun = connection.borrow_mut().next_request();
        let Some(PendingRequest { stream, received }) = begun else {
            return;
        };
        let receiver = Receiver::new(connection.clone(), stream);
        let sender = Sender::new(connection.clone(), stream);
        match sender.broken() {
            None => streams.begin(downstream.clone(), received, receiver, sender),
            Some(Error::Unwanted(details)) => exchange::record_reset(downstream.clone(), details, sender.meter()),
            Some(_) => downstream.request_unseen(),
        }
    }
}

/// Answers one request.
pub(super) async fn stream(downstream: Rc<Downstream>, received: RequestHead, receiver: Receiver, mut sender: Sender) {
    let asks_for_protocol = received.protocol.is_some();
    let asks_for_tunnel = asks_for_protocol || received.request.method() == Method::CONNECT;
    let Some(response) = answered(downstream, received, receiver, &mut sender).await else {
        return;
    };
    let (mut parts, mut body) = response.into_parts();
    if asks_for_protocol {
        tunnel::response_to_connect(&mut parts);
    }
    remove_what_is_not_in_http2(&mut parts.headers);
    let ended = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !ended) {
        let header = parts.headers.entry(CONTENT_LENGTH);
        header.or_insert_with(|| HeaderValue::from(length));
    }
    let head = Response::from_parts(parts, ());
    let sent = sender.answer(&head, ended);
    body.headers_sent(head.into_parts().0.headers);
    let sent = match sent {
        Ok(()) if ended => return,
        Ok(()) if asks_for_tunnel => Pump::tunnel(sender, body.until_written()).run().await,
        Ok(()) => Pump::new(sender, body.until_written()).run().await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a client's stream failed");
    }
}

/// The response to a request; `None` if the client does not wait for it.
async fn answered(
    downstream: Rc<Downstream>,
    received: RequestHead,
    receiver: Receiver,
    sender: &mut Sender,
) -> Option<Response<ResponseBody>> {
    let headers = received.request.headers();
    if let Some(details) = received
        .reset_details
        .or_else(|| exchange::reset_details(&downstream, headers))
    {
        sender.reset(Reason::INTERNAL_ERROR);
        // As in Envoy, a request that was not processed does not count as received.
        let meter = downstream.manager.metered.then(Rc::<Meter>::default);
        if let Some(meter) = &meter {
            meter.send(frame::RESET);
        }
        exchange::record_reset(downstream, details, meter);
        return None;
    }
    if let Some(refusal) = received.refusal {
        return Some(exchange::refuse(downstream, refusal, Version::HTTP_2, sender.meter()));
    }
    let (mut parts, ()) = received.request.into_parts();
    if let Some(protocol) = received.protocol {
        tunnel::request_from_connect(&mut parts, protocol);
    }
    let body = StreamBody::new(receiver, received.length);
    let request = Request::from_parts(parts, Incoming::Http2(body));
    let interims = Interims::by_http2(sender.interim_sender(), downstream.manager.proxy_100_continue);
    let mut exchange = pin!(exchange::exchange(downstream, request, interims, sender.meter()));
    poll_fn(|cx| match exchange.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => sender.poll_broken(cx).map(|_| None),
    })
    .await
}
