//! `envoy.filters.http.buffer`: forwards a request only once all of it has been received.

use std::rc::Rc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;

use crate::proxy::flags::Flags;
use crate::proxy::http::body::client::ClientBody;
use crate::proxy::http::body::incoming::PeerError;
use crate::proxy::http::body::{BodyError, Progress, RequestBody};
use crate::proxy::http::deadlines;
use crate::proxy::http::exchange::Exchange;
use crate::proxy::http::local_reply::LocalReply;
use crate::proxy::http::upgrade;

/// How much of a request may be buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferLimit {
    /// `max_request_bytes`.
    pub(crate) max_bytes: usize,
}

impl BufferLimit {
    /// Waits for the whole body, under the request's timeouts.
    pub(super) async fn request(self, exchange: &mut Exchange) -> Option<LocalReply> {
        if upgrade::asks(exchange) {
            return None;
        }
        let body = exchange.body.take()?;
        let progress = Rc::<Progress>::default();
        exchange.progress = Some(progress.clone());
        let whole = self.whole(RequestBody::Client(body, progress.clone()));
        // Boxed: the future is large and rarely needed.
        let (data, trailers) = match Box::pin(deadlines::within(exchange, progress, whole)).await {
            Ok(Ok(whole)) => whole,
            Ok(Err(reply)) | Err(reply) => return Some(reply),
        };
        if trailers.is_none() {
            let length = HeaderValue::from(data.len());
            exchange.request.headers.insert(header::CONTENT_LENGTH, length);
        }
        let data = (!data.is_empty()).then(|| data.freeze());
        exchange.body = Some(ClientBody::Whole(data, trailers));
        None
    }

    async fn whole(self, mut body: RequestBody) -> Result<(BytesMut, Option<HeaderMap>), LocalReply> {
        let (mut data, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(BodyError::Peer(PeerError::Malformed(refusal))) => return Err(refusal.reply()),
                // A client that has left needs no reply; its connection's task drops this future.
                Err(BodyError::Peer(_)) => std::future::pending().await,
                Err(error) => return Err(malformed(&error)),
            };
            match frame.into_data() {
                Ok(chunk) if data.len() + chunk.len() > self.max_bytes => return Err(too_large()),
                Ok(chunk) => data.extend_from_slice(&chunk),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok((data, trailers))
    }
}

fn malformed(error: &BodyError) -> LocalReply {
    let (flags, details) = error.flags_and_details();
    LocalReply::new(StatusCode::BAD_REQUEST, "", flags, details)
}

fn too_large() -> LocalReply {
    let text = "Payload Too Large";
    LocalReply::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        text,
        Flags::default(),
        "request_payload_too_large",
    )
    .closing()
}
