//! Orders of events, and what is in force after each.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::xds::transcode::to_wire;

fn wire(name: &str, json: &Value) -> Bytes {
    to_wire(name, json).unwrap().into()
}

fn eds_cluster(name: &str, more: Value) -> Bytes {
    let mut json = json!({
        "name": name, "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}, "initial_fetch_timeout": "2s"}},
    });
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    wire("envoy.config.cluster.v3.Cluster", &json)
}

fn endpoints(name: &str, ports: &[u16]) -> Bytes {
    let all: Vec<_> = ports
        .iter()
        .map(|port| json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}))
        .collect();
    let json = json!({"cluster_name": name, "endpoints": [{"lb_endpoints": all}]});
    wire("envoy.config.endpoint.v3.ClusterLoadAssignment", &json)
}

/// A listener that forwards bytes to a cluster.
pub(crate) fn tcp_listener(name: &str, port: u16, cluster: &str) -> Bytes {
    listener(name, port, &[tcp_chain("", cluster)])
}

/// A chain for connections with its name as server name.
fn named_chain(name: &str, cluster: &str) -> Value {
    let mut chain = tcp_chain(name, cluster);
    chain["filter_chain_match"] = json!({"server_names": [name]});
    chain
}

fn tcp_chain(name: &str, cluster: &str) -> Value {
    json!({"name": name, "filters": [{"name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t", "cluster": cluster,
    }}]})
}

fn http_chain(route: &str) -> Value {
    json!({"filters": [{"name": "h", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h",
        "rds": {"route_config_name": route, "config_source": {"ads": {}, "initial_fetch_timeout": "3s"}},
        "http_filters": [{"name": "r", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
    }}]})
}

fn listener(name: &str, port: u16, chains: &[Value]) -> Bytes {
    let json = json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": chains,
    });
    wire("envoy.config.listener.v3.Listener", &json)
}

fn put(store: &mut Store, name: &str, bytes: &Bytes, now: Instant) {
    if let Some(listener) = store.listener(Some(name), bytes).unwrap() {
        store.put_listener(listener, bytes.clone(), false, now);
    }
}

fn ports(store: &Store, cluster: &str) -> Option<Vec<String>> {
    let cluster = store.published.load().clusters.get(cluster)?.load_full()?;
    let hosts = cluster.hosts.load();
    Some(hosts.hosts.iter().map(|host| host.address.to_string()).collect())
}

fn live(store: &Store) -> Vec<Name> {
    let mut names: Vec<_> = store.published.load().listeners.keys().cloned().collect();
    names.sort();
    names
}

#[test]
fn a_cluster_is_in_force_when_its_endpoints_are_there() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.settle(now);
    assert_eq!(ports(&store, "a"), None);
    let names = crate::xds::client::Subscription::Names(["a".into()].into());
    assert_eq!(store.interest(ResourceType::Endpoints), names);
    store.put_endpoints("a", endpoints("a", &[1, 2]), now).unwrap();
    store.settle(now);
    assert_eq!(ports(&store, "a").unwrap(), ["127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn endpoints_that_do_not_come_are_waited_for_as_long_as_is_said() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.settle(now);
    let wake = store.wake_at().unwrap();
    assert_eq!(wake, now + Duration::from_secs(2));
    store.settle(wake);
    assert_eq!(ports(&store, "a"), Some(vec![]));
    assert_eq!(store.wake_at(), None);
}

/// A transport socket whose certificate and roots come by ADS and are waited for so long.
fn secured(certificate: &str, roots: &str) -> Value {
    let secret = |name: &str, timeout: &str| json!({"name": name, "sds_config": {"ads": {}, "initial_fetch_timeout": timeout, "resource_api_version": "V3"}});
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [secret("own", certificate)],
            "validation_context_sds_secret_config": secret("roots", roots),
        },
    }})
}

#[test]
fn secrets_that_do_not_come_are_waited_for_as_long_as_is_said() {
    let (mut store, now) = (Store::default(), Instant::now());
    let socket = json!({"transport_socket": secured("5s", "1s")});
    store.put_cluster(eds_cluster("a", socket), false, now).unwrap();
    store.settle(now);
    let wake = store.wake_at().unwrap();
    assert_eq!(wake, now + Duration::from_secs(5), "the last of what is waited for");
    store.settle(wake - Duration::from_millis(1));
    assert_eq!(ports(&store, "a"), None);
    store.settle(wake);
    assert_eq!(ports(&store, "a"), Some(vec![]));
}

