//! Where a client wanted to go: by `SO_ORIGINAL_DST` where it was redirected, and by the socket itself where it came by
//! way of TPROXY.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::Listener;

/// Where a connection was meant to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The address.
    pub(super) address: SocketAddr,
    /// Whether it was looked for and found, so that the connection may be handed to the listener of that address.
    pub(super) restored: bool,
    /// Whether the client connected to the listener itself.
    pub(super) direct: bool,
}

impl Destination {
    /// The destination of a connection that a listener has accepted.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(super) fn of(stream: &TcpStream, listener: &Listener) -> io::Result<Self> {
        let local = canonical(stream.local_addr()?);
        if !listener.inspection.original_dst {
            return Ok(Self {
                address: local,
                restored: false,
                direct: true,
            });
        }
        let transparent = listener.bind.is_some_and(|bind| bind.transparent);
        // As in Envoy: what leaves a machine with TPROXY is redirected, to a listener that is transparent as well.
        let original = original(stream, local).or(transparent.then_some(local));
        Ok(Self {
            address: original.unwrap_or(local),
            restored: original.is_some(),
            direct: original.is_none_or(|original| original == local),
        })
    }

    /// The proxy before us says where it goes.
    pub(super) fn restore(&mut self, address: SocketAddr) {
        if address != self.address {
            *self = Self {
                address,
                restored: true,
                direct: false,
            };
        }
    }

    /// Whether going there would lead to this listener again, and so on without end.
    pub(super) fn is_loop(&self, listener: &Listener) -> bool {
        self.direct && listener.inspection.original_dst && listener.port() == Some(self.address.port())
    }
}

/// None where the connection was not redirected.
fn original(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address.ok()?.as_socket().map(canonical)
}

/// An IPv4 address that came by way of an IPv6 socket as what it is.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
