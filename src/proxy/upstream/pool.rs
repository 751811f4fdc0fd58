//! Connection pools: one for each host, protocol and transport, on every worker by itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::breaker::Permit;
use super::cluster::{Cluster, HttpVersion, Transport};
use super::connect::{self, Connected, FailureKind, SendError, Source};
use super::host::{Host, HostState};
use crate::proxy::http::body::RequestBody;
use crate::proxy::http::connection::LocalExecutor;
use crate::proxy::tls::{Offer, Wish};

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
    /// The request's host, for SNI.
    pub(crate) authority: &'a str,
    /// Which limits count.
    pub(crate) high_priority: bool,
    /// The connection will go over to another protocol: it has to be HTTP/1.1.
    pub(crate) upgrade: bool,
    /// Where the connection has to come from.
    pub(crate) source: Option<Source>,
}

/// The pools of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    hosts: RefCell<HashMap<Key, Rc<HostPool>>>,
}

/// What connections have in common that can stand in for each other. The addresses are those of objects that the
/// pool keeps alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    host: usize,
    transport: usize,
    protocol: Protocol,
    sni: Option<Rc<str>>,
    source: Option<Source>,
}

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Protocol {
    Http1,
    Http2,
}

/// The connections to a host that are not lent out.
#[derive(Debug)]
struct HostPool {
    state: Arc<HostState>,
    transport: Transport,
    sni: Option<Rc<str>>,
    source: Option<Source>,
    idle: RefCell<Vec<Http1>>,
    shared: RefCell<Vec<Http2>>,
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
    _permit: Permit,
}

/// An HTTP/2 connection.
#[derive(Clone, Debug)]
struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    _permit: Rc<Permit>,
}

/// A connection that carries a request; it goes back to its pool when the answer is complete.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<HostPool>,
    http1: Option<Http1>,
}

impl Lease {
    /// The answer is complete: the connection may carry another request.
    pub(crate) fn finished(&mut self) {
        if let Some(mut connection) = self.http1.take() {
            if !connection.sender.is_closed() && !self.pool.state.removed.load(Relaxed) {
                connection.since = Instant::now();
                self.pool.idle.borrow_mut().push(connection);
            }
        }
    }
}

impl Pools {
    /// Sends a request to a host and waits for the headers of its answer.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) async fn send(
        &self,
        towards: &Towards<'_>,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let (cluster, host) = (towards.cluster, towards.host);
        let protocol = match cluster.config.http.version {
            _ if towards.upgrade => Protocol::Http1,
            HttpVersion::Http1 | HttpVersion::Alpn => Protocol::Http1,
            HttpVersion::Http2 => Protocol::Http2,
            HttpVersion::Downstream if towards.downstream == Version::HTTP_2 => Protocol::Http2,
            HttpVersion::Downstream => Protocol::Http1,
        };
        let sni = auto_sni(cluster, host, &request);
        let pool = self.pool(host, protocol, sni, towards.source);
        match protocol {
            Protocol::Http1 => send_http1(pool, cluster, host, request).await,
            Protocol::Http2 => send_http2(pool, cluster, host, request).await,
        }
    }

    fn pool(&self, host: &Arc<Host>, protocol: Protocol, sni: Option<Rc<str>>, source: Option<Source>) -> Rc<HostPool> {
        let transport = match &host.transport {
            Transport::Plaintext => 0,
            Transport::Tls(tls) => Arc::as_ptr(tls).addr(),
        };
        let key = Key {
            host: Arc::as_ptr(&host.state).addr(),
            transport,
            protocol,
            sni: sni.clone(),
            source,
        };
        let new = || {
            Rc::new(HostPool {
                state: host.state.clone(),
                transport: host.transport.clone(),
                sni,
                source,
                idle: RefCell::default(),
                shared: RefCell::default(),
            })
        };
        self.hosts.borrow_mut().entry(key).or_insert_with(new).clone()
    }
}

