//! Connections as bytes: TCP, Unix sockets and TLS behind one type.

pub(crate) mod metered;
pub(crate) mod reading;

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::connection::Address;

/// A connection, in whatever it is wrapped.
#[derive(Debug)]
pub(crate) enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TCP of which the first bytes were read already.
    Rewound(Rewound),
    /// TLS, we being the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<Rewound>>),
    /// TLS, we being the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<Io>>),
}

impl Io {
    /// Makes closing a TCP connection a reset, which also drops what is not sent yet.
    pub(crate) fn reset_when_closed(&self) {
        match self {
            Io::Tcp(stream) => reset_when_closed(stream),
            Io::Rewound(stream) => stream.inner.reset_when_closed(),
            Io::TlsServer(stream) => stream.get_ref().0.inner.reset_when_closed(),
            Io::TlsClient(stream) => stream.get_ref().0.reset_when_closed(),
            Io::Unix(_) => {}
        }
    }
}

/// Makes closing a TCP connection a reset, which also drops what is not sent yet.
fn reset_when_closed(stream: &TcpStream) {
    // Where that cannot be set, the connection ends in the ordinary way.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
}

impl Socket {
    /// Our own address on it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn local(&self) -> io::Result<Address> {
        Ok(match self {
            Socket::Tcp(stream) => Address::Ip(canonical(stream.local_addr()?)),
            Socket::Unix(stream) => Address::Unix(path(&stream.local_addr()?)),
        })
    }

    /// The peer's.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn remote(&self) -> io::Result<Address> {
        match self {
            Socket::Tcp(stream) => Ok(Address::Ip(canonical(stream.peer_addr()?))),
            Socket::Unix(_) => self.local(),
        }
    }

    /// Sends small pieces at once.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Makes closing a TCP connection a reset, which also drops what is not sent yet.
    pub(crate) fn reset_when_closed(&self) {
        match self {
            Socket::Tcp(stream) => reset_when_closed(stream),
            Socket::Unix(_) => {}
        }
    }
}

/// An IPv4 address that came by way of an IPv6 socket as what it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The path of a Unix domain socket; an `@` and a name of one that is not in the file system.
fn path(address: &tokio::net::unix::SocketAddr) -> Arc<Path> {
    let name = address.as_abstract_name().map(|name| [b"@", name].concat());
    let name = name.as_deref().map(|name| Path::new(OsStr::from_bytes(name)));
    name.or(address.as_pathname()).unwrap_or(Path::new("")).into()
}

/// A connection of which the first bytes were read for inspection.
#[derive(Debug)]
pub(crate) struct Rewound<I = Socket> {
    read: Bytes,
    inner: I,
}

impl<I> Rewound<I> {
    /// The connection, with what was read of it.
    pub(crate) fn new(inner: I, read: Bytes) -> Self {
        Self { read, inner }
    }
}

impl Rewound {
    /// The connection as simply as it can be.
    pub(crate) fn into_io(self) -> Io {
        match self.inner {
            _ if !self.read.is_empty() => Io::Rewound(self),
            Socket::Tcp(stream) => Io::Tcp(stream),
            Socket::Unix(stream) => Io::Unix(stream),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewound<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let len = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..len]);
        self.read.advance(len);
        if self.read.is_empty() {
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewound<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Does the same on whatever is inside.
macro_rules! inside {
    (Socket, $self:ident, $io:ident => $do:expr) => {
        match $self.get_mut() {
            Socket::Tcp($io) => {
                let $io = Pin::new($io);
                $do
            }
            Socket::Unix($io) => {
                let $io = Pin::new($io);
                $do
            }
        }
    };
    (Io, $self:ident, $io:ident => $do:expr) => {
        match $self.get_mut() {
            Io::Tcp($io) => {
                let $io = Pin::new($io);
                $do
            }
            Io::Unix($io) => {
                let $io = Pin::new($io);
                $do
            }
            Io::Rewound($io) => {
                let $io = Pin::new($io);
                $do
            }
            Io::TlsServer($io) => {
                let $io = Pin::new(&mut **$io);
                $do
            }
            Io::TlsClient($io) => {
                let $io = Pin::new(&mut **$io);
                $do
            }
        }
    };
}

macro_rules! read_inside {
    ($($outside:ident)*) => {$(
        impl AsyncRead for $outside {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                inside!($outside, self, io => io.poll_read(cx, buf))
            }
        }
    )*};
}

/// Everything here gathers what is written: sockets do, and rustls does.
macro_rules! write_inside {
    ($($outside:ident)*) => {$(
        impl AsyncWrite for $outside {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                inside!($outside, self, io => io.poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                inside!($outside, self, io => io.poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                inside!($outside, self, io => io.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                inside!($outside, self, io => io.poll_shutdown(cx))
            }
        }
    )*};
}

read_inside!(Socket Io);
write_inside!(Socket Io);
