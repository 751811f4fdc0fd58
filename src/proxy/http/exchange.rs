//! One request and its response: Envoy's `ActiveStream`.
//!
//! [`exchange`] conditions the request, matches a route, runs the filters and lets the route's action produce the
//! response; [`Recorder`] then follows the response's body to its end, where statistics, access logs and the span are
//! written.

mod recorder;
mod spans;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderMap, HeaderValue, SERVER, VIA};
use http::{Method, Request, Response, StatusCode, Version, request, response};
use http_body::Body;

use super::body::client::ClientBody;
use super::body::incoming::Incoming;
use super::body::{Progress, ResponseBody};
use super::conditioning::{self, REQUEST_ID};
use super::connection::Downstream;
use super::filter::HttpFilter;
use super::filter::grpc_stats::Call;
use super::filter::grpc_web::{self, Dialect, WebCall};
use super::header_ops::{HeaderOps, MessageKind};
use super::http1::Refusal;
use super::interim::Interims;
use super::local_reply::LocalReply;
use super::meter::Meter;
use super::route::{self, Forward, Matched, Mutations, RouteAction, WeightedCluster};
use super::{HttpManager, ServerHeader, forward, rewrite, upgrade};
use crate::proxy::connection::Stream;
use crate::proxy::flags::Flags;
use crate::proxy::format::{Context, RequestLine};
use crate::proxy::slot::Slot;
use crate::proxy::trace::span::ActiveSpan;
use crate::proxy::upstream::cluster::Cluster;

pub(crate) use recorder::Recorder;

/// A request on its way through the filters, and what is known of its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The connection it was received on.
    pub(crate) downstream: Rc<Downstream>,
    /// The request without its body, as the filters have changed it. [`Exchange::authority`] stands for `host`.
    pub(crate) request: request::Parts,
    /// The body; `None` once it is sent.
    pub(crate) body: Option<ClientBody>,
    /// `:authority`.
    pub(crate) authority: Box<str>,
    /// `:scheme`.
    pub(crate) scheme: &'static str,
    /// The requested upgrade protocol, in lower case.
    pub(crate) upgrade: Option<Box<str>>,
    /// How much of the body has been received, once it is being sent.
    pub(crate) progress: Option<Rc<Progress>>,
    /// Interim (1xx) responses to the client.
    pub(crate) interims: Option<Interims>,
    /// The matched route.
    pub(crate) matched: Option<Rc<Matched>>,
    /// ALPN protocols offered to the host instead of the cluster's (`envoy.network.application_protocols`).
    pub(crate) upstream_alpn: Option<Arc<[Vec<u8>]>>,
    /// The `origin` to which the CORS filter grants access to the response.
    pub(crate) cors_origin: Option<HeaderValue>,
    /// Counts of the `grpc_stats` filter.
    pub(crate) grpc_call: Option<Call>,
    /// The call, if the client speaks gRPC-Web.
    pub(crate) grpc_web: Option<WebCall>,
    /// Whether the request could not be parsed, so that nothing of it is known.
    refused: bool,
    /// What access logs and format strings tell of it.
    pub(crate) stream: Stream,
    /// Its span, if it is traced.
    pub(crate) span: Option<Box<ActiveSpan>>,
    /// Whether it is a gRPC request.
    pub(crate) grpc: bool,
    /// The random number for weighted clusters, sampling and runtime fractions.
    pub(crate) random: u64,
    /// The response headers as sent, for access logs.
    sent_headers: Option<HeaderMap>,
    /// The response trailers, while logs wait for the last byte to be written.
    sent_trailers: Option<Box<HeaderMap>>,
}

