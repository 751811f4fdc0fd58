//! Requests as sent by an application.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::Seen;

/// A request, which can be sent several times.
#[derive(Clone, Debug)]
pub struct Call {
    to: SocketAddr,
    http2: bool,
    request: Request<Full<Bytes>>,
}

/// `GET <path>` of `host`, sent to the listener at `to`.
pub fn get(to: SocketAddr, host: &str, path: &str) -> Call {
    let request = Request::get(path).header("host", host).body(Full::default()).unwrap();
    Call {
        to,
        http2: false,
        request,
    }
}

impl Call {
    /// Sets the method.
    pub fn method(mut self, method: Method) -> Self {
        *self.request.method_mut() = method;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request.headers_mut().append(name, value.parse().unwrap());
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: &str) -> Self {
        *self.request.body_mut() = Full::from(body.to_owned());
        self
    }

    /// Uses HTTP/2 with prior knowledge.
    pub fn http2(mut self) -> Self {
        let host = self.request.headers_mut().remove("host").unwrap();
        let path = self.request.uri().path_and_query().unwrap().as_str();
        *self.request.uri_mut() = format!("http://{}{path}", host.to_str().unwrap()).parse().unwrap();
        self.http2 = true;
        self
    }

    /// The address it is sent to.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// The request.
    pub fn request(&self) -> Request<Full<Bytes>> {
        self.request.clone()
    }

    /// Sends it on a new connection. Any status is a success.
    pub async fn send(&self) -> Result<Answer, String> {
        let stream = TcpStream::connect(self.to)
            .await
            .map_err(|error| format!("{}: {error}", self.to))?;
        let stream = TokioIo::new(stream);
        let response = if self.http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(shown)?;
            tokio::spawn(connection);
            sender.send_request(self.request()).await.map_err(shown)?
        } else {
            let (mut sender, connection) = http1::handshake(stream).await.map_err(shown)?;
            tokio::spawn(connection);
            sender.send_request(self.request()).await.map_err(shown)?
        };
        Answer::read(response).await
    }

    /// Sends it and expects this status.
    pub async fn expect(&self, status: u16) -> Answer {
        let answer = self.send().await.unwrap();
        assert_eq!(
            answer.status,
            status,
            "{} {}: {}",
            self.request.method(),
            self.request.uri(),
            answer.text()
        );
        answer
    }

    /// Sends it `count` times and counts responses by backend. All must have status 200.
    pub async fn count(&self, count: usize) -> std::collections::BTreeMap<String, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..count {
            *counts.entry(self.expect(200).await.seen().backend).or_default() += 1;
        }
        counts
    }
}

fn shown(error: hyper::Error) -> String {
    let cause = std::error::Error::source(&error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    format!("{error}{cause}")
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> Result<Self, String> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(shown)?.to_bytes();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Value of a header, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The request as received by the backend.
    pub fn seen(&self) -> Seen {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }
}

/// The name of the TCP application at the other end; all names have five letters.
pub async fn answering(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> Result<String, String> {
    stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
    let mut answer = [0; 11];
    stream
        .read_exact(&mut answer)
        .await
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.strip_suffix(":hello").ok_or(text.clone())?.to_owned())
}
