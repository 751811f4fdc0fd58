//! A connection to a host.

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
use super::connection::{Config, Connection, Going, Role, Shared};
use super::driver::Driver;
use super::error::{Error, Reason};
use super::half::{Receiver, Sender};
use super::head::{Answer, write_fields};
use super::keepalive::KeepAlive;
use super::pump::Pump;
use super::{remove_what_is_not_in_http2, tunnel};
use crate::proxy::http::Underscores;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::Meter;

/// Envoy's limit of headers.
const HEADER_BYTES: u32 = 60 << 10;

/// A connection, for those who send requests on it. When this is dropped, it closes as soon as they have ended.
pub(crate) struct Client(Shared);

/// Whoever drives the connection.
#[derive(Debug)]
pub(crate) struct ClientDriver<I> {
    driver: Driver<I>,
    connection: Shared,
    keepalive: Option<KeepAlive>,
}

/// Begins to speak HTTP/2: `window` is what each stream may have on its way to us, `connection_window` all of them
/// together, `keepalive` interval and timeout.
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
    /// Reads and writes until the connection is over. Its streams have learnt of that by then.
    ///
    /// # Errors
    /// When it breaks, or the host breaks the protocol.
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

    /// Streams that the host takes at the same time.
    pub(crate) fn room(&self) -> usize {
        self.0.borrow().room() as usize
    }

    /// Waits until there is room for one more stream.
    ///
    /// # Errors
    /// When there will be none.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        poll_fn(|cx| self.0.borrow_mut().poll_room(cx)).await
    }

    /// Sends a request, for which there is room, as far as it is there.
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) fn send(
        &self,
        request: Request<RequestBody>,
        scheme: &'static str,
        meter: Option<Rc<Meter>>,
    ) -> Result<Answering, Error> {
        let (mut head, body) = request.into_parts();
        let tunnel = tunnel::asked(&mut head.headers);
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
        if connection.over().is_none() && connection.going == Going::Not {
            connection.go_away(Reason::NO_ERROR);
            connection.kick();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HTTP/2 connection")
    }
}

/// A request that was sent, as far as it was there.
#[derive(Debug)]
pub(crate) struct Answering {
    receiver: Receiver,
    /// What sends the body, if there is one.
    pump: Option<Box<Pump<RequestBody>>>,
    /// The protocol that the request wants to go over to.
    tunnel: Option<HeaderValue>,
}

impl Answering {
    /// Sends the rest, and waits for the head of the answer. Somebody may want to hear interim ones.
    ///
    /// # Errors
    /// When there is none.
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
        let Answer { response, length } = answered.await?;
        let (mut head, ()) = response.into_parts();
        if let Some(protocol) = self.tunnel {
            tunnel::answered(&mut head, protocol);
        }
        let body = StreamBody::answer(self.receiver, length, self.pump);
        Ok(Response::from_parts(head, body))
    }
}

/// Makes the headers of a request those that HTTP/2 has. What stood in `Host` until here.
fn complete(head: &mut request::Parts, body: &RequestBody) -> Option<HeaderValue> {
    remove_what_is_not_in_http2(&mut head.headers);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        let header = head.headers.entry(CONTENT_LENGTH);
        header.or_insert_with(|| HeaderValue::from(length));
    }
    head.headers.remove(HOST)
}
