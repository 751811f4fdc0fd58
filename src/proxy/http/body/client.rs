//! A client's request body as the HTTP filters leave it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::BodyError;
use super::incoming::Incoming;
use crate::proxy::http::http1::Refusal;

/// The body of a client's request.
#[derive(Debug)]
pub(crate) enum ClientBody {
    /// As received.
    Streaming(Incoming),
    /// Base64 (`application/grpc-web-text`), decoded as it is received.
    Encoded(Incoming, Base64),
    /// Buffered as a whole, with its trailers.
    Whole(Option<Bytes>, Option<HeaderMap>),
}

/// A streaming base64 decoder: holds up to three characters of an incomplete quad.
#[derive(Debug, Default)]
pub(crate) struct Base64(BytesMut);

impl Base64 {
    /// Decodes all complete quads.
    ///
    /// # Errors
    /// If the data is not base64.
    pub(crate) fn decode(&mut self, data: &[u8]) -> Result<Bytes, BodyError> {
        self.0.extend_from_slice(data);
        let whole = self.0.len() / 4 * 4;
        let encoded = self.0.split_to(whole);
        let mut out = Vec::with_capacity(whole / 4 * 3);
        // Each gRPC-Web message may be padded by itself.
        for quad in encoded.chunks(4) {
            STANDARD
                .decode_vec(quad, &mut out)
                .map_err(|_| BodyError::Malformed(Refusal::base64("grpc_base_64_decode_failed")))?;
        }
        Ok(out.into())
    }

    /// Checks that the data may end here.
    ///
    /// # Errors
    /// If a quad is incomplete.
    pub(crate) fn end(&self) -> Result<(), BodyError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(BodyError::Malformed(Refusal::base64(
                "grpc_base_64_decode_failed_bad_size",
            ))),
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ClientBody::Streaming(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Peer)))
            }
            ClientBody::Encoded(body, decoder) => {
                let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => Some(decoder.decode(&data).map(Frame::data)),
                        Err(frame) => Some(decoder.end().map(|()| frame)),
                    },
                    Some(Err(error)) => Some(Err(BodyError::Peer(error))),
                    None => decoder.end().err().map(Err),
                };
                Poll::Ready(frame)
            }
            ClientBody::Whole(data, trailers) => {
                let frame = data
                    .take()
                    .map(Frame::data)
                    .or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Streaming(body) => body.is_end_stream(),
            ClientBody::Encoded(body, decoder) => body.is_end_stream() && decoder.0.is_empty(),
            ClientBody::Whole(data, trailers) => data.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Streaming(body) => body.size_hint(),
            ClientBody::Encoded(..) => SizeHint::default(),
            ClientBody::Whole(data, _) => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
