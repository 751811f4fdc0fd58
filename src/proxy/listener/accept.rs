//! From a socket to a filter chain.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use super::chain::Facts;
use super::{FilterChain, Listener, ListenerStats, NetworkFilter};
use crate::proxy::connection::Connection;
use crate::proxy::http::connection::{self as http, Downstream};
use crate::proxy::io::{Io, Rewound};
use crate::proxy::tcp;
use crate::proxy::worker::Worker;

/// How long accepting rests when the system is out of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Accepts connections for a listener until it is told to stop.
pub(crate) async fn accept(worker: Rc<Worker>, name: Arc<str>, socket: Arc<std::net::TcpListener>) {
    let listener = match socket.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, listener = %name, "a socket cannot be used"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if let Some(listener) = worker.listener(&name) {
                    tokio::task::spawn_local(take(worker.clone(), listener, stream, remote));
                }
            }
            Err(error) => {
                tracing::warn!(%error, listener = %name, "no connection can be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Finds the chain for a connection and serves it.
async fn take(worker: Rc<Worker>, listener: Arc<Listener>, stream: TcpStream, remote: SocketAddr) {
    let stats = listener.stats.clone();
    stats.cx_total.fetch_add(1, Relaxed);
    stats.cx_active.fetch_add(1, Relaxed);
    if let Err(error) = serve(worker, &listener, stream, remote).await {
        tracing::debug!(%error, listener = %listener.name, "a connection broke");
    }
    stats.cx_active.fetch_sub(1, Relaxed);
}

async fn serve(worker: Rc<Worker>, listener: &Arc<Listener>, stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let facts = Facts {
        port: local.port(),
        destination: local.ip(),
        server_name: None,
        tls: false,
        alpn: &[],
        source: remote.ip(),
        source_port: remote.port(),
    };
    let Some(chain) = listener.chains.find(&facts).cloned() else {
        listener.stats.no_filter_chain_match.fetch_add(1, Relaxed);
        return Ok(());
    };
    let connection = Connection {
        id: worker.connection_id(),
        local,
        remote,
        sni: None,
        tls: None,
        chain: chain.name.clone(),
        start: Instant::now(),
    };
    let stream = Rewound::new(stream, Bytes::new());
    let (io, connection) = secure(&chain, stream, connection, &listener.stats).await?;
    hand_over(worker, chain, connection, io).await
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

async fn hand_over(worker: Rc<Worker>, chain: Arc<FilterChain>, connection: Connection, io: Io) -> io::Result<()> {
    match &chain.network {
        NetworkFilter::Tcp(proxy) => tcp::serve(io, proxy, &connection, &worker).await,
        NetworkFilter::Http(manager) => {
            let downstream = Downstream {
                manager: manager.clone(),
                worker,
                connection,
                chain,
            };
            http::serve(io, Rc::new(downstream)).await;
            Ok(())
        }
    }
}
