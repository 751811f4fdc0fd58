//! One request and its response.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{DATE, HOST, SERVER};
use http::{HeaderMap, Request, Response, StatusCode, request};
use hyper::body::Incoming;

use super::ServerHeader;
use super::body::ResponseBody;
use super::connection::Downstream;
use super::local_reply::LocalReply;
use super::route::{self, Matched, RouteAction};
use super::{HttpStats, forward};
use crate::proxy::connection::Stream;
use crate::proxy::flags::Flags;
use crate::proxy::format::{Context, RequestLine};

/// A request on its way through the filters.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The connection it came on.
    pub(crate) downstream: Rc<Downstream>,
    /// The request without its body, as filters have changed it.
    pub(crate) request: request::Parts,
    /// The body; gone once it is sent.
    pub(crate) body: Option<Incoming>,
    /// `:authority`.
    pub(crate) authority: Box<str>,
    /// `:scheme`.
    pub(crate) scheme: &'static str,
    /// The route it takes.
    pub(crate) matched: Option<Matched>,
    /// What is known of it.
    pub(crate) stream: Stream,
    /// Whether it speaks gRPC.
    pub(crate) grpc: bool,
    /// A number that decides what chance decides.
    pub(crate) random: u64,
}

/// Answers a request.
pub(crate) async fn exchange(downstream: Rc<Downstream>, request: Request<Incoming>) -> Response<ResponseBody> {
    let stats = downstream.manager.stats.clone();
    stats.rq_total.fetch_add(1, Relaxed);
    stats.rq_active.fetch_add(1, Relaxed);
    let mut exchange = Exchange::new(downstream, request);
    let response = match exchange.answer().await {
        Ok(response) => response,
        Err(reply) => exchange.local(reply),
    };
    exchange.finish(response)
}

impl Exchange {
    fn new(downstream: Rc<Downstream>, request: Request<Incoming>) -> Self {
        let (request, body) = request.into_parts();
        let authority = match (request.uri.authority(), request.headers.get(HOST)) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().unwrap_or_default(),
            (None, None) => "",
        };
        Self {
            authority: authority.into(),
            scheme: if downstream.connection.tls.is_some() {
                "https"
            } else {
                "http"
            },
            stream: Stream::new(Some(request.version)),
            grpc: route::is_grpc(&request.headers),
            random: fastrand::u64(..),
            body: Some(body),
            matched: None,
            request,
            downstream,
        }
    }

    async fn answer(&mut self) -> Result<Response<ResponseBody>, LocalReply> {
        self.matched = self.find_route();
        let manager = self.downstream.manager.clone();
        for filter in &manager.filters {
            if let Some(reply) = filter.request(self).await {
                return Err(reply);
            }
        }
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
        self.stream.virtual_host = matched.host.name.clone();
        match &matched.route.action {
            RouteAction::Forward(action) => forward::forward(self, &matched, action).await,
            RouteAction::Direct(direct) => Err(LocalReply::new(
                direct.status,
                direct.body.clone(),
                Flags::default(),
                "direct_response",
            )),
            RouteAction::Redirect(_) => Err(LocalReply::new(
                StatusCode::NOT_IMPLEMENTED,
                "",
                Flags::default(),
                "direct_response",
            )),
        }
    }

    /// The route for the request as it is now.
    pub(crate) fn find_route(&self) -> Option<Matched> {
        let table = self.downstream.manager.routes.get();
        table.as_ref()?.find(&route::Request {
            method: &self.request.method,
            uri: &self.request.uri,
            scheme: self.scheme,
            host: &self.authority,
            headers: &self.request.headers,
            random: self.random,
        })
    }

    /// What format strings draw on.
    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            connection: &self.downstream.connection,
            stream: &self.stream,
            request: Some(RequestLine {
                method: &self.request.method,
                path: self.request.uri.path_and_query().map_or("/", |path| path.as_str()),
                authority: &self.authority,
                scheme: self.scheme,
            }),
            request_headers: Some(&self.request.headers),
            response_headers: None,
            response_trailers: None,
        }
    }

    fn local(&mut self, reply: LocalReply) -> Response<ResponseBody> {
        self.stream.blame(reply.flags, reply.details.clone());
        reply.into_response(self.grpc)
    }

    /// The last that is done to a response.
    fn finish(mut self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        let (mut parts, body) = response.into_parts();
        let manager = self.downstream.manager.clone();
        for filter in manager.filters.iter().rev() {
            filter.response(&mut self, &mut parts);
        }
        self.stream.status = parts.status.as_u16();
        match manager.server_header {
            ServerHeader::Overwrite => drop(parts.headers.insert(SERVER, manager.server_name.clone())),
            ServerHeader::AppendIfAbsent => drop(parts.headers.entry(SERVER).or_insert(manager.server_name.clone())),
            ServerHeader::PassThrough => {}
        }
        if !parts.headers.contains_key(DATE) {
            parts.headers.insert(DATE, self.downstream.worker.date());
        }
        let recorder = Box::new(Recorder {
            downstream: self.downstream,
            stream: self.stream,
        });
        Response::from_parts(parts, body.record(recorder))
    }
}

/// Takes down how a request ends: statistics and access logs.
#[derive(Debug)]
pub(crate) struct Recorder {
    downstream: Rc<Downstream>,
    stream: Stream,
}

impl Recorder {
    /// Bytes of the body went by.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.stream.bytes_sent += bytes as u64;
    }

    /// The response is complete.
    pub(crate) fn ended(self, _trailers: Option<&HeaderMap>) {
        self.close();
    }

    /// The host broke off.
    pub(crate) fn broken(mut self, _error: &hyper::Error) {
        self.stream.flags.set(Flags::UPSTREAM_CONNECTION_TERMINATION);
        self.close();
    }

    /// The client went away.
    pub(crate) fn abandoned(mut self) {
        self.stream.flags.set(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
        self.close();
    }

    fn close(mut self) {
        self.stream.timing.end = Some(self.stream.start.elapsed());
        let stats: &HttpStats = &self.downstream.manager.stats;
        stats.rq_active.fetch_sub(1, Relaxed);
        if let Some(class) = stats
            .rq_class
            .get(usize::from(self.stream.status / 100).wrapping_sub(1))
        {
            class.fetch_add(1, Relaxed);
        }
    }
}