#[test]
fn what_is_waited_for_for_ever_wakes_nobody() {
    let (mut store, now) = (Store::default(), Instant::now());
    let socket = json!({"transport_socket": secured("0s", "0s")});
    store.put_cluster(eds_cluster("a", socket), false, now).unwrap();
    store.settle(now);
    assert_eq!(store.wake_at(), None);
    store.settle(now + Duration::from_secs(3));
    assert_eq!((store.wake_at(), ports(&store, "a")), (None, None));
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_as_long_as_is_said() {
    let (mut store, now) = (Store::default(), Instant::now());
    let first = FirstAnswers {
        clusters: Some(Duration::from_secs(15)),
        listeners: Some(Duration::from_secs(4)),
    };
    store.wait_for(first, now);
    store.settle(now);
    let clusters = store.wake_at().unwrap();
    assert_eq!(clusters, now + Duration::from_secs(15));
    store.settle(clusters);
    assert_eq!(
        store.interest(ResourceType::Listener),
        crate::xds::client::Subscription::All
    );
    let listeners = store.wake_at().unwrap();
    assert_eq!(listeners, clusters + Duration::from_secs(4));
    assert!(!store.ready.load(Ordering::Relaxed));
    store.settle(listeners);
    assert!(store.ready.load(Ordering::Relaxed));
    assert_eq!(store.wake_at(), None);
}

#[test]
fn a_name_without_endpoints_is_an_answer_and_endpoints_that_are_used_stay() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.no_endpoints("a", now);
    store.settle(now);
    assert_eq!(ports(&store, "a"), Some(vec![]));
    store.put_endpoints("a", endpoints("a", &[1]), now).unwrap();
    store.no_endpoints("a", now);
    store.settle(now);
    assert_eq!(ports(&store, "a").unwrap().len(), 1);
}

#[test]
fn a_changed_cluster_serves_on_until_the_new_one_is_warm_and_keeps_what_was_counted() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.put_endpoints("a", endpoints("a", &[1, 2]), now).unwrap();
    store.settle(now);
    let before = store.clusters["a"].live().unwrap().clone();
    let other = json!({"eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": "b"}});
    store.put_cluster(eds_cluster("a", other), false, now).unwrap();
    store.settle(now);
    assert!(Arc::ptr_eq(store.clusters["a"].live().unwrap(), &before));
    store.put_endpoints("b", endpoints("b", &[2, 3]), now).unwrap();
    store.settle(now);
    let after = store.clusters["a"].live().unwrap().clone();
    assert!(Arc::ptr_eq(&after.stats, &before.stats));
    let (old, new) = (before.hosts.load(), after.hosts.load());
    assert!(Arc::ptr_eq(&old.hosts[1].state, &new.hosts[0].state));
    let removed = |at: usize| old.hosts[at].state.removed.load(Ordering::Relaxed);
    assert_eq!((removed(0), removed(1)), (true, false));
}

#[test]
fn a_removed_cluster_is_gone_and_its_endpoints_are_not_asked_for() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.put_endpoints("a", endpoints("a", &[1]), now).unwrap();
    store.settle(now);
    let host = store.clusters["a"].live().unwrap().hosts.load().hosts[0].clone();
    store.remove_cluster("a");
    store.settle(now);
    store.sweep();
    assert_eq!(ports(&store, "a"), None);
    assert!(host.state.removed.load(Ordering::Relaxed));
    let none = crate::xds::client::Subscription::Names([].into());
    assert_eq!(store.interest(ResourceType::Endpoints), none);
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.settle(now);
    assert_eq!(ports(&store, "a"), None, "the endpoints have to be said again");
}

#[test]
fn listeners_are_asked_for_when_the_clusters_are_warm() {
    let (mut store, now) = (Store::default(), Instant::now());
    let wanted = |store: &Store| store.interest(ResourceType::Listener) == crate::xds::client::Subscription::All;
    store.settle(now);
    assert!(!wanted(&store));
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.clusters_answered();
    store.settle(now);
    assert!(!wanted(&store));
    store.put_endpoints("a", endpoints("a", &[1]), now).unwrap();
    store.settle(now);
    assert!(wanted(&store));
    store.put_cluster(eds_cluster("b", json!({})), false, now).unwrap();
    store.settle(now);
    assert!(wanted(&store), "from then on always");
}

#[test]
fn a_listener_is_in_force_when_its_routes_are_there_and_then_the_proxy_is_ready() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.clusters_answered();
    let bytes = listener("l", 1, &[http_chain("r")]);
    put(&mut store, "l", &bytes, now);
    store.listeners_answered();
    store.settle(now);
    assert!(live(&store).is_empty() && !store.ready.load(Ordering::Relaxed));
    let names = crate::xds::client::Subscription::Names(["r".into()].into());
    assert_eq!(store.interest(ResourceType::Route), names);
    assert_eq!(store.wake_at(), Some(now + Duration::from_secs(3)));
    let routes = wire("envoy.config.route.v3.RouteConfiguration", &json!({"name": "r"}));
    store.put_routes("r", routes).unwrap();
    let changes = store.settle(now);
    assert_eq!(changes.live.len(), 1);
    assert_eq!(live(&store), ["l".into()]);
    assert!(store.ready.load(Ordering::Relaxed));
}

