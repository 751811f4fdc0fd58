//! HTTP/1.1 connections for checks.

use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};

use super::keep;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::http1::encode::{self, Coding};
use crate::proxy::http::http1::response::{self, Head, RequestKind, SIZE};
use crate::proxy::http::http1::wire::Wire;
use crate::proxy::http::http1::{Field, Refusal, Rest, ScanSchedule};
use crate::proxy::io::Io;

/// Size limit of response trailers.
const TRAILERS: usize = 60 << 10;

/// A connection, which carries one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire<Io>,
    fields: Vec<Field>,
    /// Whether it can carry another request.
    reusable: bool,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the host violates HTTP/1.1: {0}")]
    Protocol(Refusal),
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Broken::Protocol(refusal)
    }
}

impl Connection {
    pub(super) fn new(io: Io) -> Self {
        Self {
            wire: Wire::new(io, BytesMut::new()),
            fields: Vec::new(),
            reusable: true,
        }
    }

    /// Whether it can carry a request: the host has neither closed it nor sent what nobody asked for.
    pub(super) fn is_ready(&mut self) -> bool {
        self.reusable && self.wire.is_quiet()
    }

    /// Sends a request and reads the response; up to `kept` bytes of its body are kept.
    ///
    /// # Errors
    /// If there is none, or only a part of it.
    pub(super) async fn exchange(
        &mut self,
        request: &Request<Bytes>,
        kept: usize,
    ) -> Result<Response<BytesMut>, Broken> {
        self.reusable = false;
        let kind = RequestKind::of(request.method(), false);
        self.send(request, kind).await?;
        let mut head = self.head(kind).await?;
        let body = self.body(&mut head.rest, kept).await?;
        self.reusable = head.keep_alive && self.wire.read.is_empty() && !self.wire.ended;
        Ok(head.response.map(|()| body))
    }

    async fn send(&mut self, request: &Request<Bytes>, kind: RequestKind) -> io::Result<()> {
        let payload = request.body();
        let body = RequestBody::from(payload.clone());
        let target = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let out = &mut self.wire.out;
        let mut coding = encode::request(out, request.method(), target.as_bytes(), request.headers(), &body, kind);
        if coding != Coding::Nothing {
            // Its length is that of the body that it was written for.
            let _ = coding.piece(out, payload.clone(), true);
        }
        poll_fn(|cx| self.wire.poll_flush(cx)).await
    }

    async fn head(&mut self, kind: RequestKind) -> Result<Head, Broken> {
        let mut scans = ScanSchedule::default();
        loop {
            while scans.is_due(&self.wire.read, SIZE) {
                match response::take(&mut self.wire.read, &mut self.fields, kind)? {
                    Some(head) if head.is_interim() => scans = ScanSchedule::default(),
                    Some(head) => return Ok(head),
                    None => {}
                }
            }
            self.fill().await?;
        }
    }

    async fn body(&mut self, rest: &mut Rest, kept: usize) -> Result<BytesMut, Broken> {
        let mut body = BytesMut::new();
        loop {
            match rest.take(&mut self.wire.read, TRAILERS)? {
                Some(piece) => keep(&mut body, &piece, kept),
                None if *rest == Rest::Nothing => return Ok(body),
                None if *rest == Rest::UntilEnd && self.wire.ended => return Ok(body),
                None => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.wire.ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        poll_fn(|cx| self.wire.poll_fill(cx)).await
    }
}
