//! From a connection to a filter chain.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::chain::Facts;
use super::inspect::{Found, Stopped, inspect};
use super::origin::{Destination, canonical};
use super::{FilterChain, Listener, ListenerStats, NetworkFilter};
use crate::proxy::connection::Connection;
use crate::proxy::http::connection::{self as http, Downstream};
use crate::proxy::io::{Io, Rewound, reset_when_closed};
use crate::proxy::tcp;
use crate::proxy::upstream::connect::Source;
use crate::proxy::worker::Worker;

/// Serves a connection that a listener has accepted, to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: TcpStream, remote: SocketAddr) {
    let name = listener.name.clone();
    if let Err(error) = place(worker, listener, stream, remote).await {
        tracing::debug!(%error, listener = %name, "a connection broke");
    }
}

/// Counts a connection for as long as this lives, even if what serves it panics.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(active: &'a AtomicU64) -> Self {
        active.fetch_add(1, Relaxed);
        Self(active)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Finds the listener and the chain for a connection.
async fn place(
    worker: Rc<Worker>,
    accepting: Arc<Listener>,
    mut stream: TcpStream,
    remote: SocketAddr,
) -> io::Result<()> {
    let start = Instant::now();
    stream.set_nodelay(true)?;
    let remote = canonical(remote);
    let destination = Destination::of(&stream, &accepting)?;
    let listener = hand_off(&worker, &accepting, destination);
    let inspected = {
        let _waiting = Counted::new(&listener.stats.pre_cx_active);
        inspect(&mut stream, &listener.inspection, destination.address.port()).await
    };
    let (found, read) = match inspected {
        Ok(inspected) => inspected,
        Err(stopped) => return Err(count_stop(stopped, &listener.stats)),
    };
    let Some(chain) = listener
        .chains
        .find(&facts(destination.address, remote, &found))
        .cloned()
    else {
        listener.stats.no_filter_chain_match.fetch_add(1, Relaxed);
        return Ok(());
    };
    if destination.is_loop(&accepting) && chain.matcher.port.is_none() {
        reset_when_closed(&stream);
        return Err(io::Error::other("it would lead back to this listener"));
    }
    let connection = Connection {
        id: worker.connection_id(),
        local: destination.address,
        remote,
        source: listener.inspection.original_src.map(|mark| Source {
            address: remote.ip(),
            mark,
        }),
        sni: found.server_name,
        tls: None,
        chain: chain.name.clone(),
        start,
    };
    run(worker, &listener, chain, connection, stream, read).await
}

/// The listener of the address that the client dialled, if there is one, or else the one that has accepted.
fn hand_off(worker: &Worker, accepting: &Arc<Listener>, destination: Destination) -> Arc<Listener> {
    let meant = (accepting.use_original_dst && destination.restored).then(|| worker.listener_at(destination.address));
    meant.flatten().unwrap_or_else(|| accepting.clone())
}

fn count_stop(stopped: Stopped, stats: &ListenerStats) -> io::Error {
    match stopped {
        Stopped::TimedOut => {
            stats.inspection_timeout.fetch_add(1, Relaxed);
            io::ErrorKind::TimedOut.into()
        }
        Stopped::Closed => {
            stats.inspection_closed.fetch_add(1, Relaxed);
            io::ErrorKind::UnexpectedEof.into()
        }
        Stopped::Broken(error) => error,
    }
}

fn facts<'a>(destination: SocketAddr, remote: SocketAddr, found: &'a Found) -> Facts<'a> {
    Facts {
        port: destination.port(),
        destination: destination.ip(),
        server_name: found.server_name.as_deref(),
        tls: found.tls,
        alpn: &found.alpn,
        direct_source: remote.ip(),
        source: remote.ip(),
        source_port: remote.port(),
    }
}

/// Serves a connection by its chain, and counts it.
async fn run(
    worker: Rc<Worker>,
    listener: &Listener,
    chain: Arc<FilterChain>,
    connection: Connection,
    stream: TcpStream,
    read: Bytes,
) -> io::Result<()> {
    let stats = &listener.stats;
    stats.cx_total.fetch_add(1, Relaxed);
    let _counted = Counted::new(&stats.cx_active);
    let secured = secure(&chain, Rewound::new(stream, read), connection, stats).await;
    let ended = match secured {
        Ok((io, connection)) => {
            hand_over(worker, chain, connection, io).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    stats.cx_destroy.fetch_add(1, Relaxed);
    ended
}

/// Does the handshake, if the chain asks for TLS.
async fn secure(
    chain: &FilterChain,
    stream: Rewound,
    mut connection: Connection,
    stats: &ListenerStats,
) -> io::Result<(Io, Connection)> {
    let Some(tls) = &chain.tls else {
        return Ok((stream.into_io(), connection));
    };
    let handshake = tls.accept(stream, &stats.ssl);
    let secured = match chain.handshake_timeout {
        None => handshake.await?,
        Some(limit) => match tokio::time::timeout(limit, handshake).await {
            Ok(secured) => secured?,
            Err(late) => {
                stats.handshake_timeout.fetch_add(1, Relaxed);
                return Err(late.into());
            }
        },
    };
    connection.sni = secured.sni;
    connection.tls = Some(secured.peer);
    Ok((Io::TlsServer(secured.stream), connection))
}

async fn hand_over(worker: Rc<Worker>, chain: Arc<FilterChain>, connection: Connection, io: Io) {
    match &chain.network {
        NetworkFilter::Tcp(proxy) => tcp::serve(io, proxy, &connection, &chain.draining, &worker).await,
        NetworkFilter::Http(manager) => {
            let manager = manager.clone();
            let downstream = Downstream::new(worker, connection, chain, manager);
            http::serve(io, Rc::new(downstream)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    #[test]
    fn a_connection_that_panics_is_not_counted_any_more_and_the_others_go_on() {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
        let stats = Arc::new(ListenerStats::default());
        runtime.unwrap().block_on(async {
            let counted = stats.clone();
            let panics = tokio::task::spawn_local(async move {
                let _counted = Counted::new(&counted.cx_active);
                panic!("on purpose");
            });
            let goes_on = tokio::task::spawn_local(async { 1 });
            assert!(panics.await.is_err_and(|error| error.is_panic()));
            assert_eq!(goes_on.await.unwrap(), 1);
        });
        assert_eq!(stats.cx_active.load(Relaxed), 0);
    }
}
