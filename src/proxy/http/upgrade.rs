//! Connections that go over to another protocol: WebSocket and CONNECT.

use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::body::ResponseBody;
use super::body::incoming::Incoming;
use super::exchange::Exchange;
use crate::proxy::tcp;
use crate::proxy::upstream::pool::Lease;

/// Whether an answer of this status opens a tunnel.
pub(super) fn is_tunnel(exchange: &Exchange, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (exchange.request.method == Method::CONNECT && status.is_success())
}

/// Joins the client's connection and the host's once both have gone over, and returns the answer that says so.
pub(super) fn join(
    exchange: &mut Exchange,
    mut response: Response<Incoming>,
    mut lease: Lease,
    idle: Option<Duration>,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let (parts, _) = response.into_parts();
    if let Some(downstream) = exchange.upgraded.take() {
        tokio::task::spawn_local(async move {
            // Both ends have to have gone over; a client that went away is of no interest.
            if let Ok((client, host)) = tokio::try_join!(downstream, upstream) {
                let joined = tcp::copy(&mut TokioIo::new(client), &mut TokioIo::new(host), idle).await;
                if let Err(error) = joined {
                    tracing::debug!(%error, "an upgraded connection broke");
                }
            }
            lease.finished();
        });
    }
    let mut answer = Response::from_parts(parts, ResponseBody::empty());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(Ok(protocol)) = exchange.upgrade.as_deref().map(HeaderValue::from_str) {
            answer.headers_mut().entry(UPGRADE).or_insert(protocol);
        }
    }
    answer
}
