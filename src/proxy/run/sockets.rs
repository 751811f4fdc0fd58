//! The sockets of listeners: bound when a listener is taken, listened on when it is live.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::listener::{Bind, ListenAddress, Listener};
use super::super::store::Name;
use super::super::upstream::connect;
use super::super::worker::{Command, Handle};

/// All sockets, by listener.
#[derive(Debug)]
pub(super) struct Sockets {
    workers: Vec<Handle>,
    bound: HashMap<Name, Bound>,
    /// Bound for the version that is not live yet.
    pending: HashMap<Name, Bound>,
}

/// The sockets of a listener, one for each worker, or the same for all.
#[derive(Clone, Debug)]
struct Bound {
    address: ListenAddress,
    bind: Bind,
    sockets: Vec<Arc<std::net::TcpListener>>,
}

impl Sockets {
    /// No sockets yet, for these workers.
    pub(super) fn new(workers: Vec<Handle>) -> Self {
        Self {
            workers,
            bound: HashMap::new(),
            pending: HashMap::new(),
        }
    }

    /// Makes sure that a listener has its sockets. They are not listened on yet.
    ///
    /// # Errors
    /// Why not, in Envoy's words.
    pub(super) fn prepare(&mut self, listener: &Listener) -> Result<(), String> {
        self.pending.remove(&listener.name);
        let Some(bind) = listener.bind else {
            return Ok(());
        };
        let fits = |bound: &&Bound| bound.address == listener.address && bound.bind == bind;
        if self.bound.get(&listener.name).filter(fits).is_some() {
            return Ok(());
        }
        // A listener that goes may leave its socket to one that comes.
        let bound = match self.bound.values().chain(self.pending.values()).find(fits) {
            Some(bound) => bound.clone(),
            None => self.bind(&listener.address, bind).map_err(|error| {
                let words = error.to_string();
                let reason = words.split(" (os error").next().unwrap_or_default();
                format!("cannot bind '{}': {reason}", listener.address)
            })?,
        };
        self.pending.insert(listener.name.clone(), bound);
        Ok(())
    }

    /// A listener is in force: workers accept on its sockets.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub(super) fn live(&mut self, listener: &Listener) -> io::Result<()> {
        let Some(bound) = self.pending.remove(&listener.name) else {
            if listener.bind.is_none() && self.bound.remove(&listener.name).is_some() {
                self.tell(|_| Command::Close(listener.name.clone()));
            }
            return Ok(());
        };
        let backlog = i32::try_from(bound.bind.backlog).unwrap_or(i32::MAX);
        for socket in &bound.sockets {
            socket2::SockRef::from(&**socket).listen(backlog)?;
        }
        self.tell(|worker| Command::Listen(listener.name.clone(), bound.sockets[worker].clone()));
        self.bound.insert(listener.name.clone(), bound);
        Ok(())
    }

    /// A listener is gone.
    pub(super) fn gone(&mut self, name: &Name) {
        self.pending.remove(name);
        if self.bound.remove(name).is_some() {
            self.tell(|_| Command::Close(name.clone()));
        }
    }

    /// No connection is accepted any more.
    pub(super) fn close(&mut self) {
        let names: Vec<_> = self.bound.keys().cloned().collect();
        names.iter().for_each(|name| self.gone(name));
    }

    /// What a worker cannot be told it does not need: it is gone.
    fn tell(&self, command: impl Fn(usize) -> Command) {
        for (index, worker) in self.workers.iter().enumerate() {
            drop(worker.commands.send(command(index)));
        }
    }

    fn bind(&self, address: &ListenAddress, bind: Bind) -> io::Result<Bound> {
        let ListenAddress::Ip(ip) = address else {
            return Err(io::Error::other("Unix domain sockets are not implemented"));
        };
        let first = Arc::new(socket(*ip, bind)?);
        // With port 0 the system chooses, and all have to have the same.
        let chosen = first.local_addr()?;
        let mut sockets = vec![first.clone()];
        for _ in 1..self.workers.len() {
            let next = if bind.reuse_port {
                Arc::new(socket(chosen, bind)?)
            } else {
                first.clone()
            };
            sockets.push(next);
        }
        Ok(Bound {
            address: address.clone(),
            bind,
            sockets,
        })
    }
}

fn socket(address: SocketAddr, bind: Bind) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(bind.reuse_port)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match (bind.freebind, address.is_ipv4()) {
        (true, true) => socket.set_freebind_v4(true)?,
        (true, false) => socket.set_freebind_v6(true)?,
        (false, _) => {}
    }
    match (bind.transparent, address.is_ipv4()) {
        (true, true) => socket.set_ip_transparent_v4(true)?,
        (true, false) => socket.set_ip_transparent_v6(true)?,
        (false, _) => {}
    }
    // What is accepted inherits these.
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = bind.keepalive {
        socket.set_tcp_keepalive(&connect::keepalive(keepalive))?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIND: Bind = Bind {
        reuse_port: false,
        transparent: false,
        freebind: false,
        backlog: 1,
        keepalive: None,
    };

    #[test]
    fn a_port_in_use_is_said_as_envoy_says_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut sockets = Sockets::new(Vec::new());
        let bytes = crate::proxy::store::tests::tcp_listener("a", address.port(), "x");
        let mut store = crate::proxy::store::Store::default();
        let listener = store.listener(None, &bytes).unwrap().unwrap();
        let error = sockets.prepare(&listener).unwrap_err();
        assert_eq!(error, format!("cannot bind '{address}': Address already in use"));
    }

    #[test]
    fn all_workers_get_the_port_that_the_system_chose() {
        let first = socket(
            "127.0.0.1:0".parse().unwrap(),
            Bind {
                reuse_port: true,
                ..BIND
            },
        )
        .unwrap();
        let address = first.local_addr().unwrap();
        assert!(
            socket(
                address,
                Bind {
                    reuse_port: true,
                    ..BIND
                }
            )
            .is_ok()
        );
    }
}
