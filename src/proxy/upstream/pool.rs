//! Connection pools: one for each host, protocol and transport, on every worker by itself.

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
use crate::proxy::connection::{Carried, Connection};
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::body::incoming::Incoming;
use crate::proxy::http::interim::Interims;
use crate::proxy::http::meter::Meter;
use crate::proxy::http::route::RouteStats;
use host_pool::{Carrier, HostPool};
pub(crate) use http1::HostStream;
pub(crate) use raw::RawStream;

/// Where a request goes, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Towards<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Arc<Cluster>,
    /// The host.
    pub(crate) host: &'a Arc<Host>,
    /// The version the client speaks.
    pub(crate) downstream: Version,
    /// Protocols to offer instead of the cluster's.
    pub(crate) alpn: Option<&'a Arc<[Vec<u8>]>>,
    /// The request's host, for SNI and `:authority`.
    pub(crate) authority: &'a str,
    /// `:scheme`.
    pub(crate) scheme: &'static str,
    /// Which limits count.
    pub(crate) high_priority: bool,
    /// The request is CONNECT or a handshake for another protocol. By HTTP/1.1 it needs a connection of its own.
    pub(crate) upgrade: bool,
    /// Where the connection is to come from.
    pub(crate) source: Option<Source>,
    /// The client's connection, if it is one that is passed on.
    pub(crate) passed_on: Option<&'a Connection>,
    /// Where the connection is noted as soon as there is one.
    pub(crate) carried: Option<&'a RefCell<Option<Carried>>>,
    /// What the request's route counts, if it does.
    pub(crate) route: Option<&'a Arc<RouteStats>>,
    /// Where bytes on the wire are counted, if they are asked for.
    pub(crate) meter: Option<&'a Rc<Meter>>,
    /// Who hears interim answers.
    pub(crate) interims: Option<&'a Interims>,
}

impl Towards<'_> {
    /// There is a connection: it is noted, and that there is one is counted once.
    fn reached(&self, carried: impl FnOnce() -> Carried) {
        let Some(place) = self.carried else { return };
        let first = place.replace(Some(carried())).is_none();
        if let Some(route) = self.route.filter(|_| first) {
            route.rq_total.fetch_add(1, Relaxed);
        }
    }
}

/// The pools of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    by_key: RefCell<HashMap<Key, BySni>>,
}

/// What connections have in common that can stand in for each other. The addresses are those of objects that the
/// pool keeps alive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    cluster: usize,
    host: usize,
    transport: usize,
    alpn: usize,
    protocol: Protocol,
    source: Option<Source>,
    /// Whose connection it is passed on for, where hosts are told.
    ends: Option<Rc<Ends>>,
    high_priority: bool,
}

impl Hash for Key {
    /// What keys differ by as a rule.
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

/// The pools of a key: one, or one by server name where that follows the request.
#[derive(Debug, Default)]
struct BySni {
    plain: Option<Rc<HostPool>>,
    named: HashMap<Box<str>, Rc<HostPool>>,
}

/// How connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// Whatever TLS negotiates.
    Either,
}

/// A request that a connection carries, until its answer is complete; then the connection goes back to its pool.
#[derive(Debug)]
pub(crate) struct Lease {
    carrier: Option<Carrier>,
    active: Option<Active>,
}

/// Counts a request that is under way.
#[derive(Debug)]
struct Active {
    cluster: Arc<Cluster>,
    route: Option<Arc<RouteStats>>,
    busy: Busy,
    _permit: Permit,
}

impl Active {
    fn begin(towards: &Towards<'_>) -> Result<Self, SendError> {
        let (cluster, host) = (towards.cluster, towards.host);
        let breaker = cluster.breakers.of(towards.high_priority);
        let permit = breaker.enter(|breaker| &breaker.requests).ok_or_else(|| {
            cluster.stats.rq_pending_overflow.fetch_add(1, Relaxed);
            SendError::new(FailureKind::Overflow, "too many requests")
        })?;
        Ok(Self {
            cluster: cluster.clone(),
            route: towards.route.cloned(),
            busy: Busy::begin(&cluster.stats, host),
            _permit: permit,
        })
    }
}

impl Lease {
    /// The answer is complete: the connection may carry another request.
    pub(crate) fn finished(&mut self) {
        if let Some(Carrier::Http1(connection)) = self.carrier.take() {
            connection.give_back();
        }
        self.active = None;
    }

    /// The host broke off: the connection is of no use any more.
    pub(crate) fn broken(&mut self) {
        self.carrier = None;
        if let Some(active) = self.active.take() {
            active.cluster.stats.rq_rx_reset.fetch_add(1, Relaxed);
        }
    }

    /// The answer to a client took so long from the end of the request on.
    pub(crate) fn took(&self, time: Duration) {
        if let Some(active) = &self.active {
            active.cluster.stats.external.time.record(time);
            if let Some(route) = &active.route {
                route.answers.time.record(time);
            }
        }
    }

