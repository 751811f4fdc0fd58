//! Connection pools, private to each worker: one for each host, transport, protocol and whatever else connections
//! differ by.

mod failure;
mod host_pool;
mod http1;
mod http2;
mod raw;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Version};

use super::balance::outlier::Report;
use super::breaker::Permit;
use super::cluster::{Cluster, HttpVersion};
use super::connect::{FailureKind, SendError, Source};
use super::host::{Busy, Host};
use super::proxy_protocol::Ends;
use crate::proxy::connection::{Connection, UpstreamInfo};
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::Meter;
use crate::proxy::http::route::RouteStats;
use crate::proxy::http::route::host::without_port;
use host_pool::{Carrier, HostPool};
pub(crate) use http1::HostStream;
pub(crate) use raw::RawStream;

/// A request's target, and what the choice of a connection depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpstreamTarget<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Arc<Cluster>,
    /// The host.
    pub(crate) host: &'a Arc<Host>,
    /// The version of the downstream request.
    pub(crate) downstream: Version,
    /// ALPN protocols to offer instead of the cluster's.
    pub(crate) alpn: Option<&'a Arc<[Vec<u8>]>>,
    /// The request's authority, for SNI and `:authority`.
    pub(crate) authority: &'a str,
    /// `:scheme`.
    pub(crate) scheme: &'static str,
    /// Whether the circuit breakers of high priority apply.
    pub(crate) high_priority: bool,
    /// Whether the request is CONNECT or an upgrade, which over HTTP/1.1 needs a connection of its own.
    pub(crate) upgrade: bool,
    /// The source address, if it is to be the client's.
    pub(crate) source: Option<Source>,
    /// The downstream connection, if the request comes from one.
    pub(crate) passed_on: Option<&'a Connection>,
    /// Filled in as soon as there is a connection.
    pub(crate) carried: Option<&'a RefCell<Option<UpstreamInfo>>>,
    /// Counters of the request's route, if it has any.
    pub(crate) route: Option<&'a Arc<RouteStats>>,
    /// Counts bytes on the wire, if access logs need them.
    pub(crate) meter: Option<&'a Rc<Meter>>,
    /// Receives interim responses.
    pub(crate) interims: Option<&'a Interims>,
}

impl UpstreamTarget<'_> {
    /// Records the connection, and counts the request as sent.
    fn reached(&self, carried: impl FnOnce() -> UpstreamInfo) {
        let Some(place) = self.carried else { return };
        let first = place.replace(Some(carried())).is_none();
        if let Some(route) = self.route.filter(|_| first) {
            route.rq_total.fetch_add(1, Relaxed);
        }
    }
}

/// The connection pools of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    by_key: RefCell<HashMap<Key, BySni>>,
}

/// The properties that connections of one pool have in common. Pointers identify objects that the pool keeps alive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    cluster: usize,
    host: usize,
    transport: usize,
    alpn: usize,
    protocol: Protocol,
    source: Option<Source>,
    /// The addresses for the PROXY protocol header, if hosts get one.
    ends: Option<Rc<Ends>>,
    high_priority: bool,
}

impl Hash for Key {
    /// Hashes only what keys usually differ by.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.host ^ self.cluster.rotate_left(32)).hash(state);
        if let Some(source) = &self.source {
            source.hash(state);
        }
        if let Some(ends) = &self.ends {
            ends.hash(state);
        }
    }
}

/// The pools of a key: one, or one for each server name if SNI follows the request.
#[derive(Debug, Default)]
struct BySni {
    plain: Option<Rc<HostPool>>,
    named: HashMap<Box<str>, Rc<HostPool>>,
}

/// The HTTP version of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// Whichever ALPN negotiates.
    Either,
}

/// A request on a connection. When its response is complete, the connection returns to the pool.
#[derive(Debug)]
pub(crate) struct Lease {
    carrier: Option<Carrier>,
    active: Option<Active>,
}

/// Counts an active request.
#[derive(Debug)]
struct Active {
    cluster: Arc<Cluster>,
    route: Option<Arc<RouteStats>>,
    busy: Busy,
    _permit: Permit,
}

impl Active {
    fn begin(target: &UpstreamTarget<'_>) -> Result<Self, SendError> {
        let (cluster, host) = (target.cluster, target.host);
        let breaker = cluster.breakers.of(target.high_priority);
        let permit = breaker.enter(|breaker| &breaker.requests).ok_or_else(|| {
            cluster.stats.rq_pending_overflow.fetch_add(1, Relaxed);
            SendError::new(FailureKind::Overflow, "too many requests")
        })?;
        Ok(Self {
            cluster: cluster.clone(),
            route: target.route.cloned(),
            busy: Busy::begin(&cluster.stats, host),
            _permit: permit,
        })
    }
}

impl Lease {
    /// The response is complete: the connection may carry another request.
    pub(crate) fn finished(&mut self) {
        if let Some(Carrier::Http1(connection)) = self.carrier.take() {
            connection.give_back();
        }
        self.active = None;
    }

    /// The host ended the response early: the connection is closed.
    pub(crate) fn broken(&mut self) {
        self.carrier = None;
        if let Some(active) = self.active.take() {
            active.cluster.stats.rq_rx_reset.fetch_add(1, Relaxed);
        }
    }

    /// Records the response time, from the end of the request.
    pub(crate) fn took(&self, time: Duration) {
        if let Some(active) = &self.active {
            active.cluster.stats.external.time.record(time);
            if let Some(route) = &active.route {
                route.answers.time.record(time);
            }
        }
    }

