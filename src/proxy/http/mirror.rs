//! Copies of requests, whose answers nobody waits for.

use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use http_body_util::BodyExt;

use super::conditioning;
use super::exchange::Exchange;
use super::forward::Prepared;
use super::route::{Forward, Mirror};
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::pool::Towards;

/// How long a copy may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// Sends the copies of a request that its route wants.
pub(super) fn send(exchange: &Exchange, action: &Forward, body: &Prepared) {
    for mirror in &action.mirrors {
        if u64::from(mirror.per_million) > exchange.random % 1_000_000 {
            copy(exchange, mirror, body);
        }
    }
}

fn copy(exchange: &Exchange, mirror: &Mirror, body: &Prepared) {
    let Some(cluster) = mirror.cluster.take() else {
        return;
    };
    let Some(copied) = body.copy() else {
        return;
    };
    let mut request = Request::new(());
    *request.method_mut() = exchange.request.method.clone();
    *request.headers_mut() = exchange.request.headers.clone();
    let path = exchange.request.uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let authority = match mirror.keep_host {
        true => exchange.authority.to_string(),
        false => format!("{}-shadow", exchange.authority),
    };
    if let Ok(host) = HeaderValue::from_str(&authority) {
        request.headers_mut().insert(HOST, host);
    }
    conditioning::sign(request.headers_mut());
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
        let Ok(Some(body)) = tokio::time::timeout(TIMEOUT, copied).await else {
            return;
        };
        let towards = Towards {
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
            meter: None,
            interims: None,
        };
        let mut request = Some(request.map(|()| body));
        let sent = worker.pools.send_own(&towards, &mut request);
        if let Ok(Ok((response, mut lease))) = tokio::time::timeout(TIMEOUT, sent).await
            && let Ok(Ok(_)) = tokio::time::timeout(TIMEOUT, response.into_body().collect()).await
        {
            lease.finished();
        }
    });
}
