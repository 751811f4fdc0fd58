//! Clusters with DNS names (STRICT_DNS, LOGICAL_DNS, `DnsCluster`): refresh, TTL, address families and failures.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::alone::{Alone, http_listener, socket};
use super::harness::name_server::{A, AAAA, NameServer, Question, Reply};
use super::harness::{Backend, Network, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    dns_answers_are_refreshed_when_their_ttl_expires,
    the_shortest_ttl_decides_the_refresh_interval,
    the_refresh_rate_applies_without_a_usable_ttl,
    nxdomain_and_empty_answers_remove_strict_dns_hosts,
    dns_failures_keep_the_hosts,
    dns_timeouts_keep_the_hosts,
    lookup_families_are_queried_in_order,
    localhost_resolves_to_both_address_families,
    dns_over_tcp_is_used_when_configured,
    the_next_server_is_queried_after_a_failure,
    dns_updates_are_counted,
}

/// The name of most hosts here, with a trailing dot so that no search domains are tried.
const HOST: &str = "back.example.";
/// The same name in DNS queries.
const ASKED: &str = "back.example";
/// The port of all hosts.
const PORT: u16 = 8080;

const CARES: &str = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const EXTENSION: &str = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster";

/// Two backends with different addresses, `one` and `two`.
async fn backends(network: &Network) -> [Backend; 2] {
    let [one, two] = [network.socket(PORT), network.socket(PORT)];
    [Backend::http_at(one, "one").await, Backend::http_at(two, "two").await]
}

fn ips<const N: usize>(backends: &[Backend; N]) -> [IpAddr; N] {
    backends.each_ref().map(|backend| backend.address().ip())
}

/// A data plane whose clusters resolve the name with this server. The path of a request is the cluster.
struct Names {
    alone: Alone,
    server: NameServer,
}

/// How a cluster configures DNS: with `DnsCluster`, or with the older fields of the cluster itself.
#[derive(Clone, Copy)]
enum Form {
    Extension,
    Older,
}

/// A DNS cluster with these options and this resolver.
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

/// The configuration of a c-ares resolver with these servers.
fn resolver(servers: &[&NameServer], more: &Value) -> Value {
    let servers: Vec<_> = servers.iter().map(|server| socket(server.address())).collect();
    with(&json!({"@type": CARES, "resolvers": servers}), more)
}

/// A cluster's name, its form, and whether it is logical DNS.
type Kind = (&'static str, Form, bool);

const STRICT: [Kind; 2] = [("strict", Form::Extension, false), ("older", Form::Older, false)];
const LOGICAL: [Kind; 2] = [("logical", Form::Extension, true), ("old-logical", Form::Older, true)];

impl Names {
    /// Starts a data plane whose clusters have the same options, and a server with this initial reply.
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

    /// Waits until requests to a cluster are answered by this backend, or by none.
    async fn leads(&self, cluster: &str, backend: Option<&str>) {
        leads(&self.alone, cluster, backend).await;
    }

    /// The value of a counter of a cluster.
    async fn counted(&self, cluster: &str, counter: &str) -> u64 {
        counted(&self.alone, cluster, counter).await
    }

    /// Waits until a counter of each of the clusters has this value at least.
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
    // Envoy warns about the older fields.
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

/// A reply with these addresses and this TTL in seconds.
fn addresses(ips: &[IpAddr], ttl: u32) -> Reply {
    Reply::Addresses(ips.iter().map(|ip| (*ip, ttl)).collect())
}

/// Longer than any test takes.
const LONG: &str = "600s";

/// Long enough for a refresh after a TTL of one second.
const WHILE: Duration = Duration::from_millis(2500);

async fn dns_answers_are_refreshed_when_their_ttl_expires(which: Plane) {
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
    // The second answer has a long TTL.
    let before = names.counted("strict", "update_attempt").await;
    names.server.leads(ASKED, &[one], 1);
    tokio::time::sleep(WHILE).await;
    assert_eq!(names.counted("strict", "update_attempt").await, before);
}

async fn the_shortest_ttl_decides_the_refresh_interval(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, two] = ips(&backends);
    let options = json!({"respect_dns_ttl": true, "dns_refresh_rate": LONG});
    // With several addresses, strict DNS uses the shortest TTL, and logical DNS that of the first address.
    let both = Reply::Addresses(vec![(one, 600), (two, 1)]);
    let kinds = [STRICT, LOGICAL].concat();
    let names = Names::start(which, &kinds, options.clone(), both).await;
    names.counts(&STRICT, "update_success", 2).await;
    for (cluster, ..) in LOGICAL {
        assert_eq!(names.counted(cluster, "update_success").await, 1, "{cluster}");
    }
    // The TTL of a CNAME counts, too.
    let names = Names::start(which, &kinds, options, Reply::Alias(1, vec![(one, 600)])).await;
    names.counts(&kinds, "update_success", 2).await;
    names.leads("strict", Some("one")).await;
}

async fn the_refresh_rate_applies_without_a_usable_ttl(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, _] = ips(&backends);
    // `respect_dns_ttl` is off.
    let names = Names::start(which, &STRICT, json!({"dns_refresh_rate": LONG}), addresses(&[one], 1)).await;
    names.leads("strict", Some("one")).await;
    tokio::time::sleep(WHILE).await;
    for (cluster, ..) in STRICT {
        assert_eq!(names.counted(cluster, "update_attempt").await, 1, "{cluster}");
    }
    // A TTL of zero does not lead to endless queries.
    let kinds = [STRICT, LOGICAL].concat();
    let options = json!({"respect_dns_ttl": true, "dns_refresh_rate": "1s"});
    let names = Names::start(which, &kinds, options, addresses(&[one], 0)).await;
    names.counts(&kinds, "update_success", 3).await;
    let attempts = names.counted("strict", "update_attempt").await;
    assert!(attempts < 30, "{attempts}");
}

