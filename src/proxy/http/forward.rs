//! Sending a request on to a host, and its answer back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};

use super::body::{RequestBody, ResponseBody};
use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::route::{Forward, Matched};
use crate::proxy::flags::Flags;
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::connect::{FailureKind, SendError};
use crate::proxy::upstream::host::Host;

/// Sends a request on.
///
/// # Errors
/// What to answer where no host did.
pub(crate) async fn forward(
    exchange: &mut Exchange,
    _matched: &Matched,
    action: &Forward,
) -> Result<Response<ResponseBody>, LocalReply> {
    let worker = exchange.downstream.worker.clone();
    let named = |name: &str| worker.cluster(name);
    let (slot, _share) = action
        .destination
        .choose(exchange.random, &exchange.request.headers, named);
    let Some(cluster) = slot.and_then(|slot| slot.take()) else {
        exchange.downstream.manager.stats.no_cluster.fetch_add(1, Relaxed);
        return Err(LocalReply::new(
            action.cluster_not_found,
            "",
            Flags::NO_CLUSTER,
            "cluster_not_found",
        ));
    };
    exchange.stream.cluster = Some(cluster.clone());
    let response = attempt(exchange, &cluster).await?;
    cluster.stats.rq_total.fetch_add(1, Relaxed);
    Ok(response)
}

async fn attempt(exchange: &mut Exchange, cluster: &Arc<Cluster>) -> Result<Response<ResponseBody>, LocalReply> {
    let Some(host) = cluster.choose(&Choice::default()) else {
        cluster.stats.cx_none_healthy.fetch_add(1, Relaxed);
        return Err(LocalReply::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no healthy upstream",
            Flags::NO_HEALTHY_UPSTREAM,
            "no_healthy_upstream",
        ));
    };
    exchange.stream.host = Some(host.clone());
    exchange.stream.attempts += 1;
    let body = exchange.body.take().map_or(RequestBody::Empty, RequestBody::Client);
    let request = upstream_request(exchange, body);
    let worker = exchange.downstream.worker.clone();
    match worker
        .pools
        .send(cluster, &host, exchange.request.version, request)
        .await
    {
        Ok((response, lease)) => {
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, ResponseBody::host(body, lease)))
        }
        Err(error) => Err(failed(exchange, &host, error)),
    }
}

/// The request as the host gets it: origin form, and the host in `Host`.
fn upstream_request(exchange: &Exchange, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = exchange.request.method.clone();
    *request.headers_mut() = exchange.request.headers.clone();
    *request.version_mut() = Version::HTTP_11;
    let path = exchange.request.uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(host) = http::HeaderValue::from_str(&exchange.authority) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    request
}

fn failed(exchange: &mut Exchange, _host: &Arc<Host>, error: SendError) -> LocalReply {
    exchange.stream.transport_failure = Some(error.reason.clone());
    let (flags, details) = match error.kind {
        FailureKind::Connect => (Flags::UPSTREAM_CONNECTION_FAILURE, "connection_failure"),
        FailureKind::ConnectTimeout => (Flags::UPSTREAM_CONNECTION_FAILURE, "connection_timeout"),
        FailureKind::Overflow => (Flags::UPSTREAM_OVERFLOW, "overflow"),
        FailureKind::Reset => (Flags::UPSTREAM_CONNECTION_TERMINATION, "connection_termination"),
        FailureKind::Protocol => (Flags::UPSTREAM_PROTOCOL_ERROR, "protocol_error"),
    };
    LocalReply::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("upstream connect error or disconnect/reset before headers. reset reason: {details}"),
        flags,
        format!("upstream_reset_before_response_started{{{details}}}"),
    )
}