/// The server name of a request, where the cluster takes it from there: its host, less the port.
fn auto_sni(cluster: &Cluster, host: &Host, request: &Request<RequestBody>) -> Option<Rc<str>> {
    if !cluster.config.http.auto_sni || matches!(host.transport, Transport::Plaintext) {
        return None;
    }
    let name = match request.uri().authority() {
        Some(authority) => Rc::from(authority.host().trim_matches(['[', ']'])),
        None => {
            let host = request.headers().get(http::header::HOST)?.to_str().ok()?;
            let authority: http::uri::Authority = host.parse().ok()?;
            Rc::from(authority.host().trim_matches(['[', ']']))
        }
    };
    Some(name)
}

async fn send_http1(
    pool: Rc<HostPool>,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    loop {
        let idle = pool.idle.borrow_mut().pop();
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect_http1(cluster, host, &pool).await?,
        };
        if connection.sender.ready().await.is_err() {
            if reused {
                continue;
            }
            return Err(SendError::new(FailureKind::Reset, "connection closed"));
        }
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let lease = Lease {
                    pool,
                    http1: Some(connection),
                };
                return Ok((response, lease));
            }
            Err(mut error) => match error.take_message() {
                // It was not sent: the host closed a connection that it did not use.
                Some(unsent) if reused => request = unsent,
                Some(_) | None => return Err(broken(&error.into_error())),
            },
        }
    }
}

async fn connect_http1(cluster: &Arc<Cluster>, host: &Arc<Host>, pool: &HostPool) -> Result<Http1, SendError> {
    let permit = connection_permit(cluster)?;
    let Connected { io, .. } = connect::connect(
        cluster,
        host,
        Wish {
            sni: pool.sni.as_deref(),
            offer: Offer::Http1,
        },
        pool.source,
    )
    .await?;
    cluster.stats.cx_http1_total.fetch_add(1, Relaxed);
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| broken(&error))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a host's connection broke");
        }
    });
    Ok(Http1 {
        sender,
        since: Instant::now(),
        _permit: permit,
    })
}

async fn send_http2(
    pool: Rc<HostPool>,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    pool.shared
        .borrow_mut()
        .retain(|connection| !connection.sender.is_closed());
    let shared = pool.shared.borrow().last().cloned();
    let mut connection = match shared {
        Some(connection) => connection,
        None => {
            let connection = connect_http2(cluster, host, &pool).await?;
            pool.shared.borrow_mut().push(connection.clone());
            connection
        }
    };
    match connection.sender.send_request(request).await {
        Ok(response) => Ok((response, Lease { pool, http1: None })),
        Err(error) => Err(broken(&error)),
    }
}

async fn connect_http2(cluster: &Arc<Cluster>, host: &Arc<Host>, pool: &HostPool) -> Result<Http2, SendError> {
    let permit = connection_permit(cluster)?;
    let Connected { io, .. } = connect::connect(
        cluster,
        host,
        Wish {
            sni: pool.sni.as_deref(),
            offer: Offer::Http2,
        },
        pool.source,
    )
    .await?;
    cluster.stats.cx_http2_total.fetch_add(1, Relaxed);
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new());
    if let Some((interval, timeout)) = cluster.config.http.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    let (sender, connection) = builder
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| broken(&error))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a host's connection broke");
        }
    });
    Ok(Http2 {
        sender,
        _permit: Rc::new(permit),
    })
}

fn connection_permit(cluster: &Cluster) -> Result<Permit, SendError> {
    let permit = cluster.breakers.of(false).enter(|breaker| &breaker.connections);
    permit.ok_or_else(|| {
        cluster.stats.cx_overflow.fetch_add(1, Relaxed);
        SendError::new(FailureKind::Overflow, "too many connections")
    })
}

fn broken(error: &hyper::Error) -> SendError {
    let kind = if error.is_parse() {
        FailureKind::Protocol
    } else {
        FailureKind::Reset
    };
    SendError::new(kind, error)
}
