//! DNS look-ups of clusters (STRICT_DNS and LOGICAL_DNS), repeated on the control thread.

pub(crate) mod client;
mod hosts_file;
pub(crate) mod servers;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::cluster::{Cluster, ClusterStats, Discovery, DnsConfig};
use super::host::{Endpoint, Endpoints, HostAddress, LocalityEndpoints, Target};
use client::{Client, Clients, Found};
use servers::LookupError;

/// The addresses behind a cluster's names.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The cluster.
    pub(crate) cluster: Arc<str>,
    /// Its endpoints, each with the addresses in the place of its name.
    pub(crate) endpoints: Endpoints,
}

/// Looks up the names of clusters.
pub(crate) struct Resolver {
    lookups: HashMap<Arc<str>, Lookup>,
    clients: Clients,
    found: mpsc::UnboundedSender<Resolved>,
}

/// A cluster whose names are looked up. It ends when this is dropped.
#[derive(Debug)]
struct Lookup {
    cluster: Arc<Cluster>,
    task: JoinHandle<()>,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// A resolver, and where it says what it has found.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Resolved>) {
        let (found, receive) = mpsc::unbounded_channel();
        let resolver = Self {
            lookups: HashMap::new(),
            clients: Clients::default(),
            found,
        };
        (resolver, receive)
    }

    /// Looks up the names of these clusters from now on, and of no others.
    pub(crate) fn watch<'a>(&mut self, clusters: impl IntoIterator<Item = &'a Arc<Cluster>>) {
        let mut before = std::mem::take(&mut self.lookups);
        for cluster in clusters {
            let Discovery::Dns(dns) = &cluster.config.discovery else {
                continue;
            };
            let name = cluster.config.name.clone();
            let same = before
                .remove(&name)
                .filter(|lookup| Arc::ptr_eq(&lookup.cluster, cluster));
            let lookup = same.unwrap_or_else(|| {
                let client = self.clients.of(&dns.service);
                Lookup {
                    cluster: cluster.clone(),
                    task: tokio::task::spawn(look_up(cluster.clone(), client, self.found.clone())),
                }
            });
            self.lookups.insert(name, lookup);
        }
    }
}

/// The addresses of a name, whatever their port.
type Answers = HashMap<Arc<str>, Vec<IpAddr>>;

/// Looks up each name at its own pace: one that fails or takes long does not keep the others.
async fn look_up(cluster: Arc<Cluster>, client: Arc<Client>, found: mpsc::UnboundedSender<Resolved>) {
    let Discovery::Dns(dns) = &cluster.config.discovery else {
        return;
    };
    let (mut answers, mut told) = (Answers::new(), None);
    let names: BTreeSet<_> = names(&dns.endpoints).collect();
    let look = |name, before| looked_up(name, &client, dns, &cluster.stats, before);
    let mut lookups: FuturesUnordered<_> = names.into_iter().map(|name| look(name, None)).collect();
    while let Some(looked) = lookups.next().await {
        // After a failure the addresses stay.
        if let Some(found) = &looked.found {
            let addresses = addresses(found, dns.logical, answers.get(looked.name));
            if *answers.entry(looked.name.clone()).or_default() == addresses {
                cluster.stats.update_no_rebuild.fetch_add(1, Relaxed);
            }
            answers.insert(looked.name.clone(), addresses);
        }
        // As Envoy, what waits for the cluster does not wait for the last of its names.
        if told.as_ref() != Some(&answers) {
            let resolved = Resolved {
                cluster: cluster.config.name.clone(),
                endpoints: resolved(dns, &answers),
            };
            if found.send(resolved).is_err() {
                return;
            }
            told = Some(answers.clone());
        }
        lookups.push(look(looked.name, Some(looked)));
    }
}

/// The outcome of a look-up.
struct Looked<'a> {
    name: &'a Arc<str>,
    /// None: the look-up failed.
    found: Option<Vec<Found>>,
    /// Consecutive failures.
    failures: u32,
}