/// Answers a request.
pub(crate) async fn exchange(
    downstream: Rc<Downstream>,
    request: Request<Incoming>,
    interims: Interims,
    meter: Option<Rc<Meter>>,
) -> Response<ResponseBody> {
    let on = downstream.clone();
    let manager = &*on.manager;
    // If the client leaves, this future is dropped: the guard records the request all the same.
    let mut exchange = Exchange::begin(downstream, request.map(Some));
    exchange.stream.upstream_bytes = meter.as_ref().map(|_| Rc::default());
    exchange.stream.downstream_bytes = meter;
    exchange.interims = Some(interims);
    let mut exchange = AbandonGuard(Some(exchange));
    let response = match exchange.get() {
        Some(exchange) => {
            let response = match exchange.answer(manager).await {
                Ok(response) => response,
                Err(reply) => exchange.local(reply),
            };
            if let Some(call) = &mut exchange.grpc_call {
                call.answered(&response);
            }
            match &exchange.grpc_web {
                None => response,
                Some(call) => {
                    call.charge(response.headers());
                    let dialect = call.dialect;
                    exchange.for_browser(dialect, response).await
                }
            }
        }
        None => Response::new(ResponseBody::empty()),
    };
    match exchange.0.take() {
        Some(exchange) => exchange.finish(manager, response),
        None => response,
    }
}

/// `:path`, with the query; CONNECT has none.
fn path(request: &request::Parts) -> &str {
    match request.uri.path_and_query() {
        Some(path) => path.as_str(),
        None if request.method == Method::CONNECT => "",
        None => "/",
    }
}

/// Answers a request that the codec could not parse.
pub(crate) fn refuse(
    downstream: Rc<Downstream>,
    refusal: Refusal,
    version: Version,
    meter: Option<Rc<Meter>>,
) -> Response<ResponseBody> {
    let manager = downstream.manager.clone();
    manager.stats.protocol_error.fetch_add(1, Relaxed);
    let mut nothing = Request::new(None);
    *nothing.version_mut() = version;
    let mut exchange = Exchange::begin(downstream, nothing);
    exchange.refused = true;
    exchange.stream.downstream_bytes = meter;
    let response = exchange.local(refusal.reply());
    exchange.finish(&manager, response)
}

/// Records an HTTP/2 request whose stream is reset instead of answered; Envoy counts that as a reset by the client.
pub(crate) fn record_reset(downstream: Rc<Downstream>, details: &'static str, meter: Option<Rc<Meter>>) {
    let mut nothing = Request::new(None);
    *nothing.version_mut() = Version::HTTP_2;
    let mut exchange = Exchange::begin(downstream, nothing);
    exchange.refused = true;
    exchange.stream.downstream_bytes = meter;
    exchange.stream.blame(Flags::DOWNSTREAM_REMOTE_RESET, details);
    exchange.downstream.manager.stats.rq_rx_reset.fetch_add(1, Relaxed);
    exchange.close();
}

/// Why an HTTP/2 stream with these request headers is reset instead of answered, if it is.
pub(crate) fn reset_details(downstream: &Downstream, headers: &HeaderMap) -> Option<&'static str> {
    conditioning::reset_details(headers, &downstream.manager)
}

/// Records an exchange as abandoned if its future is dropped.
struct AbandonGuard(Option<Box<Exchange>>);

impl AbandonGuard {
    fn get(&mut self) -> Option<&mut Exchange> {
        self.0.as_deref_mut()
    }
}

impl Drop for AbandonGuard {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            Recorder(exchange).abandoned();
        }
    }
}

impl Exchange {
    /// Begins an exchange, which is counted as active from now on.
    fn begin(downstream: Rc<Downstream>, request: Request<Option<Incoming>>) -> Box<Self> {
        let stats = &downstream.manager.stats;
        stats.rq_total.fetch_add(1, Relaxed);
        stats.rq_active.fetch_add(1, Relaxed);
        downstream.request_begins();
        match request.version() {
            Version::HTTP_2 => stats.rq_http2_total.fetch_add(1, Relaxed),
            _ => stats.rq_http1_total.fetch_add(1, Relaxed),
        };
        Box::new(Self::new(downstream, request))
    }

