//! Connecting to hosts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::breaker::Permit;
use super::cluster::{Cluster, ClusterStats, Transport};
use super::host::{Host, HostAddress, HostState};
use super::proxy_protocol::Ends;
use crate::proxy::connection::{self, LocalEnd};
use crate::proxy::io::Io;
use crate::proxy::io::metered::{ByteStats, Counts};
use crate::proxy::tls::TlsOverrides;

/// Why a request got no response.
#[derive(Clone, Debug)]
pub(crate) struct SendError {
    /// The kind of failure.
    pub(crate) kind: FailureKind,
    /// Details, for logs.
    pub(crate) reason: Box<str>,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Connecting failed.
    Connect,
    /// No socket could be created.
    NoSocket,
    /// `connect_timeout` was reached.
    ConnectTimeout,
    /// A circuit breaker was full.
    Overflow,
    /// The connection closed before the response.
    Reset,
    /// The host reset the stream.
    RemoteReset,
    /// The host refused the stream (HTTP/2 `REFUSED_STREAM`).
    Refused,
    /// `per_try_timeout` was reached.
    PerTryTimeout,
    /// The response violates the protocol.
    Protocol,
}

impl SendError {
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, if the connection failed. For logs only: clients should not learn whom
    /// the proxy trusts.
    pub(crate) fn transport(&self) -> Option<&str> {
        match self.kind {
            FailureKind::Connect => Some(&self.reason),
            FailureKind::NoSocket => Some("socket creation failure"),
            FailureKind::ConnectTimeout
            | FailureKind::Overflow
            | FailureKind::Reset
            | FailureKind::RemoteReset
            | FailureKind::Refused
            | FailureKind::PerTryTimeout
            | FailureKind::Protocol => None,
        }
    }

    /// A failure of this kind.
    pub(crate) fn new(kind: FailureKind, reason: impl ToString) -> Self {
        Self {
            kind,
            reason: reason.to_string().into(),
        }
    }
}

/// An established connection.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The connection.
    pub(crate) io: Io,
    /// Our end of it.
    pub(crate) near: LocalEnd,
    /// The ALPN protocol that was negotiated.
    pub(crate) alpn: Option<Vec<u8>>,
}

/// A connection that counts against the circuit breakers.
#[derive(Debug)]
pub(crate) struct Link {
    /// The connection.
    pub(crate) io: Io,
    /// Our end of it.
    pub(crate) near: LocalEnd,
    /// The ALPN protocol that was negotiated.
    pub(crate) alpn: Option<Vec<u8>>,
    /// Counts it until dropped.
    pub(crate) open: Open,
}

/// Counts a connection, from the start of connecting, until dropped.
#[derive(Debug)]
pub(crate) struct Open {
    stats: Arc<ClusterStats>,
    since: Instant,
    host: Arc<HostState>,
    /// Whether the host closed or refused it.
    by_host: bool,
    _permit: Permit,
}

impl Open {
    fn new(cluster: &Cluster, host: &Host, permit: Permit) -> Self {
        cluster.stats.cx_total.fetch_add(1, Relaxed);
        host.state.stats.cx_total.fetch_add(1, Relaxed);
        host.state.connections.fetch_add(1, Relaxed);
        Self {
            stats: cluster.stats.clone(),
            since: Instant::now(),
            host: host.state.clone(),
            by_host: false,
            _permit: permit,
        }
    }
}

impl Counts for Open {
    fn bytes(&self) -> &ByteStats {
        &self.stats.bytes
    }

    fn closed(&mut self, by_peer: bool) {
        self.by_host = by_peer;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.host.connections.fetch_sub(1, Relaxed);
        self.stats.cx_destroy.count(self.by_host);
        self.stats.cx_length.record(self.since.elapsed());
    }
}

/// The client's address as source address of upstream connections (`original_src`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    /// The address.
    pub(crate) address: IpAddr,
    /// `SO_MARK`, by which replies are routed back to us; 0: none.
    pub(crate) mark: u32,
}

/// What a connection is made for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MadeFor<'a> {
    /// The source address, if it is to be the client's.
    pub(crate) source: Option<Source>,
    /// The downstream connection's addresses, for the PROXY protocol; `None` if it is for the proxy itself.
    pub(crate) ends: Option<&'a Ends>,
}

/// Connects under the circuit breakers and `connect_timeout`, TLS included.
///
/// # Errors
/// If that fails.
pub(crate) async fn connect(
    cluster: &Cluster,
    host: &Host,
    overrides: TlsOverrides<'_>,
    made_for: MadeFor<'_>,
) -> Result<Link, SendError> {
    let breaker = cluster.breakers.of(false);
    let Some(permit) = breaker.enter(|breaker| &breaker.connections) else {
        cluster.stats.cx_overflow.fetch_add(1, Relaxed);
        return Err(SendError::new(FailureKind::Overflow, "too many connections"));
    };
    connect_with(cluster, host, overrides, made_for, permit).await
}

