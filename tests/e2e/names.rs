//! Hosts that are known by names: what a DNS server says of them, for how long it holds, and what remains when it says
//! nothing any more.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::alone::{Alone, http_listener, socket};
use super::harness::name_server::{A, AAAA, NameServer, Question, Reply};
use super::harness::{Backend, Network, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    answers_are_followed_within_their_ttl,
    the_shortest_ttl_holds,
    without_a_ttl_the_refresh_rate_holds,
    a_name_that_is_gone_takes_its_hosts_along,
    a_server_that_fails_keeps_hosts,
    a_server_that_is_silent_keeps_hosts,
    families_are_asked_for_one_after_the_other,
    localhost_is_of_both_families,
    servers_are_asked_by_tcp,
    the_next_server_is_asked,
    updates_are_counted,
}

/// The name of most hosts here. It has a dot at its end, so that nothing is searched for beside it.
const HOST: &str = "back.example.";
/// The same as servers are asked.
const ASKED: &str = "back.example";
/// The port of all hosts.
const PORT: u16 = 8080;

const CARES: &str = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const EXTENSION: &str = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster";

/// Two backends on addresses of their own, `one` and `two`.
async fn backends(network: &Network) -> [Backend; 2] {
    let [one, two] = [network.socket(PORT), network.socket(PORT)];
    [Backend::http_at(one, "one").await, Backend::http_at(two, "two").await]
}

fn ips<const N: usize>(backends: &[Backend; N]) -> [IpAddr; N] {
    backends.each_ref().map(|backend| backend.address().ip())
}

/// A data plane of some clusters that find this name by this server. The first part of a path is the cluster.
struct Names {
    alone: Alone,
    server: NameServer,
}

/// How a cluster looks names up: as one of `DnsCluster`, or by the older fields of its own.
#[derive(Clone, Copy)]
enum Form {
    Extension,
    Older,
}

/// A cluster with these options, which asks this server.
fn cluster(name: &str, form: Form, logical: bool, options: &Value, resolver: &Value) -> Value {
    let endpoint = json!({"socket_address": {"address": HOST, "port_value": PORT}});
    let mut cluster = json!({
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
        },
    });
    let resolver = json!({"name": "cares", "typed_config": resolver});
    match form {
        Form::Extension => {
            let mut options = with(
                options,
                &json!({"@type": EXTENSION, "typed_dns_resolver_config": resolver}),
            );
            if logical {
                options["all_addresses_in_single_endpoint"] = json!(true);
            }
            cluster["cluster_type"] = json!({"name": "envoy.cluster.dns", "typed_config": options});
            cluster
        }
        Form::Older => {
            cluster["type"] = json!(if logical { "LOGICAL_DNS" } else { "STRICT_DNS" });
            with(
                &with(&cluster, options),
                &json!({"typed_dns_resolver_config": resolver}),
            )
        }
    }
}

fn with(message: &Value, more: &Value) -> Value {
    let mut message = message.clone();
    let more = more.as_object().unwrap().clone();
    message.as_object_mut().unwrap().extend(more);
    message
}

/// The configuration of a resolver that asks these servers.
fn resolver(servers: &[&NameServer], more: &Value) -> Value {
    let servers: Vec<_> = servers.iter().map(|server| socket(server.address())).collect();
    with(&json!({"@type": CARES, "resolvers": servers}), more)
}

/// A cluster's name, its form, and whether it is a logical one.
type Kind = (&'static str, Form, bool);

const STRICT: [Kind; 2] = [("strict", Form::Extension, false), ("older", Form::Older, false)];
const LOGICAL: [Kind; 2] = [("logical", Form::Extension, true), ("old-logical", Form::Older, true)];

impl Names {
    /// One whose clusters have the same options, and whose server says this of the name at first.
    async fn start(which: Plane, kinds: &[Kind], options: Value, reply: Reply) -> Self {
        let server = NameServer::start().await;
        server.says(ASKED, reply);
        let options = with(&json!({"dns_lookup_family": "V4_ONLY"}), &options);
        let resolver = resolver(&[&server], &json!({"query_timeout_seconds": 1, "query_tries": 1}));
        let clusters = kinds
            .iter()
            .map(|(name, form, logical)| cluster(name, *form, *logical, &options, &resolver));
        let alone = serving(which, &clusters.collect::<Vec<_>>()).await;
        Self { alone, server }
    }

    /// Waits until requests of a cluster are answered by this backend, or not at all.
    async fn leads(&self, cluster: &str, backend: Option<&str>) {
        leads(&self.alone, cluster, backend).await;
    }

    /// What a cluster has counted by this name.
    async fn counted(&self, cluster: &str, counter: &str) -> u64 {
        counted(&self.alone, cluster, counter).await
    }

    /// Waits until each of the clusters has counted so many.
    async fn counts(&self, kinds: &[Kind], counter: &str, least: u64) {
        for (cluster, ..) in kinds {
            counts(&self.alone, cluster, counter, least).await;
        }
    }
}

async fn counted(alone: &Alone, cluster: &str, counter: &str) -> u64 {
    let name = format!("cluster.{cluster}.{counter}");
    alone.sidecar.stats(&format!("^{name}$")).await[&name]
}

async fn counts(alone: &Alone, cluster: &str, counter: &str, least: u64) {
    eventually(&format!("{cluster}: {least} of {counter}"), async || {
        let count = counted(alone, cluster, counter).await;
        (count >= least).then_some(()).ok_or_else(|| count.to_string())
    })
    .await;
}

async fn serving(which: Plane, clusters: &[Value]) -> Alone {
    let routes = clusters.iter().map(|cluster| {
        let name = cluster["name"].as_str().unwrap();
        json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name}})
    });
    let routes: Vec<_> = routes.collect();
    let listener = http_listener("in", "OUTBOUND", json!(routes), json!({}));
    let mut alone = Alone::start(which, &[listener], clusters, json!({})).await;
    // Envoy says so of the older fields.
    alone.sidecar.allow_log("Using deprecated option");
    alone
}

