//! gRPC message framing, in place of tonic's. tonic copies every response into a buffer of the
//! stream, and both of its buffers keep the size of the largest message for the lifetime of the
//! stream, megabytes per client. Here responses are sent in chunks that share the resources (see
//! [`crate::xds::wire`]), and the buffer of a request is freed once it is parsed.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Frame;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;

use super::window::Window;
use crate::xds::wire;

/// Maximum request size in bytes. Envoy's `node` alone is 61 KB, plus names and versions of all
/// resources in a large mesh.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// Length-prefixed message header: compressed flag (1 byte) and length (4 bytes).
const PREFIX_BYTES: usize = 5;

/// The client's messages.
pub(super) struct Requests<P, B = Body> {
    body: B,
    /// Received bytes of the next messages; unallocated while empty.
    buffer: BytesMut,
    message: PhantomData<fn() -> P>,
}

impl<P, B> Requests<P, B>
where
    P: Message + Default,
    B: hyper::body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            message: PhantomData,
        }
    }

    /// The next message; `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the message is malformed or the connection fails.
    pub(super) async fn message(&mut self) -> Result<Option<P>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => frame
                    .into_data()
                    .iter()
                    .for_each(|data| self.buffer.extend_from_slice(data)),
                Some(Err(error)) => return Err(Status::unavailable(error.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the stream ended within a message")),
            }
        }
    }

    /// The next message, if it is complete.
    fn take(&mut self) -> Result<Option<P>, Status> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(Status::unimplemented("compressed messages are not supported"));
        }
        if length > MAX_REQUEST_BYTES {
            return Err(Status::out_of_range(format!(
                "message of {length} bytes exceeds the limit of {MAX_REQUEST_BYTES}"
            )));
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let message = P::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.buffer.advance(PREFIX_BYTES + length);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// Sender for the responses of a stream; an error ends it. (Boxed because the channel allocates
/// slots in blocks, whatever its capacity.)
pub(super) type Responses = mpsc::Sender<Result<Box<wire::Response>, Status>>;

/// An HTTP response and the sender for its messages.
pub(super) fn respond() -> (Responses, http::Response<Body>) {
    // Capacity 1: the next response may be queued while one is written.
    let (send, messages) = mpsc::channel(1);
    let mut response = http::Response::new(Body::new(ResponseBody {
        messages,
        current: None,
        window: Window::default(),
        ended: false,
    }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    (send, response)
}

/// Body of the HTTP response: the chunks of each message, then the status as trailers.
#[derive(Debug)]
struct ResponseBody {
    messages: mpsc::Receiver<Result<Box<wire::Response>, Status>>,
    current: Option<Box<wire::Response>>,
    window: Window,
    ended: bool,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while !self.ended {
            ready!(self.window.poll_room(cx));
            if let Some(chunk) = self.current.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(Frame::data(self.window.count(chunk)))));
            }
            self.current = None;
            let status = match ready!(self.messages.poll_recv(cx)) {
                Some(Ok(message)) => {
                    self.current = Some(message);
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // `Status` also has details and metadata, which are not used here.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::discovery::DeltaDiscoveryRequest;
    use http_body_util::StreamBody;

    /// Requests received in pieces of this size.
    fn requests(
        bytes: Vec<u8>,
        piece: usize,
    ) -> Requests<DeltaDiscoveryRequest, impl hyper::body::Body<Data = Bytes, Error = Infallible> + Unpin> {
        let pieces: Vec<_> = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
        Requests::new(StreamBody::new(futures::stream::iter(
            pieces.into_iter().map(|piece| Ok(Frame::data(piece))),
        )))
    }

    fn framed(request: &DeltaDiscoveryRequest) -> Vec<u8> {
        let message = request.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        frame
    }

    fn request(names: usize) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            resource_names_subscribe: (0..names).map(|name| name.to_string()).collect(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn messages_are_reassembled_from_any_chunks() {
        let sent = [request(0), request(3), request(100)];
        let bytes: Vec<u8> = sent.iter().flat_map(framed).collect();
        for piece in [1, 4, 7, 10_000] {
            let mut requests = requests(bytes.clone(), piece);
            for sent in &sent {
                assert_eq!(requests.message().await.unwrap().as_ref(), Some(sent));
            }
            assert_eq!(requests.message().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_large_request_leaves_no_buffer_behind() {
        let mut requests = requests(framed(&request(100_000)), 16_384);
        requests.message().await.unwrap().unwrap();
        assert_eq!(requests.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let cases = [
            (vec![1, 0, 0, 0, 0], tonic::Code::Unimplemented),
            (vec![0, 255, 255, 255, 255], tonic::Code::OutOfRange),
            (vec![0, 0, 0, 0, 2, 255, 255], tonic::Code::InvalidArgument),
            (vec![0, 0, 0, 0, 2, 0], tonic::Code::InvalidArgument),
        ];
        for (bytes, code) in cases {
            let mut requests = requests(bytes.clone(), 100);
            assert_eq!(requests.message().await.unwrap_err().code(), code, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_status_ends_the_response() {
        for (last, code) in [(None, "0"), (Some(Status::permission_denied("no")), "7")] {
            let (send, response) = respond();
            if let Some(status) = last {
                send.send(Err(status)).await.unwrap();
            }
            drop(send);
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], code);
        }
    }
}
