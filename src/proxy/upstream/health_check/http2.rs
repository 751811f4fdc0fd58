//! HTTP/2 connections for checks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};

use super::keep;
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::http2::{self, Client, Error};
use crate::proxy::io::Io;
use crate::proxy::upstream::cluster::Cluster;

/// Receive windows: more is never expected at a time.
const WINDOW: u32 = 256 << 10;

/// A connection. It is driven while it is used or waited on.
pub(super) struct Connection {
    client: Client,
    /// Reads and writes; `None`: the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// A complete response.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) response: Response<BytesMut>,
    pub(super) trailers: Option<HeaderMap>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

impl Connection {
    pub(super) fn new(io: Io, cluster: &Cluster) -> Self {
        let http = &cluster.config.http;
        let window = http.stream_window.unwrap_or(WINDOW);
        let (client, driver) = http2::begin(io, window, http.connection_window.unwrap_or(WINDOW), http.keepalive);
        Self {
            client,
            driver: Some(Box::pin(async move {
                if let Err(error) = driver.run().await {
                    tracing::debug!(%error, "a connection for health checks failed");
                }
            })),
        }
    }

    /// Whether it can carry a request.
    pub(super) fn is_ready(&self) -> bool {
        self.driver.is_some() && !self.client.is_closed()
    }

    /// Sends a request and reads the response; up to `kept` bytes of its body are kept.
    ///
    /// # Errors
    /// If there is none, or only a part of it.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Bytes>,
        scheme: &'static str,
        kept: usize,
    ) -> Result<Complete, Error> {
        let Self { client, driver } = self;
        let exchange = async {
            client.ready().await?;
            let request = request.map(RequestBody::from);
            let response = client.send(request, scheme, None)?.answer(None).await?;
            let (head, mut stream) = response.into_parts();
            let (mut body, mut trailers) = (BytesMut::new(), None);
            while let Some(frame) = poll_fn(|cx| stream.poll_frame(cx)).await {
                match frame?.into_data() {
                    Ok(piece) => keep(&mut body, &piece, kept),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            Ok(Complete {
                response: Response::from_parts(head, body),
                trailers,
            })
        };
        tokio::pin!(exchange);
        if let Some(running) = driver {
            tokio::select! {
                biased;
                complete = &mut exchange => return complete,
                // All streams have failed by then.
                () = running => *driver = None,
            }
        }
        exchange.await
    }

    /// Answers what the host asks meanwhile. Ends with the connection.
    pub(super) async fn ended(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.await;
            self.driver = None;
        }
    }
}
