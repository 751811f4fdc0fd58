//! New connections to hosts.

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
use super::cluster::{Cluster, ClusterStats};
use super::host::{Host, HostAddress, HostState};
use super::proxy_protocol::Ends;
use crate::proxy::connection::{self, Near};
use crate::proxy::io::Io;
use crate::proxy::io::metered::{ByteStats, Counts};
use crate::proxy::tls::Wish;

/// Why a request did not get an answer.
#[derive(Clone, Debug)]
pub(crate) struct SendError {
    /// Which sort of failure.
    pub(crate) kind: FailureKind,
    /// In words, for logs.
    pub(crate) reason: Box<str>,
}

/// A sort of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No connection.
    Connect,
    /// Not even a socket for one.
    NoSocket,
    /// No connection in time.
    ConnectTimeout,
    /// A circuit breaker is open.
    Overflow,
    /// The connection broke before the answer.
    Reset,
    /// The host reset the stream.
    RemoteReset,
    /// The host did not take the stream (HTTP/2 `REFUSED_STREAM`).
    Refused,
    /// The attempt took too long.
    PerTryTimeout,
    /// The answer is no HTTP.
    Protocol,
}

impl SendError {
    /// What went wrong with a connection (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`), if it was that. It is for logs: clients
    /// are not to learn whom the proxy trusts.
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

    /// A failure with its reason.
    pub(crate) fn new(kind: FailureKind, reason: impl ToString) -> Self {
        Self {
            kind,
            reason: reason.to_string().into(),
        }
    }
}

/// A connection to a host.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The connection.
    pub(crate) io: Io,
    /// Our own end of it.
    pub(crate) near: Near,
    /// The protocol that TLS negotiated.
    pub(crate) alpn: Option<Vec<u8>>,
}

/// A connection to a host that counts against limits.
#[derive(Debug)]
pub(crate) struct Link {
    /// The connection.
    pub(crate) io: Io,
    /// Our own end of it.
    pub(crate) near: Near,
    /// The protocol that TLS negotiated.
    pub(crate) alpn: Option<Vec<u8>>,
    /// Counts it, until this is dropped.
    pub(crate) open: Open,
}

/// Counts a connection that is open or being made.
#[derive(Debug)]
pub(crate) struct Open {
    stats: Arc<ClusterStats>,
    since: Instant,
    host: Arc<HostState>,
    /// Whether it is the host that has closed it, or refused it.
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

/// The client's address as the one that a connection to a host comes from (`original_src`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    /// The address.
    pub(crate) address: IpAddr,
    /// `SO_MARK`, by which answers are routed back to us; 0: none.
    pub(crate) mark: u32,
}

/// For whom a connection to a host is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MadeFor<'a> {
    /// The client's address, if the connection is to come from it.
    pub(crate) source: Option<Source>,
    /// The connection that is passed on; none: the proxy's own wish.
    pub(crate) ends: Option<&'a Ends>,
}

/// Connects within the cluster's limits and time, TLS included.
///
/// # Errors
/// When there is no connection.
pub(crate) async fn connect(
    cluster: &Cluster,
    host: &Host,
    wish: Wish<'_>,
    made_for: MadeFor<'_>,
) -> Result<Link, SendError> {
    let breaker = cluster.breakers.of(false);
    let Some(permit) = breaker.enter(|breaker| &breaker.connections) else {
        cluster.stats.cx_overflow.fetch_add(1, Relaxed);
        return Err(SendError::new(FailureKind::Overflow, "too many connections"));
    };
    connect_with(cluster, host, wish, made_for, permit).await
}

/// Connects within the cluster's time. The limits have been looked at.
pub(crate) async fn connect_with(
    cluster: &Cluster,
    host: &Host,
    wish: Wish<'_>,
    made_for: MadeFor<'_>,
    permit: Permit,
) -> Result<Link, SendError> {
    let mut open = Open::new(cluster, host, permit);
    let stats = &cluster.stats;
    let made = tokio::time::timeout(cluster.config.connect_timeout, establish(cluster, host, wish, made_for));
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

/// Whether it is for want of file descriptors that there is no connection.
fn is_our_own(error: &io::Error) -> bool {
    let wanting = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| wanting.contains(&number))
}

/// Why there is no connection, in Envoy's words where it is the system that says so.
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

async fn establish(cluster: &Cluster, host: &Host, wish: Wish<'_>, made_for: MadeFor<'_>) -> io::Result<Connected> {
    let id = connection::next_id();
    let (mut io, local) = match &host.address {
        HostAddress::Unix(path) => (Io::Unix(UnixStream::connect(path).await?), None),
        HostAddress::Ip(address) => {
            let stream = tcp(cluster, *address, made_for.source).await?;
            let local = stream.local_addr().ok();
            (Io::Tcp(stream), local)
        }
    };
    if let Some(header) = host.transport.proxy_header {
        io.write_all(&header.of(made_for.ends)).await?;
    }
    let near = Near { id, local, tls: None };
    match &host.transport.tls {
        None => Ok(Connected { io, near, alpn: None }),
        Some(tls) => tls.connect(io, near, host, wish, &cluster.stats.ssl).await,
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

/// The system's settings for keep-alive probes.
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
    /// A socket with the client's address, which takes the right to administer the network.
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
