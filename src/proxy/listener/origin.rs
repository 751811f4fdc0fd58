//! The original destination of a connection: `SO_ORIGINAL_DST` if it was redirected, the socket's own local address
//! with TPROXY.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::Listener;
use crate::proxy::connection::Address;
use crate::proxy::io::{Socket, canonical};

/// The destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The address.
    pub(super) address: Address,
    /// Whether it was restored, so that the connection may be handed to the listener of that address.
    pub(super) restored: bool,
    /// Whether the client dialled the listener itself.
    pub(super) direct: bool,
}

impl Destination {
    /// The destination of a connection accepted at this local address.
    pub(super) fn of(stream: &Socket, local: &Address, listener: &Listener) -> Self {
        let (Socket::Tcp(stream), Address::Ip(local), true) = (stream, local, listener.inspection.original_dst) else {
            return Self {
                address: local.clone(),
                restored: false,
                direct: true,
            };
        };
        let transparent = listener.bind.is_some_and(|bind| bind.transparent);
        // As in Envoy: outbound connections are redirected even with TPROXY, to a listener that is transparent as well.
        let original = original(stream, *local).or(transparent.then_some(*local));
        Self {
            address: Address::Ip(original.unwrap_or(*local)),
            restored: original.is_some(),
            direct: original.is_none_or(|original| original == *local),
        }
    }

    /// Sets the destination that the PROXY protocol tells.
    pub(super) fn restore(&mut self, address: SocketAddr) {
        let address = Address::Ip(address);
        if address != self.address {
            *self = Self {
                address,
                restored: true,
                direct: false,
            };
        }
    }

    /// Whether connecting there would lead back to this listener, endlessly.
    pub(super) fn is_loop(&self, listener: &Listener) -> bool {
        self.direct && listener.inspection.original_dst && listener.has_port(self.address.port())
    }
}

/// `SO_ORIGINAL_DST`; `None` if the connection was not redirected.
fn original(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address.ok()?.as_socket().map(canonical)
}