    /// The response timed out, which counts against the host.
    pub(crate) fn timed_out(&self) {
        if let Some(active) = &self.active {
            active.cluster.stats.rq_timeout.fetch_add(1, Relaxed);
            if let Some(route) = &active.route {
                route.rq_timeout.fetch_add(1, Relaxed);
            }
            active.busy.stats().rq_timeout.fetch_add(1, Relaxed);
        }
    }

    /// Counts whether the response was a success, once that is known.
    pub(crate) fn count_success(&self, success: bool) {
        if let Some(active) = &self.active {
            active.busy.stats().count(success);
        }
    }

    /// The request failed other than by a reset from the host.
    fn failed(mut self, kind: FailureKind) {
        if kind == FailureKind::RemoteReset || kind == FailureKind::Refused {
            return self.broken();
        }
        self.carrier = None;
        self.active = None;
    }
}

impl Drop for Lease {
    /// Dropping a lease before the response is complete resets the stream. HTTP/1.1 has no streams to reset.
    fn drop(&mut self) {
        if let (Some(active), Some(Carrier::Http2(_))) = (&self.active, &self.carrier) {
            active.cluster.stats.rq_tx_reset.fetch_add(1, Relaxed);
        }
    }
}

impl Pools {
    /// Sends a request to a host and waits for the response headers. Takes the request out of `request`, as a future
    /// that owned it would be much larger.
    ///
    /// # Errors
    /// If there is no response.
    pub(crate) async fn send(
        &self,
        target: &UpstreamTarget<'_>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let pool = self.pool(target);
        loop {
            let carrier = if target.upgrade && pool.speaks_http1() {
                // Boxed: the future holds a whole handshake and is rarely needed.
                Box::pin(pool.connect_once(target.cluster)).await?
            } else {
                pool.acquire(target.cluster).await?
            };
            let active = match Active::begin(target) {
                Ok(active) => active,
                Err(overflow) => {
                    carrier.unused();
                    return Err(overflow);
                }
            };
            target.cluster.report(target.host, Report::Reached);
            let reused = carrier.is_reused();
            target.reached(|| carrier.carried());
            let mut lease = Lease {
                carrier: Some(carrier),
                active: Some(active),
            };
            // Always there: set above.
            let Some(carrier) = &mut lease.carrier else {
                return Err(SendError::new(FailureKind::Reset, ""));
            };
            let error = match carrier.send(request, target).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            // The host closed an idle connection, or takes no more streams on it.
            if reused && request.is_some() {
                lease.failed(FailureKind::Reset);
            } else {
                lease.failed(error.kind);
                return Err(error);
            }
        }
    }

    /// The same for a request of the proxy's own, which counts as internal.
    ///
    /// # Errors
    /// If there is no response.
    pub(crate) async fn send_own(
        &self,
        target: &UpstreamTarget<'_>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let began = Instant::now();
        let result = self.send(target, request).await;
        let answers = &target.cluster.stats.internal;
        match &result {
            Ok((response, _)) => answers.answered(response.status().as_u16(), began.elapsed()),
            // What a client would get.
            Err(_) => answers.count_status(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
        }
        result
    }

    /// Closes connections that have been idle too long or belong to removed hosts. Called once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        self.by_key.borrow_mut().retain(|_, by_sni| {
            by_sni
                .plain
                .iter()
                .chain(by_sni.named.values())
                .for_each(|pool| pool.sweep(now));
            by_sni.plain.take_if(|pool| pool.is_empty());
            by_sni.named.retain(|_, pool| !pool.is_empty());
            by_sni.plain.is_some() || !by_sni.named.is_empty()
        });
    }

    fn pool(&self, target: &UpstreamTarget<'_>) -> Rc<HostPool> {
        let transport = &target.host.transport;
        let tls = transport.tls.as_ref();
        let ends = transport
            .proxy_header
            .and(target.passed_on)
            .map(|one| Rc::new(Ends::of(one)));
        let protocol = protocol(target, tls.is_some());
        let alpn = target.alpn.filter(|_| tls.is_some());
        let key = Key {
            cluster: Arc::as_ptr(target.cluster).addr(),
            host: Arc::as_ptr(&target.host.state).addr(),
            transport: tls.map_or(0, |tls| Arc::as_ptr(tls).addr()),
            alpn: alpn.map_or(0, |alpn| Arc::as_ptr(alpn).addr()),
            protocol,
            source: target.source,
            ends: ends.clone(),
            high_priority: target.high_priority,
        };
        let mut by_key = self.by_key.borrow_mut();
        let by_sni = by_key.entry(key).or_default();
        if tls.is_none() || !target.cluster.config.http.auto_sni {
            let new = || Rc::new(HostPool::new(target, protocol, alpn, None, ends));
            return by_sni.plain.get_or_insert_with(new).clone();
        }
        let name = without_port(target.authority).trim_matches(['[', ']']);
        if let Some(pool) = by_sni.named.get(name) {
            return pool.clone();
        }
        let pool = Rc::new(HostPool::new(target, protocol, alpn, Some(name), ends));
        by_sni.named.insert(name.into(), pool.clone());
        pool
    }
}

fn protocol(target: &UpstreamTarget<'_>, tls: bool) -> Protocol {
    match target.cluster.config.http.version {
        HttpVersion::Http2 => Protocol::Http2,
        HttpVersion::Downstream if target.downstream == Version::HTTP_2 => Protocol::Http2,
        HttpVersion::Alpn if tls && !target.upgrade => Protocol::Either,
        HttpVersion::Http1 | HttpVersion::Alpn | HttpVersion::Downstream => Protocol::Http1,
    }
}
