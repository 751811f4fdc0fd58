//! Byte streams: TCP, Unix domain sockets and TLS behind one type.

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

/// A connection of any kind.
#[derive(Debug)]
pub(crate) enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// A socket of which the first bytes have been read already.
    Rewound(Rewound),
    /// TLS as the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<Rewound>>),
    /// TLS as the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<Io>>),
}

impl Io {
    /// Makes closing the TCP connection send a reset, which discards unsent data, too.
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

/// Makes closing the TCP connection send a reset, which discards unsent data, too.
fn reset_when_closed(stream: &TcpStream) {
    // If that fails, the connection closes normally.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
}

impl Socket {
    /// The local address.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) fn local(&self) -> io::Result<Address> {
        Ok(match self {
            Socket::Tcp(stream) => Address::Ip(canonical(stream.local_addr()?)),
            Socket::Unix(stream) => Address::Unix(path(&stream.local_addr()?)),
        })
    }

    /// The peer's address.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) fn remote(&self) -> io::Result<Address> {
        match self {
            Socket::Tcp(stream) => Ok(Address::Ip(canonical(stream.peer_addr()?))),
            Socket::Unix(_) => self.local(),
        }
    }

    /// Sets `TCP_NODELAY`.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Makes closing the TCP connection send a reset, which discards unsent data, too.
    pub(crate) fn reset_when_closed(&self) {
        match self {
            Socket::Tcp(stream) => reset_when_closed(stream),
            Socket::Unix(_) => {}
        }
    }
}

/// An IPv4-mapped IPv6 address as an IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The path of a Unix domain socket; `@` and the name of an abstract one.
fn path(address: &tokio::net::unix::SocketAddr) -> Arc<Path> {
    let name = address.as_abstract_name().map(|name| [b"@", name].concat());
    let name = name.as_deref().map(|name| Path::new(OsStr::from_bytes(name)));
    name.or(address.as_pathname()).unwrap_or(Path::new("")).into()
}

/// A connection of which the first bytes were read for inspection, and are to be read again.
#[derive(Debug)]
pub(crate) struct Rewound<I = Socket> {
    read: Bytes,
    inner: I,
}

impl<I> Rewound<I> {
    /// A connection, and what was read of it.
    pub(crate) fn new(inner: I, read: Bytes) -> Self {
        Self { read, inner }
    }
}

impl Rewound {
    /// Unwraps the connection if nothing is left to be read again.
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

/// Delegates to whichever variant it is.
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

/// Delegates writing; every variant supports vectored writes.
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