/// Connects under `connect_timeout`; circuit breakers have been checked.
pub(crate) async fn connect_with(
    cluster: &Cluster,
    host: &Host,
    overrides: TlsOverrides<'_>,
    made_for: MadeFor<'_>,
    permit: Permit,
) -> Result<Link, SendError> {
    let mut open = Open::new(cluster, host, permit);
    let stats = &cluster.stats;
    let to = To {
        host,
        address: &host.address,
        transport: &host.transport,
    };
    let made = tokio::time::timeout(
        cluster.config.connect_timeout,
        establish(cluster, to, overrides, made_for),
    );
    let error = match made.await {
        Ok(Ok(Connected { io, near, alpn })) => {
            stats.cx_connect_time.record(open.since.elapsed());
            return Ok(Link { io, near, alpn, open });
        }
        Ok(Err(error)) if is_our_own(&error) => SendError::new(FailureKind::NoSocket, error),
        Ok(Err(error)) => {
            open.closed(true);
            SendError::new(FailureKind::Connect, reason(&error))
        }
        Err(_) => {
            stats.cx_connect_timeout.fetch_add(1, Relaxed);
            SendError::new(FailureKind::ConnectTimeout, "connection timeout")
        }
    };
    stats.cx_connect_fail.fetch_add(1, Relaxed);
    host.state.stats.cx_connect_fail.fetch_add(1, Relaxed);
    Err(error)
}

/// Whether it failed because file descriptors have run out.
fn is_our_own(error: &io::Error) -> bool {
    let wanting = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| wanting.contains(&number))
}

/// The reason, in Envoy's words for system errors.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => {
            let text = text.trim_end_matches(&format!(" (os error {number})"));
            format!("delayed connect error: {text}")
        }
        None => text,
    }
}

/// Where a connection leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct To<'a> {
    /// The host.
    pub(super) host: &'a Host,
    /// The address, which of health checks may be another than the host's.
    pub(super) address: &'a HostAddress,
    /// The transport socket.
    pub(super) transport: &'a Transport,
}

/// Connects, whatever circuit breakers and `connect_timeout` say; counts nothing but TLS handshakes.
///
/// # Errors
/// If that fails.
pub(super) async fn establish(
    cluster: &Cluster,
    to: To<'_>,
    overrides: TlsOverrides<'_>,
    made_for: MadeFor<'_>,
) -> io::Result<Connected> {
    let id = connection::next_id();
    let (mut io, local) = match to.address {
        HostAddress::Unix(path) => (Io::Unix(UnixStream::connect(path).await?), None),
        HostAddress::Ip(address) => {
            let stream = tcp(cluster, *address, made_for.source).await?;
            let local = stream.local_addr().ok();
            (Io::Tcp(stream), local)
        }
    };
    if let Some(header) = to.transport.proxy_header {
        io.write_all(&header.of(made_for.ends)).await?;
    }
    let near = LocalEnd { id, local, tls: None };
    match &to.transport.tls {
        None => Ok(Connected { io, near, alpn: None }),
        Some(tls) => tls.connect(io, near, to.host, overrides, &cluster.stats.ssl).await,
    }
}

async fn tcp(cluster: &Cluster, address: SocketAddr, client: Option<Source>) -> io::Result<TcpStream> {
    let client = client.filter(|client| client.address.is_ipv4() == address.is_ipv4());
    let source = cluster
        .config
        .source
        .iter()
        .find(|source| source.is_ipv4() == address.is_ipv4());
    let stream = match (client, source) {
        (Some(client), _) => client.socket()?.connect(address).await?,
        (None, Some(source)) => socket(*source)?.connect(address).await?,
        (None, None) => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    if let Some(keepalive) = cluster.config.tcp_keepalive {
        SockRef::from(&stream).set_tcp_keepalive(&self::keepalive(keepalive))?;
    }
    Ok(stream)
}

/// As socket options.
pub(crate) fn keepalive(wanted: super::cluster::TcpKeepalive) -> TcpKeepalive {
    let mut settings = TcpKeepalive::new();
    if let Some(time) = wanted.time {
        settings = settings.with_time(time);
    }
    if let Some(interval) = wanted.interval {
        settings = settings.with_interval(interval);
    }
    if let Some(probes) = wanted.probes {
        settings = settings.with_retries(probes);
    }
    settings
}

impl Source {
    /// A socket with the client's address, which requires `CAP_NET_ADMIN`.
    fn socket(self) -> io::Result<TcpSocket> {
        let address = SocketAddr::new(self.address, 0);
        let socket = unbound(address)?;
        if self.address.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else {
            socket.set_ip_transparent_v6(true)?;
        }
        if self.mark != 0 {
            socket.set_mark(self.mark)?;
        }
        bound(socket, address)
    }
}

fn socket(source: SocketAddr) -> io::Result<TcpSocket> {
    bound(unbound(source)?, source)
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )
}

fn bound(socket: Socket, source: SocketAddr) -> io::Result<TcpSocket> {
    socket.bind(&source.into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}
