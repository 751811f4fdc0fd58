//! Names of endpoints, looked up again and again on the control thread.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::cluster::{Cluster, Discovery, DnsConfig, DnsFamily};
use super::host::{Endpoint, Endpoints, HostAddress, LocalityEndpoints, Target};

/// The addresses behind a cluster's names.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The cluster.
    pub(crate) cluster: Arc<str>,
    /// Its endpoints, each with the addresses in the place of its name.
    pub(crate) endpoints: Endpoints,
}

/// Looks up the names of clusters.
#[derive(Debug)]
pub(crate) struct Resolver {
    lookups: HashMap<Arc<str>, Lookup>,
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
            found,
        };
        (resolver, receive)
    }

    /// Looks up the names of these clusters from now on, and of no others.
    pub(crate) fn watch<'a>(&mut self, clusters: impl IntoIterator<Item = &'a Arc<Cluster>>) {
        let mut before = std::mem::take(&mut self.lookups);
        for cluster in clusters {
            if !matches!(cluster.config.discovery, Discovery::Dns(_)) {
                continue;
            }
            let name = cluster.config.name.clone();
            let same = before
                .remove(&name)
                .filter(|lookup| Arc::ptr_eq(&lookup.cluster, cluster));
            let lookup = same.unwrap_or_else(|| Lookup {
                cluster: cluster.clone(),
                task: tokio::task::spawn(look_up(cluster.clone(), self.found.clone())),
            });
            self.lookups.insert(name, lookup);
        }
    }
}

/// The addresses of a name, whatever their port.
type Answers = HashMap<Arc<str>, Vec<IpAddr>>;

/// Looks up each name at its own pace: one that fails or takes long does not keep the others.
async fn look_up(cluster: Arc<Cluster>, found: mpsc::UnboundedSender<Resolved>) {
    let Discovery::Dns(dns) = &cluster.config.discovery else {
        return;
    };
    let (mut answers, mut told) = (Answers::new(), None);
    let names: BTreeSet<_> = names(&dns.endpoints).collect();
    let mut lookups: FuturesUnordered<_> = names.into_iter().map(|name| looked_up(name, dns, None)).collect();
    while let Some(Looked {
        name,
        found: addresses,
        failures,
    }) = lookups.next().await
    {
        // What a name that fails has stood for stays.
        if let Some(mut addresses) = addresses {
            if dns.logical {
                addresses = one_of(addresses, answers.get(name));
            }
            answers.insert(name.clone(), addresses);
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
        lookups.push(looked_up(name, dns, Some(failures)));
    }
}

/// What has come of looking up a name.
struct Looked<'a> {
    name: &'a Arc<str>,
    /// None: it cannot be looked up.
    found: Option<Vec<IpAddr>>,
    /// How often that was so, one time after the other.
    failures: u32,
}

/// Looks up a name: at once, or as long after the time before as the failures so far say.
async fn looked_up<'a>(name: &'a Arc<str>, dns: &DnsConfig, before: Option<u32>) -> Looked<'a> {
    if let Some(failures) = before {
        tokio::time::sleep(pause(dns, failures, fastrand::f64())).await;
    }
    let found = addresses(name, dns).await;
    if let Err(error) = &found {
        tracing::debug!(%name, %error, "a name cannot be looked up");
    }
    let failures = if found.is_ok() {
        0
    } else {
        before.unwrap_or(0).saturating_add(1)
    };
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

