//! Listening sockets: bound when a listener is accepted, listened on when it is live.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::super::connection::Address;
use super::super::listener::accept::Listening;
use super::super::listener::{Bind, ListenAddress, Listener};
use super::super::store::Name;
use super::super::upstream::connect;
use super::super::worker::{Command, Handle};

/// All sockets, by listener.
#[derive(Debug)]
pub(super) struct Sockets {
    workers: Vec<Handle>,
    bound: HashMap<Name, Vec<Bound>>,
    /// Sockets of listener versions that are not live yet.
    pending: HashMap<Name, Vec<Bound>>,
}

/// The sockets of one address of a listener: one for each worker, or the same for all.
#[derive(Clone, Debug)]
struct Bound {
    address: ListenAddress,
    bind: Bind,
    sockets: Vec<Listening>,
}

impl Sockets {
    /// For these workers; no sockets yet.
    pub(super) fn new(workers: Vec<Handle>) -> Self {
        Self {
            workers,
            bound: HashMap::new(),
            pending: HashMap::new(),
        }
    }

    /// Binds the sockets of a listener, without listening.
    ///
    /// # Errors
    /// The reason, in Envoy's words.
    pub(super) fn prepare(&mut self, listener: &Listener) -> Result<(), String> {
        let Some(bind) = listener.bind else {
            self.pending.remove(&listener.name);
            return Ok(());
        };
        let addresses = listener.addresses.iter();
        let all = addresses.map(|address| self.bound_or_bind(address, bind));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        let same = |one: &Bound, other: &Bound| (&one.address, one.bind) == (&other.address, other.bind);
        let stays = |now: &Vec<Bound>| now.len() == all.len() && now.iter().zip(&all).all(|(a, b)| same(a, b));
        // If a new version fails, the current one keeps its sockets.
        match self.bound.get(&listener.name).is_some_and(stays) {
            true => self.pending.remove(&listener.name),
            false => self.pending.insert(listener.name.clone(), all),
        };
        Ok(())
    }

    /// Binds an address, or takes over the socket from another listener, which may be changing or going.
    fn bound_or_bind(&self, address: &ListenAddress, bind: Bind) -> Result<Bound, String> {
        let mut known = self.bound.values().chain(self.pending.values()).flatten();
        let found = known.find(|bound| bound.address == *address && bound.bind == bind);
        found.cloned().map_or_else(
            || {
                self.bind(address, bind).map_err(|error| {
                    let words = error.to_string();
                    let reason = words.split(" (os error").next().unwrap_or_default();
                    format!("cannot bind '{}': {reason}", address.address)
                })
            },
            Ok,
        )
    }

    /// Makes a listener live: workers accept on its sockets.
    ///
    /// # Errors
    /// If the system refuses to listen.
    pub(super) fn live(&mut self, listener: &Listener) -> io::Result<()> {
        let Some(all) = self.pending.remove(&listener.name) else {
            if listener.bind.is_none() && self.bound.remove(&listener.name).is_some() {
                self.tell(|_| Command::Close(listener.name.clone()));
            }
            return Ok(());
        };
        for bound in &all {
            let backlog = i32::try_from(bound.bind.backlog).unwrap_or(i32::MAX);
            bound.sockets.iter().try_for_each(|socket| listen(socket, backlog))?;
        }
        self.tell(|worker| {
            let sockets = all.iter().map(|bound| bound.sockets[worker].clone());
            Command::Listen(listener.name.clone(), sockets.collect())
        });
        self.bound.insert(listener.name.clone(), all);
        Ok(())
    }

    /// Closes the sockets of a removed listener.
    pub(super) fn gone(&mut self, name: &Name) {
        self.pending.remove(name);
        if self.bound.remove(name).is_some() {
            self.tell(|_| Command::Close(name.clone()));
        }
    }

    /// Stops accepting on all sockets.
    pub(super) fn close(&mut self) {
        let names: Vec<_> = self.bound.keys().cloned().collect();
        names.iter().for_each(|name| self.gone(name));
    }

