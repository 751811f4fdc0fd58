//! Terminated CONNECT requests (`connect_config`): the bytes of the tunnel are forwarded over TCP, without HTTP.
//!
//! There is no task for a connection: whoever reads the response also writes what is left of the request.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame};

use super::{Active, Lease, Pools, UpstreamTarget};
use crate::proxy::connection::UpstreamInfo;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::{Incoming, PeerError};
use crate::proxy::http::http1::wire::Wire;
use crate::proxy::io::metered::Metered;
use crate::proxy::tls::TlsOverrides;
use crate::proxy::upstream::balance::outlier::Report;
use crate::proxy::upstream::connect::{self, MadeFor, Open, SendError};
use crate::proxy::upstream::proxy_protocol::Ends;

impl Pools {
    /// Connects to a host and sends `first`, then the request's body. The response is made as soon as there is a
    /// connection, which is for this request only.
    ///
    /// # Errors
    /// If connecting fails.
    pub(crate) async fn send_raw(
        target: &UpstreamTarget<'_>,
        first: &[u8],
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let cluster = target.cluster;
        let ends = target.passed_on.map(Ends::of);
        let made_for = MadeFor {
            source: target.source,
            ends: ends.as_ref(),
        };
        let link = connect::connect(cluster, target.host, TlsOverrides::default(), made_for).await?;
        let active = Active::begin(target)?;
        cluster.report(target.host, Report::Reached);
        target.reached(|| UpstreamInfo {
            near: link.near.clone(),
            protocol: None,
        });
        let mut wire = Wire::new(Metered::new(link.io, link.open), BytesMut::new());
        wire.meter = target.meter.cloned();
        wire.out.short().extend_from_slice(first);
        let mut stream = RawStream {
            wire,
            body: request.take().map(Request::into_body),
            ends: false,
        };
        // What has been received already is sent before the tunnel is announced.
        poll_fn(|cx| {
            stream.poll_send(cx);
            Poll::Ready(())
        })
        .await;
        let lease = Lease {
            carrier: None,
            active: Some(active),
        };
        Ok((Response::new(Incoming::Raw(Box::new(stream))), lease))
    }
}

/// A connection whose receiving direction is the body of a response.
#[derive(Debug)]
pub(crate) struct RawStream {
    wire: Wire<Metered<Open>>,
    /// What is still to be sent.
    body: Option<RequestBody>,
    /// Whether to half-close it at the end.
    ends: bool,
}

impl RawStream {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PeerError>>> {
        self.poll_send(cx);
        loop {
            if !self.wire.read.is_empty() {
                let read = self.wire.read.split().freeze();
                return Poll::Ready(Some(Ok(Frame::data(read))));
            }
            if self.wire.ended {
                return Poll::Ready(None);
            }
            if ready!(self.wire.poll_fill(cx)).is_err() {
                self.wire.ended = true;
                return Poll::Ready(Some(Err(PeerError::Left)));
            }
        }
    }

    /// Sends what has been received of the request, and its end.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        loop {
            while self.wire.out.has_room()
                && let Some(body) = &mut self.body
                && let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx)
            {
                let last = frame.is_none() || body.is_end_stream();
                match frame {
                    Some(Ok(frame)) => self.wire.out.put(frame.into_data().unwrap_or_default(), b""),
                    // Whoever provides it handles its failure.
                    Some(Err(_)) => self.body = None,
                    None => {}
                }
                if last {
                    (self.body, self.ends) = (None, true);
                }
            }
            if self.wire.out.is_empty() {
                break;
            }
            match self.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return,
                Poll::Ready(Err(_)) => return self.taken_no_more(),
            }
        }
        if self.ends {
            match self.wire.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.ends = false,
                Poll::Ready(Err(_)) => self.taken_no_more(),
                Poll::Pending => {}
            }
        }
    }

    /// The host reads no more; what it sends is still forwarded.
    fn taken_no_more(&mut self) {
        self.wire.out.forget();
        (self.body, self.ends) = (None, false);
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.wire.ended && self.wire.read.is_empty()
    }
}
