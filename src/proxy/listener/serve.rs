//! From an accepted connection to its filter chain: listener filters, filter chain matching, TLS handshake, network
//! filter.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::chain::MatchInputs;
use super::inspect::{Found, Stopped, in_time, inspect};
use super::origin::Destination;
use super::{FilterChain, Listener, ListenerStats, NetworkFilter};
use crate::proxy::connection::{self, Address, Connection};
use crate::proxy::http::connection::{self as http, Downstream};
use crate::proxy::io::{Io, Rewound, Socket};
use crate::proxy::tcp;
use crate::proxy::upstream::connect::Source;
use crate::proxy::worker::Worker;

/// Serves an accepted connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: Socket) {
    let name = listener.name.clone();
    if let Err(error) = place(worker, listener, stream).await {
        tracing::debug!(%error, listener = %name, "a connection failed");
    }
}

/// Counts a connection in a gauge until dropped, even on a panic.
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

/// Runs the listener filters, finds the filter chain and runs it.
async fn place(worker: Rc<Worker>, accepting: Arc<Listener>, mut stream: Socket) -> io::Result<()> {
    let start = Instant::now();
    stream.set_nodelay()?;
    let (remote, direct_local) = (stream.remote()?, stream.local()?);
    let mut opening = Opening {
        direct: remote.clone(),
        remote,
        destination: Destination::of(&stream, &direct_local, &accepting),
        read: BytesMut::new(),
        start,
    };
    opening.hear_proxy(&accepting, &mut stream).await?;
    let listener = hand_off(&worker, &accepting, &opening.destination);
    if !Arc::ptr_eq(&listener, &accepting) {
        opening.hear_proxy(&listener, &mut stream).await?;
    }
    let found = opening.inspect(&listener, &mut stream).await?;
    let Some(chain) = listener.chains.find(&opening.inputs(&found)).cloned() else {
        listener.stats.no_filter_chain_match.fetch_add(1, Relaxed);
        return Ok(());
    };
    if opening.destination.is_loop(&accepting) && chain.matcher.port.is_none() {
        stream.reset_when_closed();
        return Err(io::Error::other("it would lead back to this listener"));
    }
    let connection = Connection {
        id: connection::next_id(),
        source: listener
            .inspection
            .original_src
            .zip(opening.remote.ip())
            .map(|(mark, address)| Source { address, mark }),
        local: opening.destination.address,
        remote: opening.remote,
        direct: opening.direct,
        direct_local,
        sni: found.server_name,
        tls: None,
        chain: chain.name.clone(),
        start,
    };
    run(worker, &listener, chain, connection, stream, opening.read.freeze()).await
}

/// What is known of a connection before its filter chain is matched.
struct Opening {
    /// The peer, which may be a proxy.
    direct: Address,
    /// The client.
    remote: Address,
    destination: Destination,
    /// Bytes read so far.
    read: BytesMut,
    start: Instant,
}

impl Opening {
    /// Reads the PROXY protocol header, if the listener expects one.
    async fn hear_proxy(&mut self, listener: &Listener, stream: &mut Socket) -> io::Result<()> {
        let Some(protocol) = &listener.inspection.proxy_protocol else {
            return Ok(());
        };
        let _waiting = Counted::new(&listener.stats.pre_cx_active);
        let hears = protocol.read(stream, &mut self.read);
        match in_time(&listener.inspection, self.start, &listener.stats, hears).await {
            Ok(Some(ends)) => {
                self.remote = Address::Ip(ends.source);
                self.destination.restore(ends.destination);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(stopped) => Err(count_stop(stopped, &listener.stats)),
        }
    }

    /// Runs the inspectors that filter chain matching depends on.
    async fn inspect(&mut self, listener: &Listener, stream: &mut Socket) -> io::Result<Found> {
        let _waiting = Counted::new(&listener.stats.pre_cx_active);
        let port = self.destination.address.port().unwrap_or_default();
        let looks = inspect(stream, &listener.inspection, port, &mut self.read);
        let found = in_time(&listener.inspection, self.start, &listener.stats, looks).await;
        found.map_err(|stopped| count_stop(stopped, &listener.stats))
    }

    fn inputs<'a>(&self, found: &'a Found) -> MatchInputs<'a> {
        // As in Envoy, connections without IP addresses match prefixes as this address.
        let ip = |address: &Address| address.ip().unwrap_or(Ipv4Addr::BROADCAST.into());
        MatchInputs {
            port: self.destination.address.port().unwrap_or_default(),
            destination: ip(&self.destination.address),
            server_name: found.server_name.as_deref(),
            tls: found.tls,
            alpn: &found.alpn,
            direct_source: ip(&self.direct),
            source: ip(&self.remote),
            source_port: self.remote.port().unwrap_or_default(),
        }
    }
}

/// The listener of the original destination, if there is one, else the accepting one.
fn hand_off(worker: &Worker, accepting: &Arc<Listener>, destination: &Destination) -> Arc<Listener> {
    let meant = destination.address.socket();
    let meant = meant.filter(|_| accepting.use_original_dst && destination.restored);
    let listener = meant.and_then(|address| worker.listener_at(address));
    listener.unwrap_or_else(|| accepting.clone())
}

fn count_stop(stopped: Stopped, stats: &ListenerStats) -> io::Error {
    match stopped {
        Stopped::TimedOut => io::ErrorKind::TimedOut.into(),
        Stopped::Closed => {
            stats.inspection_closed.fetch_add(1, Relaxed);
            io::ErrorKind::UnexpectedEof.into()
        }
        Stopped::Malformed | Stopped::TooLong => io::ErrorKind::InvalidData.into(),
        Stopped::Broken(error) => error,
    }
}

/// Runs the filter chain on a connection, and counts it.
async fn run(
    worker: Rc<Worker>,
    listener: &Listener,
    chain: Arc<FilterChain>,
    connection: Connection,
    stream: Socket,
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

/// Performs the TLS handshake, if the chain has TLS.
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