#[test]
fn chains_that_do_not_change_are_kept_and_the_others_drain() {
    let (mut store, now) = (Store::default(), Instant::now());
    put(
        &mut store,
        "l",
        &listener("l", 1, &[named_chain("a", "a"), named_chain("b", "b")]),
        now,
    );
    store.settle(now);
    let before = store.listeners["l"].live().unwrap().clone();
    put(
        &mut store,
        "l",
        &listener("l", 1, &[named_chain("b", "b"), named_chain("a", "c")]),
        now,
    );
    store.settle(now);
    let after = store.listeners["l"].live().unwrap().clone();
    assert!(Arc::ptr_eq(&after.chains.chains[0], &before.chains.chains[1]));
    let draining: Vec<_> = before
        .chains
        .chains
        .iter()
        .map(|chain| chain.draining.has_begun())
        .collect();
    assert_eq!(draining, [true, false]);
    assert!(store.remove_listener("l"));
    store.settle(now);
    assert!(live(&store).is_empty() && after.chains.chains.iter().all(|chain| chain.draining.has_begun()));
}

#[test]
fn two_listeners_cannot_have_one_address() {
    let (mut store, now) = (Store::default(), Instant::now());
    put(&mut store, "l", &tcp_listener("l", 1, "a"), now);
    let error = store
        .listener(Some("m"), &tcp_listener("m", 1, "a"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("'m' has duplicate address '127.0.0.1:1'"), "{error}");
}

#[test]
fn the_same_once_more_changes_nothing() {
    let (mut store, now) = (Store::default(), Instant::now());
    let bytes = tcp_listener("l", 1, "a");
    put(&mut store, "l", &bytes, now);
    store.settle(now);
    assert!(store.listener(Some("l"), &bytes).unwrap().is_none());
    let published = store.published.load_full();
    store.put_cluster(eds_cluster("a", json!({})), false, now).unwrap();
    store.put_endpoints("a", endpoints("a", &[1]), now).unwrap();
    store.settle(now);
    let with_cluster = store.published.load_full();
    assert!(!Arc::ptr_eq(&published, &with_cluster));
    store.put_endpoints("a", endpoints("a", &[1, 2]), now).unwrap();
    store.settle(now);
    assert!(
        Arc::ptr_eq(&store.published.load_full(), &with_cluster),
        "endpoints are swapped by themselves"
    );
    assert_eq!(ports(&store, "a").unwrap().len(), 2);
}

#[test]
fn a_cluster_with_health_checks_is_in_force_after_the_first_round() {
    let (mut store, now) = (Store::default(), Instant::now());
    let check = json!({"health_checks": [{
        "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {},
    }]});
    store.put_cluster(eds_cluster("a", check), false, now).unwrap();
    store.settle(now);
    assert_eq!(store.checked_clusters().count(), 0, "there are no endpoints yet");
    store.put_endpoints("a", endpoints("a", &[1, 2]), now).unwrap();
    store.settle(now);
    assert_eq!(ports(&store, "a"), None);
    assert_eq!(store.wake_at(), None, "it waits for its checks alone");
    let cluster = store.checked_clusters().next().unwrap().clone();
    let host = |index: usize| cluster.hosts.load().hosts[index].clone();
    cluster.fails_at_once(&host(0));
    store.settle(now);
    assert_eq!(ports(&store, "a"), None);
    // Another update meanwhile.
    store.put_endpoints("a", endpoints("a", &[1, 3]), now).unwrap();
    cluster.fails_at_once(&host(1));
    store.settle(now);
    assert_eq!(ports(&store, "a").unwrap(), ["127.0.0.1:1", "127.0.0.1:3"]);
}

#[test]
fn what_is_not_implemented_is_refused_by_its_field() {
    let (mut store, now) = (Store::default(), Instant::now());
    let closing = json!({"close_connections_on_host_health_failure": true});
    let error = store.put_cluster(eds_cluster("a", closing), false, now).unwrap_err();
    let expected = "close_connections_on_host_health_failure: this field is not implemented";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_resource_under_another_name_is_refused() {
    let (mut store, now) = (Store::default(), Instant::now());
    let error = store.put_endpoints("b", endpoints("a", &[1]), now).unwrap_err();
    assert_eq!(error.to_string(), "cluster_name: `a` is sent under the name `b`");
}