/// By the system's resolver, which knows `/etc/hosts`, on a thread that may block.
async fn addresses(name: &str, dns: &DnsConfig) -> io::Result<Vec<IpAddr>> {
    let found = lookup_host((name, 0)).await?;
    let mut found = wanted(found.map(|address| address.ip()).collect(), dns.family);
    // Where all are used, their order is to last.
    if !dns.logical {
        found.sort_unstable();
        found.dedup();
    }
    Ok(found)
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

/// The addresses of the wanted sort.
fn wanted(found: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_ipv4);
    match family {
        DnsFamily::V4 => v4,
        DnsFamily::V6 => v6,
        DnsFamily::V6First if v6.is_empty() => v4,
        DnsFamily::V6First => v6,
        DnsFamily::V4First if v4.is_empty() => v6,
        DnsFamily::V4First => v4,
        DnsFamily::All => [v4, v6].concat(),
    }
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

/// How long to wait: the refresh time and a random part of the jitter, or after failures a random part of a time that
/// doubles.
fn pause(dns: &DnsConfig, failures: u32, random: f64) -> Duration {
    if failures == 0 {
        return dns.refresh + dns.jitter.mul_f64(random);
    }
    let (base, max) = dns.retry;
    let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
    let longest = base.saturating_mul(factor).min(max.max(base));
    // At least a bit, so that a name which cannot be looked up costs no more than one that can.
    (base / 2).max(longest.mul_f64(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::balance::testing::{cluster, cluster_config, named};

    fn dns(names: &[&str], family: DnsFamily, logical: bool) -> DnsConfig {
        DnsConfig {
            logical,
            refresh: Duration::from_secs(5),
            jitter: Duration::from_millis(500),
            retry: (Duration::from_secs(2), Duration::from_secs(6)),
            family,
            endpoints: named(names),
        }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_are_chosen_as_envoy_chooses_them() {
        let both = || ips(&["::1", "127.0.0.2", "127.0.0.1"]);
        assert_eq!(wanted(both(), DnsFamily::V4), ips(&["127.0.0.2", "127.0.0.1"]));
        assert_eq!(wanted(both(), DnsFamily::V6), ips(&["::1"]));
        assert_eq!(wanted(both(), DnsFamily::V6First), ips(&["::1"]));
        assert_eq!(wanted(both(), DnsFamily::V4First), ips(&["127.0.0.2", "127.0.0.1"]));
        assert_eq!(wanted(both(), DnsFamily::All).len(), 3);
        assert_eq!(wanted(ips(&["::1"]), DnsFamily::V4First), ips(&["::1"]));
        assert_eq!(wanted(ips(&["::1"]), DnsFamily::V4), ips(&[]));
    }

    #[test]
    fn an_endpoint_stands_wherever_its_name_leads() {
        let answers = Answers::from([("a.example".into(), ips(&["10.0.0.1", "10.0.0.2"]))]);
        let dns = dns(&["a.example", "unknown.example"], DnsFamily::All, false);
        let endpoints = resolved(&dns, &answers);
        let all = endpoints.localities.into_iter().flat_map(|group| group.endpoints);
        let found: Vec<_> = all.map(|one| (one.target, one.hostname)).collect();
        let at = |text: &str| {
            let target = Target::Address(HostAddress::Ip(text.parse().unwrap()));
            (target, Some(Arc::from("a.example")))
        };
        assert_eq!(found, [at("10.0.0.1:80"), at("10.0.0.2:80")]);
    }

    #[test]
    fn a_logical_name_keeps_its_address_as_long_as_it_leads_there() {
        let first = one_of(ips(&["10.0.0.2", "10.0.0.1"]), None);
        assert_eq!(first, ips(&["10.0.0.2"]));
        assert_eq!(one_of(ips(&["10.0.0.1", "10.0.0.2"]), Some(&first)), first);
        assert_eq!(one_of(ips(&["10.0.0.1"]), Some(&first)), ips(&["10.0.0.1"]));
        assert_eq!(one_of(ips(&[]), Some(&first)), ips(&[]));
        assert_eq!(one_of(ips(&["10.0.0.1"]), Some(&ips(&[]))), ips(&["10.0.0.1"]));
    }

    #[test]
    fn failures_are_repeated_after_longer_and_longer_times() {
        let dns = dns(&[], DnsFamily::All, false);
        let longest: Vec<_> = (0..5).map(|failures| pause(&dns, failures, 1.0).as_secs()).collect();
        assert_eq!(pause(&dns, 0, 0.5), Duration::from_millis(5250));
        assert_eq!(longest, [5, 2, 4, 6, 6]);
        assert_eq!(pause(&dns, 3, 0.0), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_cannot_be_looked_up_is_tried_again_at_its_own_pace() {
        let dns = dns(&[], DnsFamily::V4, false);
        let (good, bad) = ("localhost".into(), "does-not-exist.invalid".into());
        let looked = looked_up(&good, &dns, Some(3)).await;
        assert_eq!((looked.found, looked.failures), (Some(ips(&["127.0.0.1"])), 0));
        let looked = looked_up(&bad, &dns, Some(3)).await;
        assert_eq!((looked.found, looked.failures), (None, 4));
    }

    #[tokio::test]
    async fn clusters_are_looked_up_while_they_are_watched() {
        let of = |names: &[&str]| {
            let mut config = cluster_config();
            config.discovery = Discovery::Dns(dns(names, DnsFamily::V4, false));
            cluster(config, &Endpoints::default(), Default::default())
        };
        let (mut resolver, mut found) = Resolver::new();
        let known = of(&["localhost"]);
        resolver.watch([&known]);
        let first = found.recv().await.unwrap();
        known.put_endpoints(&first.endpoints, std::time::Instant::now());
        assert_eq!(known.hosts.load().hosts[0].address.to_string(), "127.0.0.1:80");
        // A cluster whose name is unknown need not be waited for, and keeps no other.
        let none = |resolved: &Resolved| {
            resolved
                .endpoints
                .localities
                .iter()
                .all(|group| group.endpoints.is_empty())
        };
        resolver.watch([&of(&["does-not-exist.invalid"])]);
        assert!(none(&found.recv().await.unwrap()));
        resolver.watch([&of(&["does-not-exist.invalid", "localhost"])]);
        while none(&found.recv().await.unwrap()) {}
        assert_eq!(resolver.lookups.len(), 1);
        resolver.watch([]);
        assert!(resolver.lookups.is_empty());
    }
}