async fn leads(alone: &Alone, cluster: &str, backend: Option<&str>) {
    let call = get(alone.listener(0), "web", &format!("/{cluster}"));
    eventually(&format!("{cluster} leads to {backend:?}"), async || {
        let answer = call.send().await?;
        let found = (answer.status == 200).then(|| answer.seen().backend);
        (found.as_deref() == backend)
            .then_some(())
            .ok_or_else(|| format!("{} {}", answer.status, answer.text()))
    })
    .await;
}

/// Addresses with this time to live, in seconds.
fn addresses(ips: &[IpAddr], ttl: u32) -> Reply {
    Reply::Addresses(ips.iter().map(|ip| (*ip, ttl)).collect())
}

/// Long enough that a test never waits for it.
const LONG: &str = "600s";

/// Long enough for what lives a second to be asked for again.
const WHILE: Duration = Duration::from_millis(2500);

async fn answers_are_followed_within_their_ttl(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, two] = ips(&backends);
    let kinds = [STRICT, LOGICAL].concat();
    let options = json!({"respect_dns_ttl": true, "dns_refresh_rate": LONG, "dns_jitter": "0.1s"});
    let names = Names::start(which, &kinds, options, addresses(&[one], 1)).await;
    for (cluster, ..) in &kinds {
        names.leads(cluster, Some("one")).await;
    }
    names.server.leads(ASKED, &[two], 600);
    for (cluster, ..) in &kinds {
        names.leads(cluster, Some("two")).await;
    }
    // And now it lives for long.
    let before = names.counted("strict", "update_attempt").await;
    names.server.leads(ASKED, &[one], 1);
    tokio::time::sleep(WHILE).await;
    assert_eq!(names.counted("strict", "update_attempt").await, before);
}

async fn the_shortest_ttl_holds(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, two] = ips(&backends);
    let options = json!({"respect_dns_ttl": true, "dns_refresh_rate": LONG});
    // Of several addresses a cluster of each goes by the least, one of a single address by the first.
    let both = Reply::Addresses(vec![(one, 600), (two, 1)]);
    let kinds = [STRICT, LOGICAL].concat();
    let names = Names::start(which, &kinds, options.clone(), both).await;
    names.counts(&STRICT, "update_success", 2).await;
    for (cluster, ..) in LOGICAL {
        assert_eq!(names.counted(cluster, "update_success").await, 1, "{cluster}");
    }
    // An alias that is to live shorter than what it leads to counts, too.
    let names = Names::start(which, &kinds, options, Reply::Alias(1, vec![(one, 600)])).await;
    names.counts(&kinds, "update_success", 2).await;
    names.leads("strict", Some("one")).await;
}

async fn without_a_ttl_the_refresh_rate_holds(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    // Not asked for.
    let names = Names::start(which, &STRICT, json!({"dns_refresh_rate": LONG}), addresses(&[one], 1)).await;
    names.leads("strict", Some("one")).await;
    tokio::time::sleep(WHILE).await;
    for (cluster, ..) in STRICT {
        assert_eq!(names.counted(cluster, "update_attempt").await, 1, "{cluster}");
    }
    // None: it is no reason to ask without end.
    let kinds = [STRICT, LOGICAL].concat();
    let options = json!({"respect_dns_ttl": true, "dns_refresh_rate": "1s"});
    let names = Names::start(which, &kinds, options, addresses(&[one], 0)).await;
    names.counts(&kinds, "update_success", 3).await;
    let attempts = names.counted("strict", "update_attempt").await;
    assert!(attempts < 30, "{attempts}");
}

