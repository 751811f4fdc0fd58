//! Accepting TLS connections, as a stream that tonic serves from.
//!
//! Handshakes run side by side, so that a peer that stalls holds up nobody; how many and how long
//! is limited. A handshake that fails is the peer's affair: it is logged and the stream goes on.
//! The stream never ends and never yields an error.

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

/// How long to leave a listener alone that has no more file descriptors or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A connection that is silent this long is probed by TCP …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … this often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// … and given up after this many probes without an answer.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection that is shut down on this side although its peer was heard this short a time ago is shut down because
/// the peer said goodbye (GOAWAY); one that is given up has been silent for longer.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a stranger may cost before it has proven anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// How long a handshake may take: 10 s by default.
    pub timeout: Duration,
    /// How many run at once, 512 by default and at least 1. Further connections wait in the kernel's queue.
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

/// Who is at the other end, in the extensions of every request on the connection.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where the peer connects from.
    pub addr: SocketAddr,
    /// Who it is, if it showed a certificate.
    pub identity: Option<SpiffeId>,
    /// The end of that certificate. The connection may outlive it.
    pub cert_not_after: Option<SystemTime>,
    closed: watch::Receiver<bool>,
}

impl PeerInfo {
    /// Whether the peer has closed the connection, as far as is known by now.
    pub fn has_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the connection is gone, and says whether it was the peer who closed it: a connection that
    /// nothing is heard of any more, and that is given up, says nothing of its peer.
    pub async fn closes(mut self) -> bool {
        self.closed.wait_for(|closed| *closed).await.is_ok()
    }
}

/// An accepted connection, its handshake done.
#[derive(Debug)]
pub struct TlsConn {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    closed: watch::Sender<bool>,
    /// When something was heard of the peer last.
    heard: Instant,
}

impl TlsConn {
    /// Who is at the other end.
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

/// The connections that a listener accepts.
#[derive(Debug)]
pub struct TlsIncoming {
    listener: TcpListener,
    server: ServerTls,
    limits: HandshakeLimits,
    handshakes: JoinSet<Option<TlsConn>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl TlsIncoming {
    /// Accepts from a listener, with the default limits.
    pub fn new(listener: TcpListener, server: &ServerTls) -> Self {
        Self::with_limits(listener, server, HandshakeLimits::default())
    }

    /// Accepts from a listener.
    pub fn with_limits(listener: TcpListener, server: &ServerTls, limits: HandshakeLimits) -> Self {
        Self {
            listener,
            server: server.clone(),
            limits,
            handshakes: JoinSet::new(),
            pause: None,
        }
    }

    /// The next handshake that succeeded; `Pending` with a waker set, or without one if none runs.
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

    /// Accepts one connection and starts its handshake.
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
            Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "a connection broke off"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
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

/// Errors of `accept` that are about the connection and not about the listener.
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
            tracing::debug!(%addr, "TLS handshake took too long");
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

/// The verifier has refused what is no workload of this mesh, so an error here is a bug; without an
/// identity the connection is still not let in.
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
            tracing::error!(%addr, %error, "a verified client has no identity");
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
            // The second is an end without TLS' goodbye.
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