/// Looks up a name: at once, or when the outcome of the look-up before says so.
async fn looked_up<'a>(
    name: &'a Arc<str>,
    client: &Client,
    dns: &DnsConfig,
    stats: &ClusterStats,
    before: Option<Looked<'a>>,
) -> Looked<'a> {
    if let Some(before) = &before {
        tokio::time::sleep(pause(dns, before, fastrand::f64())).await;
    }
    stats.update_attempt.fetch_add(1, Relaxed);
    let mut found = client.lookup(name, dns.family).await;
    if dns.logical && found.as_ref().is_ok_and(Vec::is_empty) {
        // As Envoy: an empty answer does not remove a logical host.
        found = Err(LookupError::NoAddress);
    }
    if let Err(error) = &found {
        tracing::debug!(%name, %error, "failed to resolve a name");
    }
    let (counter, failures) = match &found {
        Ok(_) => (&stats.update_success, 0),
        Err(_) => (
            &stats.update_failure,
            before.map_or(0, |before| before.failures).saturating_add(1),
        ),
    };
    counter.fetch_add(1, Relaxed);
    Looked {
        name,
        found: found.ok(),
        failures,
    }
}

fn names(endpoints: &Endpoints) -> impl Iterator<Item = &Arc<str>> {
    let all = endpoints.localities.iter().flat_map(|group| &group.endpoints);
    all.filter_map(|endpoint| match &endpoint.target {
        Target::Name(name, _) => Some(name),
        Target::Address(_) => None,
    })
}

/// The hosts of a name: every address, or one of a logical host.
fn addresses(found: &[Found], logical: bool, before: Option<&Vec<IpAddr>>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = found.iter().map(|found| found.address).collect();
    if logical {
        return one_of(addresses, before);
    }
    // The order of records may change from answer to answer.
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The address that a logical name stands for: the one before as long as it is there, so that connections to it are kept
/// where the server takes turns with its answers; else the first.
fn one_of(mut found: Vec<IpAddr>, before: Option<&Vec<IpAddr>>) -> Vec<IpAddr> {
    let stays = before.filter(|before| !before.is_empty() && before.iter().all(|one| found.contains(one)));
    if let Some(before) = stays {
        return before.clone();
    }
    found.truncate(1);
    found
}

/// The endpoints with the addresses that are known, in the places of their names.
fn resolved(dns: &DnsConfig, answers: &Answers) -> Endpoints {
    let group = |group: &LocalityEndpoints| LocalityEndpoints {
        endpoints: group.endpoints.iter().flat_map(|one| places(one, answers)).collect(),
        ..group.clone()
    };
    Endpoints {
        localities: dns.endpoints.localities.iter().map(group).collect(),
        overprovisioning: dns.endpoints.overprovisioning,
    }
}

fn places(endpoint: &Endpoint, answers: &Answers) -> Vec<Endpoint> {
    let Target::Name(name, port) = &endpoint.target else {
        return vec![endpoint.clone()];
    };
    let found = answers.get(name).map_or(&[][..], Vec::as_slice);
    let at = |address: &IpAddr| Endpoint {
        target: Target::Address(HostAddress::Ip(SocketAddr::new(*address, *port))),
        hostname: endpoint.hostname.clone().or_else(|| Some(name.clone())),
        ..endpoint.clone()
    };
    found.iter().map(at).collect()
}

/// The time to the next look-up: TTL or refresh rate with jitter; after a failure an exponential back-off with full jitter.
fn pause(dns: &DnsConfig, before: &Looked<'_>, random: f64) -> Duration {
    let Some(found) = &before.found else {
        return dns
            .retry
            .map_or(dns.refresh, |retry| backoff(retry, before.failures, random));
    };
    time_to_live(dns, found).unwrap_or(dns.refresh) + dns.jitter.mul_f64(random)
}

/// The TTL of an answer, with `respect_dns_ttl`.
fn time_to_live(dns: &DnsConfig, found: &[Found]) -> Option<Duration> {
    let mut times = found.iter().map(|found| found.ttl);
    // A logical host is the first address.
    let least = if dns.logical { times.next() } else { times.min() };
    // As Envoy: a TTL of zero is none.
    let least = least.filter(|ttl| dns.respects_ttl && !ttl.is_zero())?;
    Some(least.max(dns.least_ttl))
}

fn backoff((base, max): (Duration, Duration), failures: u32, random: f64) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let longest = base.saturating_mul(factor).min(max.max(base));
    // Envoy's may be zero; a name that fails is not to cost more than one that does not.
    (base / 2).max(longest.mul_f64(random))
}

#[cfg(test)]
mod tests;
