//! Request mirroring (`request_mirror_policies`): copies of requests whose responses are discarded.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri};
use http_body_util::BodyExt;

use super::body::RequestBody;
use super::conditioning;
use super::exchange::Exchange;
use super::forward::UpstreamBody;
use super::route::{Forward, Mirror};
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::pool::{Pools, UpstreamTarget};

/// Sends the copies that the route asks for.
pub(super) fn send(exchange: &Exchange, action: &Forward, body: &UpstreamBody) {
    for mirror in &action.mirrors {
        if u64::from(mirror.per_million) > exchange.random % 1_000_000 {
            copy(exchange, mirror, action.timeouts.response, body);
        }
    }
}

/// Sends one copy. From the end of the request on, its response may take as long as the original's.
fn copy(exchange: &Exchange, mirror: &Mirror, timeout: Option<Duration>, body: &UpstreamBody) {
    let Some(cluster) = mirror.cluster.load_full() else {
        return;
    };
    let Some(copied) = body.copy() else {
        return;
    };
    let authority = match mirror.keep_host {
        true => exchange.authority.to_string(),
        false => shadow(&exchange.authority),
    };
    let request = head(exchange, mirror, &authority);
    let worker = exchange.downstream.worker.clone();
    let version = exchange.request.version;
    let scheme = exchange.scheme;
    let destination = exchange.downstream.connection.local.socket();
    let source = exchange.downstream.connection.source;
    tokio::task::spawn_local(async move {
        let choice = Choice {
            destination,
            ..Default::default()
        };
        let Some(host) = cluster.choose(&choice) else {
            return;
        };
        let Some(body) = copied.await else {
            return;
        };
        let target = UpstreamTarget {
            cluster: &cluster,
            host: &host,
            downstream: version,
            alpn: None,
            authority: &authority,
            scheme,
            high_priority: false,
            upgrade: false,
            source,
            passed_on: None,
            carried: None,
            route: None,
            meter: None,
            interims: None,
        };
        let exchanged = discard_response(&worker.pools, &target, request.map(|()| body));
        match timeout {
            None => drop(exchanged.await),
            Some(timeout) => {
                if tokio::time::timeout(timeout, exchanged).await.is_err() {
                    let stats = &cluster.stats;
                    stats.rq_timeout.fetch_add(1, Relaxed);
                    host.state.stats.rq_timeout.fetch_add(1, Relaxed);
                    stats.internal.count_status(StatusCode::GATEWAY_TIMEOUT.as_u16());
                }
            }
        }
    });
}

/// The copy without its body.
fn head(exchange: &Exchange, mirror: &Mirror, authority: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = exchange.request.method.clone();
    *request.headers_mut() = exchange.request.headers.clone();
    let path = exchange.request.uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(host) = HeaderValue::from_str(authority) {
        request.headers_mut().insert(HOST, host);
    }
    conditioning::mark_internal(request.headers_mut());
    if let (Some(tracing), Some(span)) = (&exchange.downstream.manager.tracing, &exchange.span)
        && !mirror.sampled
    {
        span.tell_unsampled(tracing, request.headers_mut());
    }
    request
}

/// Sends a request and reads its response to the end; `None` if it fails.
async fn discard_response(pools: &Pools, target: &UpstreamTarget<'_>, request: Request<RequestBody>) -> Option<()> {
    let (response, mut lease) = pools.send_own(target, &mut Some(request)).await.ok()?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.ok()?;
    }
    lease.finished();
    Some(())
}

/// The authority of a copy with `-shadow` appended, which tells it from the original in logs.
fn shadow(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => format!("{host}-shadow:{port}"),
        Some(_) | None => format!("{authority}-shadow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_copy_keeps_its_port() {
        assert_eq!(shadow("a"), "a-shadow");
        assert_eq!(shadow("a:8080"), "a-shadow:8080");
        assert_eq!(shadow("[::1]:80"), "[::1]-shadow:80");
        assert_eq!(shadow("[::1]"), "[::1]-shadow");
    }
}