async fn a_name_that_is_gone_takes_its_hosts_along(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    let kinds = [STRICT, LOGICAL].concat();
    let options = json!({"dns_refresh_rate": "0.2s", "dns_failure_refresh_rate": {"base_interval": "0.2s"}});
    let names = Names::start(which, &kinds, options, addresses(&[one], 600)).await;
    let empty = || names.server.says(ASKED, Reply::Addresses(Vec::new()));
    let gone = || names.server.forgets(ASKED);
    for goes in [&gone as &dyn Fn(), &empty] {
        names.server.leads(ASKED, &[one], 600);
        for (cluster, ..) in &kinds {
            names.leads(cluster, Some("one")).await;
        }
        let before = names.counted("logical", "update_failure").await;
        goes();
        for (cluster, ..) in STRICT {
            names.leads(cluster, None).await;
            assert_eq!(names.counted(cluster, "membership_total").await, 0, "{cluster}");
            assert_eq!(names.counted(cluster, "update_failure").await, 0, "{cluster}");
        }
        // A logical host stays where it was.
        names.counts(&LOGICAL, "update_failure", before + 2).await;
        for (cluster, ..) in LOGICAL {
            names.leads(cluster, Some("one")).await;
        }
    }
}

async fn a_server_that_fails_keeps_hosts(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, two] = ips(&backends);
    let kinds = [STRICT, LOGICAL].concat();
    let options = json!({"dns_refresh_rate": "0.2s", "dns_failure_refresh_rate": {"base_interval": "0.2s", "max_interval": "0.4s"}});
    let names = Names::start(which, &kinds, options, addresses(&[one], 600)).await;
    for (cluster, ..) in &kinds {
        names.leads(cluster, Some("one")).await;
    }
    names.server.says(ASKED, Reply::Broken(&[A], Vec::new()));
    names.counts(&kinds, "update_failure", 2).await;
    for (cluster, ..) in &kinds {
        names.leads(cluster, Some("one")).await;
    }
    names.server.leads(ASKED, &[two], 600);
    for (cluster, ..) in &kinds {
        names.leads(cluster, Some("two")).await;
    }
}

async fn a_server_that_is_silent_keeps_hosts(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, two] = ips(&backends);
    let options = json!({"dns_refresh_rate": "0.2s", "dns_failure_refresh_rate": {"base_interval": "0.2s", "max_interval": "0.4s"}});
    let names = Names::start(which, &STRICT, options, addresses(&[one], 600)).await;
    names.leads("strict", Some("one")).await;
    names.server.says(ASKED, Reply::Silence);
    // The one try that there is lasts a second.
    names.counts(&STRICT, "update_failure", 1).await;
    names.leads("strict", Some("one")).await;
    names.server.leads(ASKED, &[two], 600);
    names.leads("strict", Some("two")).await;
}

/// What a plane asks, in which order, and whether it has hosts in the end.
async fn families_are_asked_for_one_after_the_other(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    let v4 = (one, 600);
    let v6 = ("::1".parse().unwrap(), 600);
    let both = || Reply::Addresses(vec![v4, v6]);
    let only = |address| Reply::Addresses(vec![address]);
    for (family, reply, asked, hosts, failures) in [
        ("V4_ONLY", both(), vec![A], 1, 0),
        ("V6_ONLY", both(), vec![AAAA], 1, 0),
        ("V6_ONLY", only(v4), vec![AAAA], 0, 0),
        ("AUTO", both(), vec![AAAA], 1, 0),
        ("AUTO", only(v4), vec![AAAA, A], 1, 0),
        ("V4_PREFERRED", both(), vec![A], 1, 0),
        ("V4_PREFERRED", only(v6), vec![A, AAAA], 1, 0),
        ("ALL", both(), vec![A, AAAA], 2, 0),
        ("ALL", only(v4), vec![A, AAAA], 1, 0),
        // What one of the two has to say counts, but not that it has nothing to say.
        ("AUTO", Reply::Broken(&[AAAA], vec![v4]), vec![AAAA, A], 1, 0),
        ("AUTO", Reply::Broken(&[A], vec![]), vec![AAAA, A], 0, 1),
        ("AUTO", Reply::Broken(&[AAAA], vec![]), vec![AAAA, A], 0, 1),
        ("ALL", Reply::Broken(&[AAAA], vec![v4]), vec![A, AAAA], 1, 0),
    ] {
        let shown = format!("{family}, {reply:?}");
        let options = json!({"dns_lookup_family": family, "dns_refresh_rate": LONG});
        let names = Names::start(which, &STRICT[..1], options, reply).await;
        let counter = if failures == 0 {
            "update_success"
        } else {
            "update_failure"
        };
        names.counts(&STRICT[..1], counter, 1).await;
        let mut kinds: Vec<_> = names.server.asked(ASKED).iter().map(|asked| asked.kind).collect();
        if family == "ALL" {
            kinds.sort_unstable();
        }
        // A question may be lost and repeated.
        kinds.dedup();
        assert_eq!(kinds, asked, "{shown}");
        assert_eq!(names.counted("strict", "membership_total").await, hosts, "{shown}");
        assert_eq!(names.counted("strict", "update_failure").await, failures, "{shown}");
        assert_eq!(names.counted("strict", "update_success").await, 1 - failures, "{shown}");
    }
}