    fn new(downstream: Rc<Downstream>, request: Request<Option<Incoming>>) -> Self {
        let (request, body) = request.into_parts();
        let mut stream = Stream::new(Some(request.version));
        let whole = body.as_ref().is_none_or(Body::is_end_stream);
        stream.timing.request_received = whole.then_some(Duration::ZERO);
        let authority: Box<str> = match (request.uri.authority(), request.headers.get(HOST)) {
            (Some(authority), _) => {
                // Userinfo is not forwarded (RFC 9110 section 4.2.4).
                let authority = authority.as_str();
                let host = authority.rsplit_once('@').filter(|_| request.version < Version::HTTP_2);
                host.map_or(authority, |(_, host)| host).into()
            }
            (None, Some(host)) => host.to_str().unwrap_or_default().into(),
            (None, None) => "".into(),
        };
        Self {
            authority,
            scheme: "http",
            stream,
            grpc: route::is_grpc(&request.headers),
            random: fastrand::u64(..),
            body: body.map(ClientBody::Streaming),
            span: None,
            matched: None,
            upgrade: None,
            progress: None,
            interims: None,
            refused: false,
            upstream_alpn: None,
            cors_origin: None,
            grpc_call: None,
            grpc_web: None,
            sent_headers: None,
            sent_trailers: None,
            request,
            downstream,
        }
    }

    async fn answer(&mut self, manager: &HttpManager) -> Result<Response<ResponseBody>, LocalReply> {
        conditioning::mutate_request_headers(self)?;
        self.matched = self.find_route();
        if let Some(matched) = &self.matched
            && let Err(mut reply) = upgrade::check(self, matched)
        {
            self.change_reply(&mut reply);
            return Err(reply);
        }
        if let Some(tracing) = &manager.tracing {
            self.trace(tracing, manager);
        }
        self.stream.request_id = self.request.headers.get(&REQUEST_ID).cloned();
        for filter in &manager.filters {
            if let Some(mut reply) = filter.request(self).await {
                // As in Envoy, preflight responses get no header changes of the route.
                if !matches!(filter, HttpFilter::Cors) {
                    self.change_reply(&mut reply);
                }
                return Err(reply);
            }
        }
        manager.stats.routed.fetch_add(1, Relaxed);
        let Some(matched) = self.matched.clone() else {
            manager.stats.no_route.fetch_add(1, Relaxed);
            return Err(LocalReply::new(
                StatusCode::NOT_FOUND,
                "",
                Flags::NO_ROUTE,
                "route_not_found",
            ));
        };
        self.stream.route = matched.route.name.clone();
        match &matched.route.action {
            RouteAction::Forward(action) => forward::forward(self, &matched, action).await,
            RouteAction::Direct(direct) => {
                manager.stats.direct_response.fetch_add(1, Relaxed);
                let mut reply =
                    LocalReply::new(direct.status, direct.body.clone(), Flags::default(), "direct_response");
                rewrite::locate(self, &mut reply);
                Ok(self.own_response(&matched, reply))
            }
            RouteAction::Redirect(redirect) => {
                // As in Envoy, redirects count as direct responses, and `rq_redirect` stays zero.
                manager.stats.direct_response.fetch_add(1, Relaxed);
                let reply = rewrite::redirect(self, &matched, redirect);
                rewrite::redirected(self, &matched, redirect);
                Ok(self.own_response(&matched, reply))
            }
        }
    }

    /// Counts the status of a response to the client, interim ones included.
    pub(super) fn count_status(&self, status: u16) {
        let manager = &self.downstream.manager;
        manager.stats.rq_class.count(status);
        manager.rq_class_of_listener.count(status);
    }

    /// Matches a route for the request as it is now.
    pub(crate) fn find_route(&self) -> Option<Rc<Matched>> {
        self.downstream
            .manager
            .routes
            .get()
            .as_ref()?
            .find(&self.for_matching())
            .map(Rc::new)
    }

