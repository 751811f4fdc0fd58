//! Connections as bytes: TCP, Unix sockets and TLS behind one type.

pub(crate) mod gather;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

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
        let stream = match self {
            Io::Tcp(stream) => stream,
            Io::Rewound(stream) => stream.socket(),
            Io::TlsServer(stream) => stream.get_ref().0.socket(),
            Io::TlsClient(stream) => return stream.get_ref().0.reset_when_closed(),
            Io::Unix(_) => return,
        };
        reset_when_closed(stream);
    }
}

/// Makes closing a TCP connection a reset, which also drops what is not sent yet.
pub(crate) fn reset_when_closed(stream: &TcpStream) {
    // Where that cannot be set, the connection ends in the ordinary way.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// A TCP connection of which the first bytes were read for inspection.
#[derive(Debug)]
pub(crate) struct Rewound {
    read: Bytes,
    inner: TcpStream,
}

impl Rewound {
    /// The connection, with what was read of it.
    pub(crate) fn new(inner: TcpStream, read: Bytes) -> Self {
        Self { read, inner }
    }

    /// The connection as simply as it can be.
    pub(crate) fn into_io(self) -> Io {
        if self.read.is_empty() {
            Io::Tcp(self.inner)
        } else {
            Io::Rewound(self)
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.inner
    }
}

impl AsyncRead for Rewound {
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

impl AsyncWrite for Rewound {
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
        true
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
    ($self:ident, $io:ident => $do:expr) => {
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

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        inside!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        inside!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inside!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Unix(io) => io.is_write_vectored(),
            Io::Rewound(io) => io.is_write_vectored(),
            Io::TlsServer(io) => io.is_write_vectored(),
            Io::TlsClient(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(self, io => io.poll_shutdown(cx))
    }
}
