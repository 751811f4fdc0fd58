//! Upstream HTTP/2 connections.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Request, Response, request};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::StreamBody;
use super::connection::{Config, Connection, GoAway, Role, Shared};
use super::driver::Driver;
use super::error::{Error, Reason};
use super::half::{Receiver, Sender};
use super::head::{ResponseHead, write_fields};
use super::keepalive::KeepAlive;
use super::pump::Pump;
use super::{remove_what_is_not_in_http2, tunnel};
use crate::proxy::http::Underscores;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::Meter;

/// Envoy's limit for response headers.
const HEADER_BYTES: u32 = 60 << 10;

/// A connection, for those who send requests on it. Dropping it closes the connection once their streams have ended.
pub(crate) struct Client(Shared);

/// Drives the connection's socket.
#[derive(Debug)]
pub(crate) struct ClientDriver<I> {
    driver: Driver<I>,
    connection: Shared,
    keepalive: Option<KeepAlive>,
}

/// Starts HTTP/2: `window` is each stream's receive window, `connection_window` that of the connection, `keepalive`
/// interval and timeout.
pub(crate) fn begin<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    window: u32,
    connection_window: u32,
    keepalive: Option<(Duration, Duration)>,
) -> (Client, ClientDriver<I>) {
    let connection = Connection::new(Config {
        role: Role::Client,
        stream_window: window,
        connection_window,
        header_bytes: HEADER_BYTES,
        max_streams: 0,
        connect_protocol: false,
        underscores: Underscores::Allow,
        metered: false,
    });
    let connection = connection.shared();
    let driver = ClientDriver {
        driver: Driver::client(io, connection.clone()),
        connection: connection.clone(),
        keepalive: keepalive.map(KeepAlive::new),
    };
    (Client(connection), driver)
}

impl<I: AsyncRead + AsyncWrite + Unpin> ClientDriver<I> {
    /// Reads and writes until the connection ends. All streams have failed by then.
    ///
    /// # Errors
    /// If the connection fails or the host violates the protocol.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let over = poll_fn(|cx| self.poll(cx)).await;
        poll_fn(|cx| {
            self.driver.leave(over, cx);
            Poll::Ready(())
        })
        .await;
        match over {
            Error::Ended => Ok(()),
            error => Err(error),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.connection.borrow_mut().turn_begins(cx);
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(&self.connection, cx).is_ready()
        {
            return Poll::Ready(Error::Ended);
        }
        if let Poll::Ready(over) = self.driver.poll_read(cx) {
            return Poll::Ready(over);
        }
        if let Poll::Ready(Err(error)) = self.driver.poll_write(cx) {
            return Poll::Ready(error.into());
        }
        let connection = self.connection.borrow();
        let done = connection.is_done() || (connection.is_leaving() && connection.table.is_empty());
        if done { Poll::Ready(Error::Ended) } else { Poll::Pending }
    }
}

impl Client {
    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        let connection = self.0.borrow();
        connection.over().is_some() || connection.is_leaving()
    }

    /// How many more concurrent streams the host allows.
    pub(crate) fn room(&self) -> usize {
        self.0.borrow().room() as usize
    }

    /// Waits until the host allows another stream.
    ///
    /// # Errors
    /// If it never will.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        poll_fn(|cx| self.0.borrow_mut().poll_room(cx)).await
    }

    /// Starts a request, which the host must allow, and sends what is there of its body.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(crate) fn send(
        &self,
        request: Request<RequestBody>,
        scheme: &'static str,
        meter: Option<Rc<Meter>>,
    ) -> Result<Answering, Error> {
        let (mut head, body) = request.into_parts();
        let tunnel = tunnel::take_protocol(&mut head.headers);
        let host = complete(&mut head, &body);
        let ended = body.is_end_stream();
        let written = self
            .0
            .borrow_mut()
            .open(ended, head.method == Method::HEAD, meter, |encoder, out| {
                let connect = head.method == Method::CONNECT;
                let method = if tunnel.is_some() {
                    &Method::CONNECT
                } else {
                    &head.method
                };
                encoder.method(method, out);
                if !connect {
                    encoder.scheme(scheme, out);
                    encoder.path(head.uri.path_and_query().map_or("/", |path| path.as_str()), out);
                }
                match (&host, head.uri.authority()) {
                    (Some(host), _) if !connect => encoder.authority(host, out),
                    (_, Some(authority)) => encoder.authority(authority.as_str(), out),
                    (_, None) => {}
                }
                if let Some(protocol) = &tunnel {
                    encoder.protocol(protocol, out);
                }
                write_fields(encoder, &head.headers, out);
            });
        let place = written?;
        let sender = (!ended).then(|| Sender::new(self.0.clone(), place));
        Ok(Answering {
            receiver: Receiver::new(self.0.clone(), place),
            pump: sender.map(|sender| Box::new(Pump::new(sender, body))),
            tunnel,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let connection = &mut *self.0.borrow_mut();
        if connection.over().is_none() && connection.goaway == GoAway::Not {
            connection.send_goaway(Reason::NO_ERROR);
            connection.wake_driver();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HTTP/2 connection")
    }
}

/// A request that has been started.
#[derive(Debug)]
pub(crate) struct Answering {
    receiver: Receiver,
    /// Sends the rest of the body, if there is any.
    pump: Option<Box<Pump<RequestBody>>>,
    /// The protocol of an upgrade request.
    tunnel: Option<HeaderValue>,
}

impl Answering {
    /// Sends the rest of the request and waits for the response headers; interim responses go to `interims`.
    ///
    /// # Errors
    /// If the stream fails.
    pub(crate) async fn answer(mut self, interims: Option<&Interims>) -> Result<Response<StreamBody>, Error> {
        let answered = poll_fn(|cx| {
            if self.pump.as_mut().is_some_and(|pump| pump.poll(cx).is_ready()) {
                self.pump = None;
            }
            loop {
                match ready!(self.receiver.poll_answer(cx)) {
                    Ok(answer) if answer.response.status().is_informational() => {
                        if let Some(interims) = interims {
                            interims.hear(answer.response);
                        }
                    }
                    answered => return Poll::Ready(answered),
                }
            }
        });
        let ResponseHead { response, length } = answered.await?;
        let (mut head, ()) = response.into_parts();
        if let Some(protocol) = self.tunnel {
            tunnel::response_from_connect(&mut head, protocol);
        }
        let body = StreamBody::answer(self.receiver, length, self.pump);
        Ok(Response::from_parts(head, body))
    }
}

/// Turns the headers of an HTTP/1.1 request into those of HTTP/2, and returns what `host` was.
fn complete(head: &mut request::Parts, body: &RequestBody) -> Option<HeaderValue> {
    remove_what_is_not_in_http2(&mut head.headers);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        let header = head.headers.entry(CONTENT_LENGTH);
        header.or_insert_with(|| HeaderValue::from(length));
    }
    head.headers.remove(HOST)
}
