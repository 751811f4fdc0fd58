//! New connections to hosts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::cluster::{Cluster, Transport};
use super::host::{Host, HostAddress};
use crate::proxy::io::Io;
use crate::proxy::tls::Wish;

/// Why a request did not get an answer.
#[derive(Debug)]
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
    /// Whether the client is told of the reason: what went wrong with TLS, and what the system said of connecting.
    pub(crate) fn tells_transport(&self) -> bool {
        self.kind == FailureKind::Connect && !self.reason.is_empty() && self.reason.starts_with("TLS")
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
    /// Our own address on it.
    pub(crate) local: Option<SocketAddr>,
    /// The protocol that TLS negotiated.
    pub(crate) alpn: Option<Vec<u8>>,
}

/// Connects, TLS included, within the cluster's time.
///
/// # Errors
/// When there is no connection.
pub(crate) async fn connect(cluster: &Cluster, host: &Host, wish: Wish<'_>) -> Result<Connected, SendError> {
    let stats = &cluster.stats;
    host.state.stats.cx_total.fetch_add(1, Relaxed);
    stats.cx_total.fetch_add(1, Relaxed);
    let error = match tokio::time::timeout(cluster.config.connect_timeout, establish(cluster, host, wish)).await {
        Ok(Ok(connected)) => return Ok(connected),
        Ok(Err(error)) => SendError::new(FailureKind::Connect, error),
        Err(_) => {
            stats.cx_connect_timeout.fetch_add(1, Relaxed);
            SendError::new(FailureKind::ConnectTimeout, "connection timeout")
        }
    };
    stats.cx_connect_fail.fetch_add(1, Relaxed);
    host.state.stats.cx_connect_fail.fetch_add(1, Relaxed);
    Err(error)
}

async fn establish(cluster: &Cluster, host: &Host, wish: Wish<'_>) -> io::Result<Connected> {
    let (io, local) = match &host.address {
        HostAddress::Unix(path) => (Io::Unix(UnixStream::connect(path).await?), None),
        HostAddress::Ip(address) => {
            let stream = tcp(cluster, *address).await?;
            let local = stream.local_addr().ok();
            (Io::Tcp(stream), local)
        }
    };
    match &host.transport {
        Transport::Plaintext => Ok(Connected { io, local, alpn: None }),
        Transport::Tls(tls) => tls.connect(io, local, host, wish, &cluster.stats.ssl).await,
    }
}

async fn tcp(cluster: &Cluster, address: SocketAddr) -> io::Result<TcpStream> {
    let source = cluster
        .config
        .source
        .iter()
        .find(|source| source.is_ipv4() == address.is_ipv4());
    let stream = match source {
        None => TcpStream::connect(address).await?,
        Some(source) => socket(*source)?.connect(address).await?,
    };
    stream.set_nodelay(true)?;
    if let Some(keepalive) = &cluster.config.tcp_keepalive {
        let mut settings = TcpKeepalive::new();
        if let Some(time) = keepalive.time {
            settings = settings.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            settings = settings.with_interval(interval);
        }
        if let Some(probes) = keepalive.probes {
            settings = settings.with_retries(probes);
        }
        SockRef::from(&stream).set_tcp_keepalive(&settings)?;
    }
    Ok(stream)
}

fn socket(source: SocketAddr) -> io::Result<TcpSocket> {
    let socket = Socket::new(
        Domain::for_address(source),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.bind(&source.into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}