    /// Sends a command to all workers. One that cannot be reached has ended.
    fn tell(&self, command: impl Fn(usize) -> Command) {
        for (index, worker) in self.workers.iter().enumerate() {
            drop(worker.commands.send(command(index)));
        }
    }

    fn bind(&self, address: &ListenAddress, bind: Bind) -> io::Result<Bound> {
        let sockets = match &address.address {
            Address::Ip(ip) => self.bind_ip(*ip, address.with_ipv4, bind)?,
            Address::Unix(path) => {
                let socket = Listening::Unix(Arc::new(unix_socket(path, address.mode)?));
                vec![socket; self.workers.len()]
            }
        };
        Ok(Bound {
            address: address.clone(),
            bind,
            sockets,
        })
    }

    fn bind_ip(&self, ip: SocketAddr, with_ipv4: bool, bind: Bind) -> io::Result<Vec<Listening>> {
        let first = Arc::new(socket(ip, with_ipv4, bind)?);
        // With port 0 the system chooses the port, which must be the same for all workers.
        let chosen = first.local_addr()?;
        let mut sockets = vec![first.clone()];
        for _ in 1..self.workers.len() {
            let next = if bind.reuse_port {
                Arc::new(socket(chosen, with_ipv4, bind)?)
            } else {
                first.clone()
            };
            sockets.push(next);
        }
        Ok(sockets.into_iter().map(Listening::Tcp).collect())
    }
}

fn listen(socket: &Listening, backlog: i32) -> io::Result<()> {
    match socket {
        Listening::Tcp(socket) => SockRef::from(&**socket).listen(backlog),
        Listening::Unix(socket) => SockRef::from(&**socket).listen(backlog),
    }
}

/// A Unix domain socket: a path, where an older socket is removed, or an abstract name after `@`.
fn unix_socket(path: &Path, mode: Option<u32>) -> io::Result<UnixListener> {
    let name = path.as_os_str().as_bytes();
    // Abstract names begin with a zero byte.
    let named = name.strip_prefix(b"@").map(|name| [b"\0", name].concat());
    let address = match &named {
        Some(name) => SockAddr::unix(OsStr::from_bytes(name))?,
        None => SockAddr::unix(path)?,
    };
    let left = named.is_none() && fs::symlink_metadata(path).is_ok_and(|left| left.file_type().is_socket());
    if left {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    if let Some(mode) = mode.filter(|_| named.is_none()) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(socket.into())
}

fn socket(address: SocketAddr, with_ipv4: bool, bind: Bind) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(bind.reuse_port)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!with_ipv4)?;
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
    // Accepted sockets inherit these options.
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = bind.keepalive {
        socket.set_tcp_keepalive(&connect::keepalive(keepalive))?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use prost::Message;

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
            false,
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
                false,
                Bind {
                    reuse_port: true,
                    ..BIND
                }
            )
            .is_ok()
        );
    }

    fn listener(store: &mut crate::proxy::store::Store, more: serde_json::Value) -> Listener {
        let bytes = crate::proxy::store::tests::tcp_listener("a", 0, "x");
        let mut message = crate::xds::pb::listener::Listener::decode(&bytes[..]).unwrap();
        let address = "envoy.config.core.v3.Address";
        message.address = Some(crate::xds::json::from_json(address, more).unwrap());
        store.listener(None, &message.encode_to_vec()).unwrap().unwrap()
    }

    #[test]
    fn the_file_of_a_socket_that_nobody_has_any_more_is_taken_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        let mut sockets = Sockets::new(Vec::new());
        let pipe = |path: &Path| serde_json::json!({"pipe": {"path": path}});
        let mut store = crate::proxy::store::Store::default();
        sockets.prepare(&listener(&mut store, pipe(&path))).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        let error = sockets.prepare(&listener(&mut store, pipe(&file))).unwrap_err();
        assert_eq!(
            error,
            format!("cannot bind '{}': Address already in use", file.display())
        );
        assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    }
}
