//! Sending a request on to a host, and its answer back.

mod failure;
mod prepared;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use super::body::incoming::Incoming;
use super::body::{BodyLimits, RequestBody, ResponseBody};
use super::deadlines::{Deadlines, Overdue, Watch, timed_out};
use super::exchange::Exchange;
use super::interim::Interims;
use super::local_reply::LocalReply;
use super::retry::Retries;
use super::route::{Forward, Matched, WeightedCluster};
use super::{conditioning, hash, mirror, rewrite, upgrade};
use crate::proxy::flags::Flags;
use crate::proxy::trace::span::Failure;
use crate::proxy::turn;
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::balance::outlier::Report;
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::connect::FailureKind;
use crate::proxy::upstream::host::Host;
use crate::proxy::upstream::pool::{Lease, Pools, Towards};
use crate::proxy::upstream::proxy_protocol::Ends;
use failure::{failed, reset_reason};
pub(super) use prepared::Prepared;

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Sends a request on.
///
/// # Errors
/// What to answer where no host did.
pub(super) async fn forward(
    exchange: &mut Exchange,
    matched: &Matched,
    action: &Forward,
) -> Result<Response<ResponseBody>, LocalReply> {
    let (slot, share) = exchange.destination(action);
    let Some(cluster) = slot.and_then(|slot| slot.take()) else {
        exchange.downstream.manager.stats.no_cluster.fetch_add(1, Relaxed);
        let details = "cluster_not_found";
        let mut reply = LocalReply::new(action.cluster_not_found, "", Flags::NO_CLUSTER, details);
        change_response(exchange, matched, share, &mut reply.headers);
        return Err(reply);
    };
    exchange.stream.cluster = Some(cluster.clone());
    let deadline = Deadlines::new(exchange, action);
    let mut sending = Sending {
        hash: hash::hash(exchange, action, cluster.config.policy),
        body: Prepared::new(exchange, matched, action),
        deadline,
        matched,
        action,
        share,
        cluster,
    };
    sending.change_request(exchange);
    mirror::send(exchange, action, &sending.body);
    let response = sending.run(exchange).await;
    sending.body.progress.note(&mut exchange.stream);
    response
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer of the host.
    Answer(Response<Incoming>, Lease),
    /// None, and what to say of it.
    Failed(FailureKind, LocalReply),
    /// There was no host to try.
    NoHost(LocalReply),
}

/// A request that is being sent on.
struct Sending<'a> {
    matched: &'a Matched,
    action: &'a Forward,
    share: Option<&'a WeightedCluster>,
    cluster: Arc<Cluster>,
    hash: Option<u64>,
    body: Prepared,
    deadline: Deadlines,
}

