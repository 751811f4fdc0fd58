//! Bytes passed on as they are (`envoy.filters.network.tcp_proxy`).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Connection;
use super::io::Io;
use super::slot::Slot;
use super::tls::Wish;
use super::upstream::balance::Choice;
use super::upstream::cluster::Cluster;
use super::upstream::connect;
use super::worker::Worker;

/// A compiled `TcpProxy`.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    /// `stat_prefix`.
    pub(crate) stat_prefix: Arc<str>,
    /// Clusters with their weights.
    pub(crate) clusters: Vec<(Arc<Slot<Cluster>>, u64)>,
    /// How long neither side may say anything; an hour unless said otherwise; none: for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a connection may live.
    pub(crate) max_duration: Option<Duration>,
    /// Whether the client's address decides which host is chosen.
    pub(crate) hash_source_ip: bool,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    mut io: Io,
    proxy: &TcpProxy,
    connection: &Connection,
    _worker: &Rc<Worker>,
) -> io::Result<()> {
    let Some(cluster) = proxy.choose().and_then(|slot| slot.take()) else {
        return Ok(());
    };
    let choice = Choice {
        destination: Some(connection.local),
        ..Default::default()
    };
    let Some(host) = cluster.choose(&choice) else {
        return Ok(());
    };
    let Ok(mut upstream) = connect::connect(&cluster, &host, Wish::default()).await else {
        return Ok(());
    };
    copy(&mut io, &mut upstream.io, proxy.idle_timeout).await
}

/// Passes bytes on in both directions until both have ended, or nothing has gone by for too long.
pub(crate) async fn copy<A, B>(a: &mut A, b: &mut B, _idle: Option<Duration>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional(a, b).await?;
    Ok(())
}

impl TcpProxy {
    fn choose(&self) -> Option<&Arc<Slot<Cluster>>> {
        let total: u64 = self.clusters.iter().map(|(_, weight)| weight).sum();
        let mut left = fastrand::u64(..total.max(1));
        let chosen = self
            .clusters
            .iter()
            .find(|(_, weight)| match left.checked_sub(*weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
        chosen.map(|(cluster, _)| cluster)
    }
}
