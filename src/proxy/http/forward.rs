//! The router (`envoy.filters.http.router`): chooses a cluster and a host, sends the request, retries, and returns the
//! response.

mod failure;
mod prepared;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;

use super::body::incoming::Incoming;
use super::body::{BodyLimits, RequestBody, ResponseBody};
use super::deadlines::{self, Deadlines, WaitEnded, Watch, timed_out};
use super::exchange::Exchange;
use super::interim::Interims;
use super::local_reply::LocalReply;
use super::retry::Retries;
use super::route::{Forward, Matched, WeightedCluster};
use super::{conditioning, grpc, hash, mirror, rewrite, upgrade};
use crate::proxy::flags::Flags;
use crate::proxy::trace::span::Failure;
use crate::proxy::turn;
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::balance::outlier::Report;
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::connect::{FailureKind, SendError};
use crate::proxy::upstream::health_check::http::IMMEDIATE_FAILURE;
use crate::proxy::upstream::host::Host;
use crate::proxy::upstream::pool::{Lease, Pools, UpstreamTarget};
use crate::proxy::upstream::proxy_protocol::Ends;
use failure::{failed, reset_reason};
pub(super) use prepared::UpstreamBody;

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Forwards a request to the cluster of its route.
///
/// # Errors
/// The local reply where no host responded.
pub(super) async fn forward(
    exchange: &mut Exchange,
    matched: &Matched,
    action: &Forward,
) -> Result<Response<ResponseBody>, LocalReply> {
    let (slot, share) = exchange.destination(action);
    let Some(cluster) = slot.and_then(|slot| slot.load_full()) else {
        exchange.downstream.manager.stats.no_cluster.fetch_add(1, Relaxed);
        let details = "cluster_not_found";
        let mut reply = LocalReply::new(action.cluster_not_found, "", Flags::NO_CLUSTER, details);
        change_response(exchange, matched, share, &mut reply.headers);
        return Err(reply);
    };
    exchange.stream.cluster = Some(cluster.clone());
    let deadline = Deadlines::new(exchange, Some(&action.timeouts));
    deadline.set_grpc_timeout(exchange, &action.timeouts);
    let mut upstream_request = UpstreamRequest {
        key: hash::key(exchange, action, cluster.config.policy),
        body: UpstreamBody::new(exchange, matched, action),
        deadline,
        matched,
        action,
        share,
        cluster,
        in_attempt: false,
    };
    upstream_request.change_request(exchange);
    mirror::send(exchange, action, &upstream_request.body);
    let response = upstream_request.run(exchange).await;
    upstream_request.body.progress.note(&mut exchange.stream);
    response
}

/// How an attempt ended.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are answers, for which a box would be one more allocation"
)]
pub(super) enum Outcome {
    /// With a response.
    Answer(Response<Incoming>, Lease),
    /// With a failure, and the local reply for it.
    Failed(FailureKind, LocalReply),
    /// Without a host to send to.
    NoHost(LocalReply),
}

/// A request that is being forwarded: its state over all attempts.
struct UpstreamRequest<'a> {
    matched: &'a Matched,
    action: &'a Forward,
    share: Option<&'a WeightedCluster>,
    cluster: Arc<Cluster>,
    key: hash::Key,
    body: UpstreamBody,
    deadline: Deadlines,
    /// Whether an attempt is under way, as opposed to the back-off between two.
    in_attempt: bool,
}