/// Whatever `/etc/hosts` says of it: that of the machine that this was found on knew `127.0.0.1` alone.
async fn localhost_is_of_both_families(which: Plane) {
    let server = NameServer::start().await;
    let options = json!({"dns_lookup_family": "ALL", "dns_refresh_rate": LONG});
    let resolver = resolver(&[&server], &json!({}));
    let mut local = cluster("local", Form::Extension, false, &options, &resolver);
    let endpoint = &mut local["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    endpoint["address"]["socket_address"]["address"] = json!("localhost");
    let alone = serving(which, &[local]).await;
    counts(&alone, "local", "update_success", 1).await;
    let hosts = alone.sidecar.admin("/clusters").await;
    for address in ["127.0.0.1", "[::1]"] {
        assert!(hosts.contains(&format!("local::{address}:{PORT}::")), "{hosts}");
    }
}

async fn servers_are_asked_by_tcp(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    let server = NameServer::start().await;
    server.leads(ASKED, &[one], 600);
    let options = json!({"dns_resolver_options": {"use_tcp_for_dns_lookups": true, "no_default_search_domain": true}});
    let lookup = json!({"dns_lookup_family": "V4_ONLY", "dns_refresh_rate": LONG});
    let cluster = cluster(
        "strict",
        Form::Extension,
        false,
        &lookup,
        &resolver(&[&server], &options),
    );
    let alone = serving(which, &[cluster]).await;
    leads(&alone, "strict", Some("one")).await;
    let asked = Question {
        name: ASKED.into(),
        kind: A,
        tcp: true,
    };
    assert_eq!(server.asked(ASKED), [asked]);
}

async fn the_next_server_is_asked(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    let [first, second] = [NameServer::start().await, NameServer::start().await];
    second.leads(ASKED, &[one], 600);
    for reply in [Reply::Silence, Reply::Broken(&[A], Vec::new())] {
        first.says(ASKED, reply);
        let patience = json!({"query_timeout_seconds": 1, "query_tries": 2});
        let lookup = json!({"dns_lookup_family": "V4_ONLY", "dns_refresh_rate": LONG});
        let resolver = resolver(&[&first, &second], &patience);
        let alone = serving(which, &[cluster("strict", Form::Extension, false, &lookup, &resolver)]).await;
        leads(&alone, "strict", Some("one")).await;
    }
    // One that knows that there is nothing is believed.
    first.forgets(ASKED);
    let lookup = json!({"dns_lookup_family": "V4_ONLY", "dns_refresh_rate": LONG});
    let resolver = resolver(&[&first, &second], &json!({}));
    let alone = serving(which, &[cluster("strict", Form::Extension, false, &lookup, &resolver)]).await;
    counts(&alone, "strict", "update_success", 1).await;
    leads(&alone, "strict", None).await;
}

async fn updates_are_counted(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    let kinds = [STRICT, LOGICAL].concat();
    let options = json!({"dns_refresh_rate": LONG});
    let names = Names::start(which, &kinds, options, addresses(&[one], 600)).await;
    names.counts(&kinds, "update_success", 1).await;
    for (cluster, ..) in &kinds {
        let counted = names.alone.sidecar.stats(&format!("^cluster.{cluster}.update_")).await;
        let expected = [
            ("update_attempt", 1),
            ("update_empty", 0),
            ("update_failure", 0),
            ("update_no_rebuild", 0),
            ("update_success", 1),
        ];
        let expected = expected.map(|(name, count)| (format!("cluster.{cluster}.{name}"), count));
        assert_eq!(counted, expected.into());
    }
    // The same once more changes nothing.
    let options = json!({"dns_refresh_rate": "0.2s"});
    let names = Names::start(which, &kinds, options, addresses(&[one], 600)).await;
    for (cluster, ..) in &kinds {
        counts(&names.alone, cluster, "update_no_rebuild", 1).await;
        let before = names.counted(cluster, "membership_change").await;
        counts(&names.alone, cluster, "update_no_rebuild", 3).await;
        assert_eq!(names.counted(cluster, "membership_change").await, before, "{cluster}");
    }
}