async fn nxdomain_and_empty_answers_remove_strict_dns_hosts(which: Plane) {
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
        // Logical DNS keeps its address.
        names.counts(&LOGICAL, "update_failure", before + 2).await;
        for (cluster, ..) in LOGICAL {
            names.leads(cluster, Some("one")).await;
        }
    }
}

async fn dns_failures_keep_the_hosts(which: Plane) {
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

async fn dns_timeouts_keep_the_hosts(which: Plane) {
    let network = Network::take();
    let backends = backends(&network).await;
    let [one, two] = ips(&backends);
    let options = json!({"dns_refresh_rate": "0.2s", "dns_failure_refresh_rate": {"base_interval": "0.2s", "max_interval": "0.4s"}});
    let names = Names::start(which, &STRICT, options, addresses(&[one], 600)).await;
    names.leads("strict", Some("one")).await;
    names.server.says(ASKED, Reply::Silence);
    // The only try times out after a second.
    names.counts(&STRICT, "update_failure", 1).await;
    names.leads("strict", Some("one")).await;
    names.server.leads(ASKED, &[two], 600);
    names.leads("strict", Some("two")).await;
}

/// The query types of each lookup family, their order, and the number of resulting hosts.
async fn lookup_families_are_queried_in_order(which: Plane) {
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
        // The addresses of one family are used if the query for the other fails; an empty answer alone is not enough.
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
        // A query may be lost and repeated.
        kinds.dedup();
        assert_eq!(kinds, asked, "{shown}");
        assert_eq!(names.counted("strict", "membership_total").await, hosts, "{shown}");
        assert_eq!(names.counted("strict", "update_failure").await, failures, "{shown}");
        assert_eq!(names.counted("strict", "update_success").await, 1 - failures, "{shown}");
    }
}

/// Even if `/etc/hosts` has only `127.0.0.1` for it.
async fn localhost_resolves_to_both_address_families(which: Plane) {
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

async fn dns_over_tcp_is_used_when_configured(which: Plane) {
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

async fn the_next_server_is_queried_after_a_failure(which: Plane) {
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
    // NXDOMAIN is final.
    first.forgets(ASKED);
    let lookup = json!({"dns_lookup_family": "V4_ONLY", "dns_refresh_rate": LONG});
    let resolver = resolver(&[&first, &second], &json!({}));
    let alone = serving(which, &[cluster("strict", Form::Extension, false, &lookup, &resolver)]).await;
    counts(&alone, "strict", "update_success", 1).await;
    leads(&alone, "strict", None).await;
}

async fn dns_updates_are_counted(which: Plane) {
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
    // The same answer again changes nothing.
    let options = json!({"dns_refresh_rate": "0.2s"});
    let names = Names::start(which, &kinds, options, addresses(&[one], 600)).await;
    for (cluster, ..) in &kinds {
        counts(&names.alone, cluster, "update_no_rebuild", 1).await;
        let before = names.counted(cluster, "membership_change").await;
        counts(&names.alone, cluster, "update_no_rebuild", 3).await;
        assert_eq!(names.counted(cluster, "membership_change").await, before, "{cluster}");
    }
}
