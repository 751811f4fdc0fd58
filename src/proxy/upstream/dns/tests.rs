//! When names are looked up, and what they stand for.

use super::testing::nowhere;
use super::*;
use crate::proxy::upstream::balance::testing::{cluster, cluster_config, named};
use crate::proxy::upstream::cluster::DnsFamily;

fn dns(names: &[&str], logical: bool) -> DnsConfig {
    DnsConfig {
        logical,
        refresh: Duration::from_secs(5),
        respects_ttl: true,
        least_ttl: Duration::ZERO,
        jitter: Duration::from_millis(500),
        retry: Some((Duration::from_secs(2), Duration::from_secs(6))),
        family: DnsFamily::V4,
        service: nowhere(),
        endpoints: named(names),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn found(of: &[(&str, u64)]) -> Vec<Found> {
    let found = of.iter().map(|(address, ttl)| Found {
        address: address.parse().unwrap(),
        ttl: Duration::from_secs(*ttl),
    });
    found.collect()
}

#[test]
fn an_endpoint_stands_wherever_its_name_leads() {
    let answers = Answers::from([("a.example".into(), ips(&["10.0.0.1", "10.0.0.2"]))]);
    let dns = dns(&["a.example", "unknown.example"], false);
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
fn the_order_of_an_answer_does_not_matter() {
    let found = found(&[("10.0.0.2", 1), ("10.0.0.1", 1), ("10.0.0.2", 1)]);
    assert_eq!(addresses(&found, false, None), ips(&["10.0.0.1", "10.0.0.2"]));
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

/// How long a name waits after this.
fn after(dns: &DnsConfig, found: Option<Vec<Found>>, failures: u32, random: f64) -> f64 {
    let name = "a.example".into();
    let before = Looked {
        name: &name,
        found,
        failures,
    };
    pause(dns, &before, random).as_secs_f64()
}

#[test]
fn an_answer_holds_for_its_time_to_live() {
    let (mut strict, mut logical) = (dns(&[], false), dns(&[], true));
    let two = || Some(found(&[("10.0.0.1", 30), ("10.0.0.2", 10)]));
    assert_eq!(after(&strict, two(), 0, 0.0), 10.0);
    assert_eq!(after(&logical, two(), 0, 1.0), 30.5);
    // What has none is asked for as often as any other.
    assert_eq!(after(&strict, Some(found(&[("10.0.0.1", 0)])), 0, 0.5), 5.25);
    assert_eq!(after(&strict, Some(Vec::new()), 0, 0.0), 5.0);
    strict.least_ttl = Duration::from_secs(20);
    assert_eq!(after(&strict, two(), 0, 0.0), 20.0);
    logical.respects_ttl = false;
    assert_eq!(after(&logical, two(), 0, 0.0), 5.0);
}

#[test]
fn failures_are_repeated_after_longer_and_longer_times() {
    let mut dns = dns(&[], false);
    let longest: Vec<_> = (1..5).map(|failures| after(&dns, None, failures, 1.0)).collect();
    assert_eq!(longest, [2.0, 4.0, 6.0, 6.0]);
    assert_eq!(after(&dns, None, 3, 0.0), 1.0);
    // Or as often as otherwise, where nothing is said of failures.
    dns.retry = None;
    assert_eq!(after(&dns, None, 3, 1.0), 5.0);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_looked_up_is_tried_again_at_its_own_pace() {
    let dns = dns(&[], false);
    let (good, bad) = ("localhost".into(), "a.example".into());
    let client = Clients::default().of(&dns.service);
    let stats = ClusterStats::default();
    let before = |name| {
        Some(Looked {
            name,
            found: None,
            failures: 3,
        })
    };
    let looked = looked_up(&good, &client, &dns, &stats, before(&good)).await;
    assert_eq!((looked.found, looked.failures), (Some(found(&[("127.0.0.1", 0)])), 0));
    let looked = looked_up(&bad, &client, &dns, &stats, before(&bad)).await;
    assert_eq!((looked.found, looked.failures), (None, 4));
    let counted = [&stats.update_attempt, &stats.update_success, &stats.update_failure];
    assert_eq!(counted.map(|counter| counter.load(Relaxed)), [2, 1, 1]);
}

#[tokio::test]
async fn clusters_are_looked_up_while_they_are_watched() {
    let of = |names: &[&str]| {
        let mut config = cluster_config();
        config.discovery = Discovery::Dns(dns(names, false));
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
    resolver.watch([&of(&["a.example"])]);
    assert!(none(&found.recv().await.unwrap()));
    resolver.watch([&of(&["a.example", "localhost"])]);
    while none(&found.recv().await.unwrap()) {}
    assert_eq!(resolver.lookups.len(), 1);
    resolver.watch([]);
    assert!(resolver.lookups.is_empty());
}