impl UpstreamRequest<'_> {
    fn change_request(&self, exchange: &mut Exchange) {
        rewrite::path(exchange, self.matched, self.action);
        rewrite::authority(exchange, self.action, self.share, None);
        rewrite::restore_port(exchange);
        exchange.change_request_headers(self.matched, self.share);
    }

    /// Sets `x-envoy-expected-rq-timeout-ms`: the attempt's timeout, or what is left of the route's.
    fn set_expected_timeout(&self, exchange: &mut Exchange, per_try: Option<Duration>) {
        if exchange.downstream.manager.suppress_envoy_headers {
            return;
        }
        let least = Duration::from_millis(1);
        let begun = self.body.progress.end_time();
        let left = self.deadline.response.map(|whole| match begun {
            Some(begun) if exchange.stream.attempts > 1 => whole.saturating_sub(begun.elapsed()).max(least),
            Some(_) | None => whole,
        });
        let Some(timeout) = left.into_iter().chain(per_try).min() else {
            return;
        };
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let headers = &mut exchange.request.headers;
        headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(milliseconds));
    }

    /// Runs attempts until there is a response to return or a timeout is reached.
    async fn run(&mut self, exchange: &mut Exchange) -> Result<Response<ResponseBody>, LocalReply> {
        let limited = self.deadline.response.is_some() || self.deadline.stream.is_some();
        let watched = self.deadline.idle.is_some() || self.deadline.request.is_some();
        if self.body.is_empty() && !limited && !watched {
            return self.attempts(exchange).await;
        }
        let downstream = exchange.downstream.clone();
        let mut watch = Watch::new(self.body.progress.clone(), self.deadline, downstream.timer.take());
        let waited = watch.wait(pin!(self.attempts(exchange))).await;
        let refusal = watch.refusal();
        downstream.timer.replace(watch.into_timer());
        match waited {
            Ok(answer) => answer.map_err(|reply| refusal.unwrap_or(reply)),
            Err(WaitEnded::Host) => Err(self.response_timed_out(exchange)),
            Err(overdue @ WaitEnded::Client(_)) => Err(overdue.reply(&downstream.manager)),
            Err(overdue @ WaitEnded::Stream(_)) => {
                let mut reply = overdue.reply(&downstream.manager);
                exchange.trace_attempt_over(Failure::Canceled);
                exchange.stream.blame(reply.flags, reply.details.clone());
                change_response(exchange, self.matched, self.share, &mut reply.headers);
                Err(reply)
            }
        }
    }

    /// The route's `timeout` is reached. It counts against a host only if the request has reached one.
    fn response_timed_out(&self, exchange: &mut Exchange) -> LocalReply {
        let mut reply = timed_out("response_timeout");
        if !self.in_attempt {
            exchange.stream.blame(reply.flags, reply.details.clone());
            change_response(exchange, self.matched, self.share, &mut reply.headers);
            return reply;
        }
        self.cluster.stats.rq_timeout.fetch_add(1, Relaxed);
        self.matched.route.count(|route| &route.rq_timeout);
        let reached = exchange.stream.carried.borrow().is_some();
        if let Some(host) = exchange.stream.host.as_ref().filter(|_| reached) {
            self.count_timeout(host);
        }
        exchange.trace_attempt_over(Failure::Canceled);
        self.local_reply(exchange, reply)
    }

    /// Counts a timeout against a host.
    fn count_timeout(&self, host: &Host) {
        host.state.stats.rq_timeout.fetch_add(1, Relaxed);
        host.state.stats.count(false);
        self.cluster.report(host, Report::Timeout);
    }

    async fn attempts(&mut self, exchange: &mut Exchange) -> Result<Response<ResponseBody>, LocalReply> {
        let mut retries = Retries::new(exchange, self.action.retry.clone());
        loop {
            self.in_attempt = true;
            let outcome = self.attempt(exchange, &mut retries).await;
            self.in_attempt = false;
            if exchange.interims.as_ref().and_then(Interims::heard).is_some() {
                retries.forgo();
            }
            match retries.next(
                &self.cluster,
                &self.matched.route,
                &outcome,
                self.body.is_repeatable(),
                self.action.high_priority,
            ) {
                Some(pause) => {
                    if let Outcome::Answer(response, lease) = outcome {
                        self.cluster.stats.rq_retried.count(response.status().as_u16());
                        self.discard(exchange, &response, lease);
                    }
                    exchange.trace_attempt_over(Failure::Canceled);
                    tokio::time::sleep(pause).await;
                    self.cluster.stats.rq_retry.fetch_add(1, Relaxed);
                    self.matched.route.count(|route| &route.rq_retry);
                }
                None => return self.complete(exchange, &retries, outcome),
            }
        }
    }

    /// Drops a response that is retried. Its stream is reset only if the response or the request is not complete.
    fn discard(&self, exchange: &Exchange, answer: &Response<Incoming>, mut lease: Lease) {
        if let Some(host) = &exchange.stream.host {
            host.state.stats.count(false);
        }
        if answer.body().is_end_stream() && self.body.progress.end_time().is_some() {
            lease.finished();
        }
    }

    async fn attempt(&mut self, exchange: &mut Exchange, retries: &mut Retries) -> Outcome {
        let choice = Choice {
            hash: self.key.hash,
            avoid: retries.avoided(),
            passed: retries.passed(),
            destination: exchange.downstream.connection.local.socket(),
        };
        exchange.stream.attempts += 1;
        let Some(host) = self.cluster.choose(&choice) else {
            self.cluster.stats.cx_none_healthy.fetch_add(1, Relaxed);
            let flags = Flags::NO_HEALTHY_UPSTREAM;
            let (text, details) = ("no healthy upstream", "no_healthy_upstream");
            return Outcome::NoHost(LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, text, flags, details));
        };
        exchange.stream.host = Some(host.clone());
        retries.tried(&host);
        rewrite::authority(exchange, self.action, self.share, Some(&host));
        exchange.trace_attempt(&self.cluster, &host);
        self.set_expected_timeout(exchange, self.per_try_timeout(retries));
        // A body that cannot be sent again is not retried: see `is_repeatable`.
        let body = self.body.next().unwrap_or(RequestBody::Empty);
        let last = !retries.is_possible();
        let mut request = Some(self.request(exchange, body, last));
        let outcome = self.send(exchange, retries, &host, &mut request).await;
        // A request that reached no host still has its body.
        if let Some(RequestBody::Client(body, _)) = request.map(Request::into_body) {
            self.body.give_back(body);
        }
        outcome
    }

    async fn send(
        &self,
        exchange: &mut Exchange,
        retries: &Retries,
        host: &Arc<Host>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Outcome {
        exchange.stream.carried.take();
        let limit = self.per_try_timeout(retries);
        let Some(result) = self.send_within(limit, exchange, host, request).await else {
            return self.per_try_timed_out(exchange, host);
        };
        match result {
            Ok((response, lease)) => self.answered(exchange, host, response, lease),
            // The client's body ended early, which is not the host's fault. The downstream connection's task drops this
            // future.
            Err(_) if self.body.progress.is_broken() => std::future::pending().await,
            Err(error) => self.reset(exchange, host, &error),
        }
    }

    /// Sends one attempt's request to a host, by HTTP or over a terminated CONNECT, and waits for the response headers.
    /// `None`: `limit`, the attempt's timeout, is reached.
    async fn send_within(
        &self,
        limit: Option<Duration>,
        exchange: &Exchange,
        host: &Arc<Host>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Option<Result<(Response<Incoming>, Lease), SendError>> {
        let target = UpstreamTarget {
            cluster: &self.cluster,
            host,
            downstream: exchange.request.version,
            alpn: exchange.upstream_alpn.as_ref(),
            authority: &exchange.authority,
            scheme: exchange.scheme,
            high_priority: self.action.high_priority,
            upgrade: upgrade::asks(exchange),
            source: exchange.downstream.connection.source,
            passed_on: Some(&exchange.downstream.connection),
            carried: Some(&exchange.stream.carried),
            route: self.matched.route.stats.as_ref(),
            meter: exchange.stream.upstream_bytes.as_ref(),
            interims: exchange.interims.as_ref(),
        };
        let connect = self.action.connect;
        let connect = connect.filter(|connect| connect.concerns(&exchange.request.method));
        let mut sent = pin!(async {
            match connect {
                None => exchange.downstream.worker.pools.send(&target, request).await,
                // Boxed: the future holds a whole handshake and is rarely needed.
                Some(connect) => {
                    let ends = Ends::of(&exchange.downstream.connection);
                    let first = connect.proxy_header.map(|header| header.of(Some(&ends)));
                    Box::pin(Pools::send_raw(&target, &first.unwrap_or_default(), request)).await
                }
            }
        });
        match limit {
            None => Some(sent.await),
            Some(limit) => {
                let reached = || exchange.stream.carried.borrow().is_some();
                deadlines::per_try(limit, &self.body.progress, reached, sent.as_mut()).await
            }
        }
    }

    /// An attempt has brought a response.
    fn answered(&self, exchange: &mut Exchange, host: &Host, response: Response<Incoming>, lease: Lease) -> Outcome {
        exchange.stream.timing.upstream_first_rx = Some(exchange.stream.elapsed());
        if let Some(span) = &mut exchange.span {
            span.attempt_answered(&response);
        }
        self.cluster
            .report(host, Report::Status(outlier_status(&response, exchange)));
        if host.checked.is_some() && response.headers().contains_key(IMMEDIATE_FAILURE) {
            self.cluster.fails_at_once(host);
        }
        Outcome::Answer(response, lease)
    }

    /// An attempt has reached `per_try_timeout`.
    fn per_try_timed_out(&self, exchange: &mut Exchange, host: &Host) -> Outcome {
        self.cluster.stats.rq_per_try_timeout.fetch_add(1, Relaxed);
        self.count_timeout(host);
        exchange.trace_attempt_over(Failure::Canceled);
        Outcome::Failed(FailureKind::PerTryTimeout, timed_out("upstream_per_try_timeout"))
    }

    /// An attempt's upstream stream was reset, or never came about.
    fn reset(&self, exchange: &mut Exchange, host: &Host, error: &SendError) -> Outcome {
        self.cluster.report(host, Report::Failure(error.kind));
        host.state.stats.count(false);
        exchange.stream.transport_failure = error.transport().map(Into::into);
        if error.kind == FailureKind::Overflow {
            // As in Envoy, access logs name no host if nothing was sent to it.
            exchange.stream.host = None;
        }
        let (flags, reason) = reset_reason(error.kind);
        exchange.trace_attempt_over(Failure::Reset(flags, reason));
        Outcome::Failed(error.kind, failed(error, exchange))
    }

    /// The attempt's timeout. As in Envoy, one that is not less than the route's is ignored.
    fn per_try_timeout(&self, retries: &Retries) -> Option<Duration> {
        let whole = self.deadline.response;
        retries
            .per_try_timeout()
            .filter(|limit| whole.is_none_or(|whole| *limit < whole))
    }

    /// The upstream request, with its target in origin form and the authority in `host`.
    fn request(&self, exchange: &mut Exchange, body: RequestBody, last: bool) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = exchange.request.method.clone();
        let headers = &mut exchange.request.headers;
        if self.matched.host.attempt_count {
            headers.insert(ATTEMPT_COUNT, number(exchange.stream.attempts.into()));
        }
        // Headers are copied only if another attempt, an access log or a response header may need them.
        let kept = exchange.downstream.manager.keeps_request_headers || self.response_refers_to_request();
        *request.headers_mut() = match last && !kept {
            true => std::mem::take(headers),
            false => headers.clone(),
        };
        let authority = &*exchange.authority;
        if request.headers().get(HOST).is_none_or(|host| host != authority)
            && let Ok(host) = HeaderValue::from_str(authority)
        {
            request.headers_mut().insert(HOST, host);
        }
        if exchange.upgrade.is_some() {
            request
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        *request.uri_mut() = if exchange.request.method == Method::CONNECT {
            exchange.authority.parse().unwrap_or_default()
        } else {
            let path = exchange.request.uri.path_and_query().cloned();
            Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
        };
        request
    }

    /// Whether response headers refer to request headers.
    fn response_refers_to_request(&self) -> bool {
        let Matched { route, host, table } = self.matched;
        let share = self.share.map(|share| &share.headers);
        let levels = [share, Some(&route.headers), Some(&host.headers), Some(&table.headers)];
        levels.into_iter().flatten().any(|level| level.response.of_request)
    }

    /// Turns the last attempt's outcome into the response to the client.
    fn complete(
        &mut self,
        exchange: &mut Exchange,
        retries: &Retries,
        outcome: Outcome,
    ) -> Result<Response<ResponseBody>, LocalReply> {
        exchange.stream.flags.set(retries.held_back());
        let (response, lease) = match outcome {
            Outcome::Answer(response, lease) => {
                self.count_answer(response.status());
                (response, lease)
            }
            Outcome::NoHost(reply) => return Err(self.local_reply(exchange, reply)),
            Outcome::Failed(_, mut reply) => {
                self.body.drain_received();
                reply.flags.set(exchange.stream.flags);
                return Err(self.local_reply(exchange, reply));
            }
        };
        let success = is_success(&response, exchange);
        if let (Some(success), Some(host)) = (success, &exchange.stream.host) {
            host.state.stats.count(success);
        }
        exchange.stream.details = Some("via_upstream".into());
        exchange.stream.status = response.status().as_u16();
        let (mut parts, body) = response.into_parts();
        // The codec sets the version of the downstream connection.
        parts.version = Version::HTTP_11;
        self.change_answer(exchange, &mut parts.headers);
        // As in Envoy, each attempt adds its cookies.
        for _ in 0..exchange.stream.attempts {
            for cookie in &self.key.cookies {
                parts.headers.append(SET_COOKIE, cookie.clone());
            }
        }
        if upgrade::is_tunnel(exchange, parts.status) {
            upgrade::opened(exchange, &mut parts);
        } else if upgrade::is_failed_handshake(exchange, parts.status) {
            return Err(upgrade::failed(parts));
        }
        let limits = BodyLimits {
            response: self.deadline.response,
            stream: self.deadline.stream,
            idle: self.deadline.idle,
        };
        let mut body = ResponseBody::host(body, lease, limits, self.body.progress.clone());
        if success.is_none() {
            body.tells_success();
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Makes a local reply count as a response of the cluster, with the route's header changes.
    fn local_reply(&self, exchange: &mut Exchange, mut reply: LocalReply) -> LocalReply {
        exchange.stream.blame(reply.flags, reply.details.clone());
        self.count_answer(reply.status);
        change_response(exchange, self.matched, self.share, &mut reply.headers);
        reply
    }

    /// Counts the status for the cluster, and for a route with a `stat_prefix`.
    fn count_answer(&self, status: StatusCode) {
        let status = status.as_u16();
        self.cluster.stats.external.count_status(status);
        if let Some(route) = &self.matched.route.stats {
            route.answers.count_status(status);
        }
    }

    fn change_answer(&self, exchange: &mut Exchange, headers: &mut HeaderMap) {
        conditioning::remove_one_hop(headers);
        conditioning::join_lists(headers, &conditioning::LISTS_OF_ANSWERS);
        // `x-envoy-upstream-service-time` counts from the end of the request, so there is none before it.
        if let Some(end) = self.body.progress.end_time()
            && !exchange.downstream.manager.suppress_envoy_headers
        {
            let milliseconds = turn::now().saturating_duration_since(end).as_millis();
            headers.insert(SERVICE_TIME, number(u64::try_from(milliseconds).unwrap_or(u64::MAX)));
        }
        change_response(exchange, self.matched, self.share, headers);
    }
}

/// The status that outlier detection sees: for gRPC that of `grpc-status`, if it is in the headers.
fn outlier_status(answer: &Response<Incoming>, exchange: &Exchange) -> StatusCode {
    let grpc = Some(answer.headers()).filter(|_| exchange.speaks_grpc());
    grpc.and_then(grpc::status_in).unwrap_or(answer.status())
}

/// Whether a response is a success; `None` if gRPC trailers will say.
fn is_success(answer: &Response<Incoming>, exchange: &Exchange) -> Option<bool> {
    if answer.status().is_server_error() || !exchange.speaks_grpc() {
        return Some(!answer.status().is_server_error());
    }
    let said = grpc::status_in(answer.headers());
    let succeeded = said.is_some_and(|status| !status.is_server_error());
    answer.body().is_end_stream().then_some(succeeded)
}

/// A number as a header value. Single digits, the most frequent, allocate nothing.
fn number(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let digit = usize::try_from(number).ok().and_then(|number| DIGITS.get(number));
    digit.map_or_else(|| HeaderValue::from(number), |digit| HeaderValue::from_static(digit))
}

/// Changes to the response headers by the route, for upstream responses and local replies alike.
fn change_response(exchange: &Exchange, matched: &Matched, share: Option<&WeightedCluster>, headers: &mut HeaderMap) {
    if matched.host.attempt_count_in_response && exchange.stream.attempts > 0 {
        headers.insert(ATTEMPT_COUNT, number(exchange.stream.attempts.into()));
    }
    exchange.change_response_headers(matched, share, headers);
}
