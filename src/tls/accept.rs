//! Accepts TLS connections as a stream for tonic.
//!
//! Handshakes run concurrently, so a stalled peer does not delay others; their number and duration
//! are limited. A failed handshake is logged and the stream continues. The stream never ends and
//! yields no errors.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::Stream;
use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::handshake_failure;
use super::server::ServerTls;
use super::verify::peer_spiffe_id;
use crate::name::{SpiffeId, TrustDomain};

/// Pause after `accept` failed for lack of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// TCP keepalive: idle time before the first probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// TCP keepalive: interval between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// TCP keepalive: unanswered probes before the connection is closed.
const KEEPALIVE_PROBES: u32 = 3;

/// If the local side shuts down a connection within this time after the last data from the peer,
/// the peer has requested it (GOAWAY); a connection that timed out has been silent for longer.
const GOODBYE: Duration = Duration::from_secs(5);

/// Limits on unauthenticated peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Handshake timeout; default 10 s.
    pub timeout: Duration,
    /// Maximum number of concurrent handshakes; default 512, minimum 1. Further connections wait in
    /// the accept queue.
    pub in_flight: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            in_flight: 512,
        }
    }
}

/// The peer of a connection; an extension of every request on it.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Address of the peer.
    pub addr: SocketAddr,
    /// SPIFFE ID of its certificate, if it presented one.
    pub identity: Option<SpiffeId>,
    /// Expiry of that certificate. The connection may outlive it.
    pub cert_not_after: Option<SystemTime>,
    closed: watch::Receiver<bool>,
}

impl PeerInfo {
    /// Whether the peer is known to have closed the connection.
    pub fn has_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the connection ends; returns whether the peer closed it. False for a connection
    /// that timed out, which says nothing about the peer.
    pub async fn closes(mut self) -> bool {
        self.closed.wait_for(|closed| *closed).await.is_ok()
    }
}

/// An accepted connection after its handshake.
#[derive(Debug)]
pub struct TlsConn {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    closed: watch::Sender<bool>,
    /// Time of the last data from the peer.
    heard: Instant,
}

impl TlsConn {
    /// The peer.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for TlsConn {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// The stream of accepted connections.
#[derive(Debug)]
pub struct TlsIncoming {
    listener: TcpListener,
    server: ServerTls,
    limits: HandshakeLimits,
    handshakes: JoinSet<Option<TlsConn>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl TlsIncoming {
    /// Accepts connections from a listener, with default limits.
    pub fn new(listener: TcpListener, server: &ServerTls) -> Self {
        Self::with_limits(listener, server, HandshakeLimits::default())
    }

    /// Accepts connections from a listener.
    pub fn with_limits(listener: TcpListener, server: &ServerTls, limits: HandshakeLimits) -> Self {
        Self {
            listener,
            server: server.clone(),
            limits,
            handshakes: JoinSet::new(),
            pause: None,
        }
    }

    /// The next completed handshake; `Pending`, without registering a waker if no handshake is
    /// running.
    fn poll_handshakes(&mut self, cx: &mut Context<'_>) -> Poll<TlsConn> {
        loop {
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(connection),
                Poll::Ready(Some(Ok(None))) => {}
                Poll::Ready(Some(Err(error))) => tracing::error!(%error, "a TLS handshake task failed"),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Accepts a connection and starts its handshake.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        match ready!(self.listener.poll_accept(cx)) {
            Ok((tcp, addr)) => {
                let handshake = handshake(tcp, addr, self.server.clone(), self.limits.timeout);
                self.handshakes.spawn(handshake);
            }
            Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "connection aborted"),
            Err(error) => {
                tracing::warn!(%error, "failed to accept connections; retrying");
                self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
            }
        }
        Poll::Ready(())
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsConn>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(connection) = this.poll_handshakes(cx) {
                return Poll::Ready(Some(Ok(connection)));
            }
            if this.handshakes.len() >= this.limits.in_flight.max(1) {
                return Poll::Pending;
            }
            ready!(this.poll_accept(cx));
        }
    }
}

/// Errors of `accept` that concern a single connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn handshake(tcp: TcpStream, addr: SocketAddr, server: ServerTls, limit: Duration) -> Option<TlsConn> {
    if let Err(error) = prepare(&tcp) {
        tracing::debug!(%addr, %error, "cannot set socket options");
    }
    let accept = TlsAcceptor::from(server.config().clone()).accept(tcp);
    match tokio::time::timeout(limit, accept).await {
        Ok(Ok(stream)) => identified(stream, addr, server.trust_domain()),
        Ok(Err(error)) => {
            tracing::debug!(%addr, error = handshake_failure(&error), "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%addr, "TLS handshake timed out");
            None
        }
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
    Ok(())
}

/// The verifier has already rejected certificates that are not a workload's, so an error here is a
/// bug; the connection is dropped in any case.
fn identified(stream: TlsStream<TcpStream>, addr: SocketAddr, trust_domain: &TrustDomain) -> Option<TlsConn> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    match peer_spiffe_id(certificates, trust_domain) {
        Ok(identity) => {
            let cert_not_after = certificates.first().and_then(not_after);
            let (closed, is_closed) = watch::channel(false);
            let peer = PeerInfo {
                addr,
                identity,
                cert_not_after,
                closed: is_closed,
            };
            Some(TlsConn {
                stream,
                peer,
                closed,
                heard: Instant::now(),
            })
        }
        Err(error) => {
            tracing::error!(%addr, %error, "a verified client has no SPIFFE identity");
            None
        }
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, x509) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(x509.validity().not_after.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

impl AsyncRead for TlsConn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        let ended = match &read {
            Ok(()) => buffer.filled().len() == before && buffer.remaining() > 0,
            // `UnexpectedEof`: closed without `close_notify`.
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
            ),
        };
        if ended {
            this.closed.send_replace(true);
        } else {
            this.heard = Instant::now();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for TlsConn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.heard.elapsed() < GOODBYE {
            this.closed.send_replace(true);
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