impl Sending<'_> {
    fn change_request(&self, exchange: &mut Exchange) {
        rewrite::path(exchange, self.matched, self.action);
        rewrite::authority(exchange, self.action, self.share, None);
        exchange.change_request_headers(self.matched, self.share);
    }

    /// Tells the host how long an attempt may take: as long as one may, or as is left of the whole.
    fn expect(&self, exchange: &mut Exchange, per_try: Option<Duration>) {
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

    /// Tries until there is an answer to give, or no time left.
    async fn run(&mut self, exchange: &mut Exchange) -> Result<Response<ResponseBody>, LocalReply> {
        let limited = self.deadline.response.is_some() || self.deadline.stream.is_some();
        let watched = self.deadline.idle.is_some() || self.deadline.request.is_some();
        if self.body.is_empty() && !limited && !watched {
            return self.attempts(exchange).await;
        }
        let downstream = exchange.downstream.clone();
        let mut watch = Watch::new(self.body.progress.clone(), self.deadline, downstream.timer.take());
        let watched = {
            let mut attempts = pin!(self.attempts(exchange));
            poll_fn(|cx| match attempts.as_mut().poll(cx) {
                Poll::Ready(Err(reply)) => Poll::Ready(Ok(Err(watch.refusal().unwrap_or(reply)))),
                Poll::Ready(answer) => Poll::Ready(Ok(answer)),
                Poll::Pending => watch.poll(cx).map(Err),
            })
            .await
        };
        downstream.timer.replace(watch.into_timer());
        match watched {
            Ok(result) => result,
            Err(Overdue::Client(reply)) => Err(reply),
            Err(Overdue::Stream(mut reply)) => {
                downstream.manager.stats.rq_max_duration.fetch_add(1, Relaxed);
                exchange.trace_attempt_over(Failure::Canceled);
                exchange.stream.blame(reply.flags, reply.details.clone());
                change_response(exchange, self.matched, self.share, &mut reply.headers);
                Err(reply)
            }
            Err(Overdue::Host) => {
                self.cluster.stats.rq_timeout.fetch_add(1, Relaxed);
                if let Some(host) = &exchange.stream.host {
                    host.state.stats.rq_timeout.fetch_add(1, Relaxed);
                    self.cluster.report(host, Report::Timeout);
                }
                exchange.trace_attempt_over(Failure::Canceled);
                Err(self.own_reply(exchange, timed_out("response_timeout")))
            }
        }
    }

    async fn attempts(&mut self, exchange: &mut Exchange) -> Result<Response<ResponseBody>, LocalReply> {
        let mut retries = Retries::new(exchange, self.action.retry.clone());
        loop {
            let outcome = self.attempt(exchange, &mut retries).await;
            if exchange.interims.as_ref().and_then(Interims::heard).is_some() {
                retries.forgo();
            }
            match retries.next(
                &self.cluster,
                &outcome,
                self.body.is_repeatable(),
                self.action.high_priority,
            ) {
                Some(pause) => {
                    if let Outcome::Answer(response, _) = &outcome {
                        self.cluster.stats.rq_retried.count(response.status().as_u16());
                    }
                    drop(outcome);
                    exchange.trace_attempt_over(Failure::Canceled);
                    tokio::time::sleep(pause).await;
                }
                None => return self.concluded(exchange, &retries, outcome),
            }
        }
    }

    async fn attempt(&mut self, exchange: &mut Exchange, retries: &mut Retries) -> Outcome {
        let choice = Choice {
            hash: self.hash,
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
        self.expect(exchange, retries.per_try_timeout());
        // A body that is gone is not sent again: see `is_repeatable`.
        let body = self.body.next().unwrap_or(RequestBody::Empty);
        let last = !retries.is_possible();
        let mut request = Some(self.request(exchange, body, last));
        let outcome = self.send(exchange, retries, &host, &mut request).await;
        // Whoever was not reached has taken nothing of it.
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
        let worker = exchange.downstream.worker.clone();
        let alpn = exchange.upstream_alpn.clone();
        let towards = Towards {
            cluster: &self.cluster,
            host,
            downstream: exchange.request.version,
            alpn: alpn.as_ref(),
            authority: &exchange.authority,
            scheme: exchange.scheme,
            high_priority: self.action.high_priority,
            upgrade: upgrade::asks(exchange),
            source: exchange.downstream.connection.source,
            passed_on: Some(&exchange.downstream.connection),
            carried: Some(&exchange.stream.carried),
            meter: exchange.stream.upstream_bytes.as_ref(),
            interims: exchange.interims.as_ref(),
        };
        exchange.stream.carried.take();
        let (stats, counted, began) = (&self.cluster.stats, &host.state.stats, turn::now());
        let raw = self
            .action
            .connect
            .filter(|connect| connect.concerns(&exchange.request.method));
        let sent = async {
            match raw {
                None => worker.pools.send(&towards, request).await,
                // Rarely needed, and long: it holds a whole handshake.
                Some(connect) => {
                    let ends = Ends::of(&exchange.downstream.connection);
                    let first = connect.proxy_header.map(|header| header.of(Some(&ends)));
                    Box::pin(Pools::send_raw(&towards, &first.unwrap_or_default(), request)).await
                }
            }
        };
        let result = match retries.per_try_timeout() {
            None => sent.await,
            Some(timeout) => match tokio::time::timeout(timeout, sent).await {
                Ok(result) => result,
                Err(_) => {
                    stats.rq_per_try_timeout.fetch_add(1, Relaxed);
                    counted.rq_error.fetch_add(1, Relaxed);
                    self.cluster.report(host, Report::Timeout);
                    exchange.trace_attempt_over(Failure::Canceled);
                    return Outcome::Failed(FailureKind::PerTryTimeout, timed_out("upstream_per_try_timeout"));
                }
            },
        };
        match result {
            Ok((response, lease)) => {
                exchange.stream.timing.upstream_first_rx = Some(exchange.stream.elapsed());
                if let Some(span) = &mut exchange.span {
                    span.attempt_answered(&response);
                }
                self.cluster.report(host, Report::Status(response.status()));
                exchange.stream.answered_after = turn::now() - began;
                let outcome = match response.status().is_server_error() {
                    true => &counted.rq_error,
                    false => &counted.rq_success,
                };
                outcome.fetch_add(1, Relaxed);
                Outcome::Answer(response, lease)
            }
            // The client's body broke off, for which the host is not to blame. The client's connection sees to the rest.
            Err(_) if self.body.progress.is_broken() => std::future::pending().await,
            Err(error) => {
                self.cluster.report(host, Report::Failure(error.kind));
                counted.rq_error.fetch_add(1, Relaxed);
                exchange.stream.transport_failure = error.transport().map(Into::into);
                if error.kind == FailureKind::Overflow {
                    // As in Envoy, a host that nothing was sent to is not told.
                    exchange.stream.host = None;
                }
                let (flags, reason) = reset_reason(error.kind);
                exchange.trace_attempt_over(Failure::Reset(flags, reason));
                Outcome::Failed(error.kind, failed(&error, exchange))
            }
        }
    }

    /// The request as the host gets it: origin form, and the host in `Host`.
    fn request(&self, exchange: &mut Exchange, body: RequestBody, last: bool) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = exchange.request.method.clone();
        let headers = &mut exchange.request.headers;
        if self.matched.host.attempt_count {
            headers.insert(ATTEMPT_COUNT, number(exchange.stream.attempts.into()));
        }
        // Without a further attempt, and nobody who asks for them afterwards, they need not be copied.
        let kept = exchange.downstream.manager.keeps_request_headers || self.tells_of_request();
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

    /// Whether the headers of the answer are made of those of the request.
    fn tells_of_request(&self) -> bool {
        let Matched { route, host, table } = self.matched;
        let share = self.share.map(|share| &share.headers);
        let levels = [share, Some(&route.headers), Some(&host.headers), Some(&table.headers)];
        levels.into_iter().flatten().any(|level| level.response.of_request)
    }

    /// The last attempt's outcome as the client gets it.
    fn concluded(
        &mut self,
        exchange: &mut Exchange,
        retries: &Retries,
        outcome: Outcome,
    ) -> Result<Response<ResponseBody>, LocalReply> {
        if retries.is_exhausted() {
            exchange.stream.flags.set(Flags::RETRY_LIMIT_EXCEEDED);
        }
        let (response, lease) = match outcome {
            Outcome::Answer(response, lease) => {
                let took = exchange.stream.answered_after;
                self.cluster.stats.external.answered(response.status().as_u16(), took);
                (response, lease)
            }
            Outcome::NoHost(reply) => return Err(self.own_reply(exchange, reply)),
            Outcome::Failed(_, mut reply) => {
                self.body.take_what_came();
                reply.flags.set(exchange.stream.flags);
                return Err(self.own_reply(exchange, reply));
            }
        };
        exchange.stream.details = Some("via_upstream".into());
        exchange.stream.status = response.status().as_u16();
        let (mut parts, body) = response.into_parts();
        // The version is the host's. The client has its own.
        parts.version = Version::HTTP_11;
        self.change_answer(exchange, &mut parts.headers);
        if upgrade::is_tunnel(exchange, parts.status) {
            upgrade::opened(exchange, &mut parts);
        } else if upgrade::is_failed_handshake(exchange, parts.status) {
            return Err(upgrade::failed(parts));
        }
        let deadline = self
            .deadline
            .response
            .and_then(|timeout| Some(self.body.progress.end_time()? + timeout));
        let limits = BodyLimits {
            deadline,
            stream: self.deadline.stream,
            idle: self.deadline.idle,
        };
        Ok(Response::from_parts(
            parts,
            ResponseBody::host(body, lease, limits, self.body.progress.clone()),
        ))
    }

    /// What is answered instead of a host, which counts as an answer of the cluster, and has the headers of one.
    fn own_reply(&self, exchange: &mut Exchange, mut reply: LocalReply) -> LocalReply {
        exchange.stream.blame(reply.flags, reply.details.clone());
        self.cluster.stats.external.count_status(reply.status.as_u16());
        change_response(exchange, self.matched, self.share, &mut reply.headers);
        reply
    }

    fn change_answer(&self, exchange: &mut Exchange, headers: &mut HeaderMap) {
        conditioning::remove_one_hop(headers);
        conditioning::join_lists(headers, &conditioning::LISTS_OF_ANSWERS);
        let milliseconds = exchange.stream.elapsed().as_millis();
        // It counts from the end of the request, if that has come.
        if self.body.progress.end_time().is_some() && !exchange.downstream.manager.suppress_envoy_headers {
            headers.insert(SERVICE_TIME, number(u64::try_from(milliseconds).unwrap_or(u64::MAX)));
        }
        change_response(exchange, self.matched, self.share, headers);
    }
}

/// A number as a header's value. Most have one digit, and nothing is allocated for those.
fn number(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let digit = usize::try_from(number).ok().and_then(|number| DIGITS.get(number));
    digit.map_or_else(|| HeaderValue::from(number), |digit| HeaderValue::from_static(digit))
}

/// Changes to a response's headers that its route wants, whoever makes it.
fn change_response(exchange: &Exchange, matched: &Matched, share: Option<&WeightedCluster>, headers: &mut HeaderMap) {
    if matched.host.attempt_count_in_response && exchange.stream.attempts > 0 {
        headers.insert(ATTEMPT_COUNT, number(exchange.stream.attempts.into()));
    }
    exchange.change_response_headers(matched, share, headers);
}