    /// The answer takes too long, which the host is to blame for.
    pub(crate) fn timed_out(&self) {
        if let Some(active) = &self.active {
            active.cluster.stats.rq_timeout.fetch_add(1, Relaxed);
            if let Some(route) = &active.route {
                route.rq_timeout.fetch_add(1, Relaxed);
            }
            active.busy.stats().rq_timeout.fetch_add(1, Relaxed);
        }
    }

    /// The host has turned out to be successful or not.
    pub(crate) fn judged(&self, success: bool) {
        if let Some(active) = &self.active {
            active.busy.stats().count(success);
        }
    }

    /// There is no answer, and it was not the host that reset the stream.
    fn failed(mut self, kind: FailureKind) {
        if kind == FailureKind::RemoteReset || kind == FailureKind::Refused {
            return self.broken();
        }
        self.carrier = None;
        self.active = None;
    }
}

impl Drop for Lease {
    /// Whoever gives up a request before its answer is complete resets it. HTTP/1.1 has no streams to reset.
    fn drop(&mut self) {
        if let (Some(active), Some(Carrier::Http2(_))) = (&self.active, &self.carrier) {
            active.cluster.stats.rq_tx_reset.fetch_add(1, Relaxed);
        }
    }
}

impl Pools {
    /// Sends a request to a host and waits for the headers of its answer. The request is taken from where it is: a future
    /// that held it would be so much longer.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) async fn send(
        &self,
        towards: &Towards<'_>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let pool = self.pool(towards);
        loop {
            let carrier = if towards.upgrade && pool.speaks_http1() {
                // Rarely needed, and long: it holds a whole handshake.
                Box::pin(pool.connect_once(towards.cluster)).await?
            } else {
                pool.acquire(towards.cluster).await?
            };
            let active = match Active::begin(towards) {
                Ok(active) => active,
                Err(overflow) => {
                    carrier.unused();
                    return Err(overflow);
                }
            };
            towards.cluster.report(towards.host, Report::Reached);
            let reused = carrier.is_reused();
            towards.reached(|| carrier.carried());
            let mut lease = Lease {
                carrier: Some(carrier),
                active: Some(active),
            };
            // It is in its place: it was put there.
            let Some(carrier) = &mut lease.carrier else {
                return Err(SendError::new(FailureKind::Reset, ""));
            };
            let error = match carrier.send(request, towards).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            // The host closed a connection that it did not use, or takes no further streams on it.
            if reused && request.is_some() {
                lease.failed(FailureKind::Reset);
            } else {
                lease.failed(error.kind);
                return Err(error);
            }
        }
    }

    /// The same for a request of the proxy's own, whose answer is counted as such.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn send_own(
        &self,
        towards: &Towards<'_>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let began = Instant::now();
        let result = self.send(towards, request).await;
        let answers = &towards.cluster.stats.internal;
        match &result {
            Ok((response, _)) => answers.answered(response.status().as_u16(), began.elapsed()),
            // What a client would be told.
            Err(_) => answers.count_status(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
        }
        result
    }

    /// Closes what has been idle for too long or belongs to hosts that are gone. Called once a second.
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

    fn pool(&self, towards: &Towards<'_>) -> Rc<HostPool> {
        let transport = &towards.host.transport;
        let tls = transport.tls.as_ref();
        let ends = transport
            .proxy_header
            .and(towards.passed_on)
            .map(|one| Rc::new(Ends::of(one)));
        let protocol = protocol(towards, tls.is_some());
        let alpn = towards.alpn.filter(|_| tls.is_some());
        let key = Key {
            cluster: Arc::as_ptr(towards.cluster).addr(),
            host: Arc::as_ptr(&towards.host.state).addr(),
            transport: tls.map_or(0, |tls| Arc::as_ptr(tls).addr()),
            alpn: alpn.map_or(0, |alpn| Arc::as_ptr(alpn).addr()),
            protocol,
            source: towards.source,
            ends: ends.clone(),
            high_priority: towards.high_priority,
        };
        let mut by_key = self.by_key.borrow_mut();
        let by_sni = by_key.entry(key).or_default();
        if tls.is_none() || !towards.cluster.config.http.auto_sni {
            let new = || Rc::new(HostPool::new(towards, protocol, alpn, None, ends));
            return by_sni.plain.get_or_insert_with(new).clone();
        }
        let name = host_of(towards.authority);
        if let Some(pool) = by_sni.named.get(name) {
            return pool.clone();
        }
        let pool = Rc::new(HostPool::new(towards, protocol, alpn, Some(name), ends));
        by_sni.named.insert(name.into(), pool.clone());
        pool
    }
}

fn protocol(towards: &Towards<'_>, tls: bool) -> Protocol {
    match towards.cluster.config.http.version {
        HttpVersion::Http2 => Protocol::Http2,
        HttpVersion::Downstream if towards.downstream == Version::HTTP_2 => Protocol::Http2,
        HttpVersion::Alpn if tls && !towards.upgrade => Protocol::Either,
        HttpVersion::Http1 | HttpVersion::Alpn | HttpVersion::Downstream => Protocol::Http1,
    }
}

/// An authority without its port and brackets.
fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    host.trim_matches(['[', ']'])
}
