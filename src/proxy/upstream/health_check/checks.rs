//! All checks of the process.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::{AbortHandle, Abortable, Aborted};
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::session;
use super::state::Checked;
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::host::{Host, HostSet};

/// All checks of the process. They run while [`Checks::begun`] is awaited.
#[derive(Default)]
pub(crate) struct Checks {
    /// By the address of the cluster in memory: sessions keep it alive.
    clusters: HashMap<usize, Watched>,
    running: FuturesUnordered<Abortable<Pin<Box<dyn Future<Output = ()>>>>>,
    begun: Arc<Notify>,
}

/// The hosts of a cluster that are checked.
struct Watched {
    /// The hosts when they were last looked at.
    hosts: Arc<HostSet>,
    /// By the address of the host's state in memory.
    sessions: HashMap<usize, Session>,
}

/// A host that is checked until this is dropped.
struct Session {
    host: Arc<Host>,
    handle: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} health checks", self.running.len())
    }
}

impl Checks {
    /// Checks the hosts of these clusters from now on, and no others.
    pub(crate) fn watch<'a>(&mut self, clusters: impl IntoIterator<Item = &'a Arc<Cluster>>) {
        let mut before = std::mem::take(&mut self.clusters);
        for cluster in clusters {
            let (key, hosts) = (Arc::as_ptr(cluster).addr(), cluster.hosts.load_full());
            let watched = match before.remove(&key) {
                Some(watched) if Arc::ptr_eq(&watched.hosts, &hosts) => watched,
                earlier => {
                    let sessions = earlier.map(|watched| watched.sessions).unwrap_or_default();
                    Watched {
                        sessions: self.sessions(cluster, &hosts, sessions),
                        hosts,
                    }
                }
            };
            self.clusters.insert(key, watched);
        }
    }

    fn sessions(
        &mut self,
        cluster: &Arc<Cluster>,
        hosts: &HostSet,
        mut before: HashMap<usize, Session>,
    ) -> HashMap<usize, Session> {
        let checked = hosts
            .hosts
            .iter()
            .filter_map(|host| Some((host, host.checked.as_ref()?)));
        let sessions = checked.map(|(host, checked)| {
            let key = Arc::as_ptr(checked).addr();
            let earlier = before
                .remove(&key)
                .filter(|session| is_reached_alike(&session.host, host));
            (key, earlier.unwrap_or_else(|| self.begin(cluster, host, checked)))
        });
        sessions.collect()
    }

    fn begin(&mut self, cluster: &Arc<Cluster>, host: &Arc<Host>, checked: &Arc<Checked>) -> Session {
        let (handle, registration) = AbortHandle::new_pair();
        let session = session::run(cluster.clone(), host.clone(), checked.clone(), self.begun.clone());
        self.running.push(Abortable::new(Box::pin(session), registration));
        Session {
            host: host.clone(),
            handle,
        }
    }

    /// Runs the checks until a host has had its first result. Cancel safe.
    pub(crate) async fn begun(&mut self) {
        let begun = self.begun.clone();
        let run = async {
            loop {
                match self.running.next().await {
                    // A session ends only when it is dropped.
                    Some(Ok(()) | Err(Aborted)) => {}
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = begun.notified() => {}
            () = run => {}
        }
    }
}

/// Whether both versions of a host are connected to in the same way.
fn is_reached_alike(one: &Host, other: &Host) -> bool {
    let tls = [one, other].map(|host| host.transport.tls.as_ref().map(Arc::as_ptr));
    tls[0] == tls[1] && one.transport.proxy_header == other.transport.proxy_header
}