    /// The request as route matchers see it.
    pub(crate) fn for_matching(&self) -> route::Request<'_> {
        route::Request {
            method: &self.request.method,
            uri: &self.request.uri,
            scheme: self.scheme,
            host: &self.authority,
            headers: &self.request.headers,
            random: self.random,
        }
    }

    /// Whether the upstream request is gRPC: the client's is, or the gRPC-Web filter made it so.
    pub(crate) fn speaks_grpc(&self) -> bool {
        self.grpc || self.grpc_web.is_some()
    }

    /// What format strings can refer to.
    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            connection: &self.downstream.connection,
            stream: &self.stream,
            request: (!self.refused).then_some(RequestLine {
                method: &self.request.method,
                path: self.path(),
                authority: &self.authority,
                scheme: self.scheme,
            }),
            request_headers: Some(&self.request.headers),
            response_headers: self.sent_headers.as_ref(),
            response_trailers: None,
        }
    }

    /// `:path`, with the query.
    pub(crate) fn path(&self) -> &str {
        path(&self.request)
    }

    /// Applies the header changes of route, virtual host and route table to the request, the most specific level first
    /// unless the table says otherwise.
    pub(crate) fn change_request_headers(&mut self, matched: &Matched, share: Option<&WeightedCluster>) {
        let mut headers = std::mem::take(&mut self.request.headers);
        self.change_headers(matched, share, MessageKind::Request, &mut headers);
        self.request.headers = headers;
    }

    /// Applies their header changes to the response, in the same order.
    pub(crate) fn change_response_headers(
        &self,
        matched: &Matched,
        share: Option<&WeightedCluster>,
        response: &mut HeaderMap,
    ) {
        self.change_headers(matched, share, MessageKind::Response, response);
    }

    fn change_headers<'a>(
        &self,
        matched: &'a Matched,
        share: Option<&'a WeightedCluster>,
        of: MessageKind,
        headers: &mut HeaderMap,
    ) {
        let ops = |changes: &'a Mutations| match of {
            MessageKind::Request => &changes.request,
            MessageKind::Response => &changes.response,
        };
        let levels = [
            share.map(|share| ops(&share.headers)),
            Some(ops(&matched.route.headers)),
            Some(ops(&matched.host.headers)),
            Some(ops(&matched.table.headers)),
        ];
        if levels.iter().flatten().all(|ops| ops.is_empty()) {
            return;
        }
        let context = self.context();
        let apply = |ops: &HeaderOps| ops.apply(headers, of, &context);
        match matched.table.most_specific_wins {
            true => levels.into_iter().rev().flatten().for_each(apply),
            false => levels.into_iter().flatten().for_each(apply),
        }
    }

    /// Applies the header changes of a forwarding route to a local reply that is not the router's.
    fn change_reply(&self, reply: &mut LocalReply) {
        let Some(matched) = &self.matched else { return };
        if let RouteAction::Forward(action) = &matched.route.action {
            let (_, share) = self.destination(action);
            self.change_response_headers(matched, share, &mut reply.headers);
        }
    }

    /// The cluster that the route's action selects, and its entry if it is a weighted one.
    pub(super) fn destination<'a>(
        &self,
        action: &'a Forward,
    ) -> (Option<Arc<Slot<Cluster>>>, Option<&'a WeightedCluster>) {
        let named = |name: &str| self.downstream.worker.cluster(name);
        action.destination.choose(self.random, &self.request.headers, named)
    }

    /// The response of a route that does not forward.
    fn own_response(&mut self, matched: &Matched, mut reply: LocalReply) -> Response<ResponseBody> {
        self.stream.blame(reply.flags, reply.details.clone());
        // Before the body's own headers: a route's `content-type` replaces the default, as in Envoy.
        self.change_response_headers(matched, None, &mut reply.headers);
        self.local(reply)
    }

    /// The response as a gRPC-Web client can read it.
    async fn for_browser(&mut self, dialect: Dialect, response: Response<ResponseBody>) -> Response<ResponseBody> {
        // Boxed: the future is large and rarely needed.
        match Box::pin(grpc_web::answer(dialect, response)).await {
            Ok(response) => response,
            Err(reply) => self.local(reply),
        }
    }

    fn local(&mut self, mut reply: LocalReply) -> Response<ResponseBody> {
        // As in Envoy, whatever produced a 400, the connection closes: what follows the request on it may be misread.
        reply.closes |= reply.status == StatusCode::BAD_REQUEST;
        self.stream.blame(reply.flags, reply.details.clone());
        reply.into_response(self.grpc)
    }

    /// Runs the response filters and sets the headers of the connection manager: the last step before the codec.
    fn finish(mut self: Box<Self>, manager: &HttpManager, response: Response<ResponseBody>) -> Response<ResponseBody> {
        let (mut parts, mut body) = response.into_parts();
        for filter in manager.filters.iter().rev() {
            filter.response(&mut self, &mut parts);
        }
        self.own_headers(manager, &mut parts);
        let bodiless = matches!(parts.status, StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
        if bodiless || self.request.method == Method::HEAD {
            // The response to a HEAD request has the headers only.
            body = body.without_own();
        }
        if let (Some(tracing), Some(span)) = (&manager.tracing, &mut self.span) {
            span.answered(tracing, &mut parts.headers);
        }
        self.stream.status = parts.status.as_u16();
        self.stream.timing.downstream_first_tx = Some(self.stream.elapsed());
        // The rest of the request is not read.
        self.body = None;
        Response::from_parts(parts, body.idle(manager.limits.stream_idle).record(Recorder(self)))
    }

    fn own_headers(&self, manager: &HttpManager, parts: &mut response::Parts) {
        match manager.server_header {
            ServerHeader::Overwrite => drop(parts.headers.insert(SERVER, manager.server_name.clone())),
            ServerHeader::AppendIfAbsent => drop(parts.headers.entry(SERVER).or_insert(manager.server_name.clone())),
            ServerHeader::PassThrough => {}
        }
        if !parts.headers.contains_key(DATE) {
            parts.headers.insert(DATE, self.downstream.worker.date());
        }
        if let Some(via) = &manager.via {
            parts.headers.append(VIA, via.clone());
        }
        if parts.status == StatusCode::NO_CONTENT {
            // 204 implies it (RFC 9110 section 8.6).
            parts.headers.remove(CONTENT_LENGTH);
        }
        if manager.request_id.in_response
            && let Some(id) = &self.stream.request_id
        {
            parts.headers.insert(REQUEST_ID, id.clone());
        }
        // A tunnel occupies its connection to the end anyway.
        let tunnel = upgrade::is_tunnel(self, parts.status);
        // Nothing after an upgrade request was parsed, so a refused upgrade is the last request on its connection.
        let turned_down = upgrade::asks(self);
        // So is a request that is answered before it was completely received.
        let unread = match &self.progress {
            Some(progress) => progress.end_time().is_none(),
            None => self.body.as_ref().is_some_and(|body| !body.is_end_stream()),
        };
        let last = self.downstream.is_ending() || turned_down || unread;
        if last && !tunnel && self.stream.protocol < Some(Version::HTTP_2) {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What answers a request.
    type Answering<F> = fn(Rc<Downstream>, Request<Incoming>, Interims, Option<Rc<Meter>>) -> F;

    /// How much memory its future takes.
    fn length<F>(_: Answering<F>) -> usize {
        size_of::<F>()
    }

    /// It is copied to where it is polled, and kept by each request that waits: a future within it that is passed on by value
    /// takes its room twice. It was 6,944 bytes when two were.
    #[test]
    fn what_a_request_keeps_is_short() {
        let length = length(exchange);
        assert!(length <= 3_200, "{length} bytes");
    }
}
