//! Faults of the control plane: crashes, invalid resources, removal of resources in use, and missing dependencies. The
//! data plane keeps its last valid configuration and applies what is valid.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;
use topsail::xds::ResourceType;
use topsail::xds::ResourceType::{Cluster, Endpoints, Listener, Route, Secret};

use crate::harness::alone::{Alone, cluster, cluster_http2, http_listener, socket};
use crate::harness::wire::Wire;
use crate::harness::{Ads, Backend, Load, Plane, World, eventually, get, tls};
use crate::on_each_plane;

on_each_plane! {
    a_server_killed_during_an_update_leaves_the_previous_configuration_in_force,
    repeatedly_rejected_resources_change_nothing,
    invalid_fields_are_named_in_the_nack_and_valid_resources_are_accepted,
    removing_a_cluster_only_affects_routes_that_use_it,
    a_listener_can_replace_another_at_the_same_address_in_one_push,
    updating_a_listener_under_load_drops_no_connections,
    resources_are_used_only_once_their_dependencies_have_arrived,
    state_of_the_world_updates_add_and_remove_resources,
    a_listener_update_that_cannot_bind_keeps_the_previous_listener,
    xds_cannot_replace_or_remove_static_listeners,
    resources_are_removed_when_their_ttl_expires,
}

const DELTA: &str = "DELTA_GRPC";

/// Envoy's log message when the server closes the stream.
const STREAM_CLOSED: &str = "gRPC config stream to xds closed";
/// The path of the HTTP/2 options in a cluster.
const STREAMS: &str = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/\
                       explicit_http_config/http2_protocol_options";

/// Log messages of Envoy and of the bundled proxy about rejected resources.
const REFUSED: [&str; 3] = ["delta config for", "gRPC config for", "rejected"];

/// A cluster with EDS.
fn eds(name: &str) -> Value {
    json!({
        "name": name,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": from_ads()},
    })
}

fn from_ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"})
}

fn endpoints(name: &str, host: SocketAddr) -> Value {
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(host)}}]}]})
}

fn to(cluster: &str) -> Value {
    json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}})
}

fn routes(name: &str, routes: &[Value]) -> Value {
    json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

/// A listener at this address with RDS.
fn listener(name: &str, address: SocketAddr, table: &str) -> Value {
    let mut listener = http_listener(name, "OUTBOUND", json!([]), json!({}));
    listener["address"] = socket(address);
    listener["enable_reuse_port"] = json!(false);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager.as_object_mut().unwrap().remove("route_config");
    manager["rds"] = json!({"route_config_name": table, "config_source": from_ads()});
    listener
}

/// The same with TLS and the certificate `own` from SDS.
fn with_certificate(mut listener: Value) -> Value {
    listener["filter_chains"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": from_ads()}]},
        },
    });
    listener
}

/// Waits until a resource has been requested more often than `before`, and returns how often.
async fn asks_for(ads: &Ads, kind: ResourceType, name: &str, before: usize) -> usize {
    eventually(&format!("{name} is requested"), async || match ads.asked(kind, name) {
        asked if asked > before => Ok(asked),
        asked => Err(asked.to_string()),
    })
    .await
}

/// A data plane with a cluster `a` and a listener with the routes `table`, which use that cluster.
struct Followed {
    alone: Alone,
    to: SocketAddr,
    ads: Ads,
    a: Backend,
}

impl Followed {
    async fn start(which: Plane, api_type: &str) -> Self {
        let a = Backend::http("a").await;
        let ads = Ads::start(|_| ()).await;
        let alone = Alone::follow(which, &ads, api_type).await;
        let to = alone.socket(8080);
        ads.change(|world| {
            world.put(Cluster, &eds("a"));
            world.put(Endpoints, &endpoints("a", a.address()));
            world.put(Listener, &listener("in", to, "table"));
            world.put(Route, &routes("table", &[self::to("a")]));
        });
        let mut followed = Self { ads, alone, to, a };
        followed.alone.sidecar.ready().await;
        followed.answers("a").await;
        followed
    }

    fn get(&self, path: &str) -> crate::harness::Call {
        get(self.to, "web", path)
    }

    async fn answers(&self, backend: &str) {
        eventually(&format!("{backend} answers"), async || {
            let answer = self.get("/").send().await?;
            match answer.header("x-backend") == backend {
                true => Ok(()),
                false => Err(format!("{}: {}", answer.status, answer.text())),
            }
        })
        .await;
    }
}

async fn a_server_killed_during_an_update_leaves_the_previous_configuration_in_force(which: Plane) {
    let mut followed = Followed::start(which, DELTA).await;
    followed.alone.sidecar.allow_log(STREAM_CLOSED);
    let b = Backend::http("b").await;
    let mut asked = 0;
    let load = Load::start(followed.get("/load"), 100);
    for _ in 0..3 {
        // The cluster arrives without its endpoints.
        followed.ads.change(|world| world.put(Cluster, &eds("b")));
        asked = asks_for(&followed.ads, Endpoints, "b", asked).await;
        followed.ads.stop();
        followed.get("/").expect(200).await;
        followed.ads.start_again().await;
    }
    followed.ads.stop();
    followed.ads.change(|world| {
        world.put(Endpoints, &endpoints("b", b.address()));
        world.put(Route, &routes("table", &[to("b")]));
    });
    followed.get("/").expect(200).await;
    followed.ads.start_again().await;
    followed.answers("b").await;
    load.stop().await.assert_lossless();
}

async fn repeatedly_rejected_resources_change_nothing(which: Plane) {
    let mut followed = Followed::start(which, DELTA).await;
    REFUSED
        .into_iter()
        .for_each(|text| followed.alone.sidecar.allow_log(text));
    let load = Load::start(followed.get("/load"), 100);
    for turn in 1..=20 {
        let mut bad = listener("in", followed.to, "table");
        bad["stat_prefix"] = json!(format!("turn-{turn}"));
        bad["filter_chains"][0]["filters"][0] = json!({
            "name": "unheard.of",
            "typed_config": {"@type": "type.googleapis.com/envoy.config.core.v3.Address", "pipe": {"path": "/x"}},
        });
        followed.ads.change(|world| {
            world.put(Listener, &bad);
            world.put(
                Cluster,
                &json!({"name": "worse", "type": "EDS", "connect_timeout": format!("{turn}s")}),
            );
        });
        eventually("both are rejected", async || {
            let refused = (followed.ads.refusals(Listener), followed.ads.refusals(Cluster));
            match refused.0.len() == turn && refused.1.len() == turn {
                true => Ok(()),
                false => Err(format!("{refused:?}")),
            }
        })
        .await;
    }
    let named = |kind, name: &str| followed.ads.refusals(kind).iter().all(|why| why.contains(name));
    assert!(
        named(Listener, "in") && named(Cluster, "worse"),
        "{:?}",
        followed.ads.refusals(Cluster)
    );
    let b = Backend::http("b").await;
    followed.ads.change(|world| {
        world.put(Cluster, &cluster("worse", b.address()));
        world.put(Listener, &listener("in", followed.to, "table"));
        world.put(Route, &routes("table", &[to("worse")]));
    });
    followed.answers("b").await;
    load.stop().await.assert_lossless();
}

/// Waits until a resource is rejected with this field in the error, in snake case or camel case.
async fn refused(ads: &Ads, kind: ResourceType, field: &str) {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "");
    eventually(&format!("{kind} is rejected"), async || {
        match ads.refusals(kind).last() {
            Some(why) if plain(why).contains(&plain(field)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn invalid_fields_are_named_in_the_nack_and_valid_resources_are_accepted(which: Plane) {
    for api_type in [DELTA, "GRPC"] {
        let mut followed = Followed::start(which, api_type).await;
        REFUSED
            .into_iter()
            .for_each(|text| followed.alone.sidecar.allow_log(text));
        let (b, secure) = (Backend::http("b").await, followed.alone.socket(8443));
        let own = generate_simple_self_signed(["web".to_owned()]).unwrap();
        let secret = |key: &Value| {
            json!({"name": "own", "tls_certificate": {
                "certificate_chain": {"inline_string": own.cert.pem()},
                "private_key": key,
            }})
        };
        let key = json!({"inline_string": own.signing_key.serialize_pem()});
        followed.ads.change(|world| {
            world.put(Listener, &with_certificate(listener("secure", secure, "table")));
            world.put(Secret, &secret(&key));
        });
        let is_secure = async || {
            eventually("the listener has a certificate", async || {
                tls::connect(secure, "web", None, &[]).await.map(drop)
            })
            .await;
        };
        is_secure().await;
        let load = Load::start(followed.get("/load"), 100);

        // Valid resources in the same response are accepted.
        let other = followed.alone.socket(8081);
        let mut broken = listener("broken", followed.alone.socket(8082), "table");
        broken["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = json!("");
        let mut idle = cluster_http2("broken", b.address());
        *idle.pointer_mut(STREAMS).unwrap() = json!({"max_concurrent_streams": 0});
        followed.ads.change(|world| {
            world.put(Cluster, &cluster("another", b.address()));
            world.put(Cluster, &idle);
            world.put(Cluster, &cluster("b", b.address()));
            world.put(Listener, &broken);
            world.put(Listener, &listener("other", other, "other"));
            world.put(Route, &routes("other", &[to("b")]));
        });
        refused(&followed.ads, Cluster, "max_concurrent_streams").await;
        refused(&followed.ads, Listener, "stat_prefix").await;
        eventually("the other listener answers", async || {
            let answer = get(other, "web", "/").send().await?;
            match answer.header("x-backend") {
                "b" => Ok(()),
                _ => Err(format!("{}: {}", answer.status, answer.text())),
            }
        })
        .await;

        // The previous resources stay in force. With an invalid field at the top level of a resource, Envoy rejects the
        // whole response.
        let mut hasty = cluster("broken", b.address());
        hasty["connect_timeout"] = json!("0s");
        followed.ads.change(|world| {
            world.put(Cluster, &hasty);
            world.put(Route, &routes("table", &[json!({"match": {"prefix": "/"}})]));
            world.put(Secret, &secret(&json!({"filename": ""})));
            let mut endpoints = endpoints("a", b.address());
            endpoints["endpoints"][0]["priority"] = json!(129);
            world.put(Endpoints, &endpoints);
        });
        refused(&followed.ads, Cluster, "connect_timeout").await;
        refused(&followed.ads, Route, "action").await;
        refused(&followed.ads, Endpoints, "priority").await;
        refused(&followed.ads, Secret, "filename").await;
        is_secure().await;
        followed.answers("a").await;

        followed.ads.change(|world| {
            world.put(Cluster, &cluster("broken", b.address()));
            world.put(Listener, &listener("broken", followed.alone.socket(8082), "table"));
            world.put(Route, &routes("table", &[to("broken")]));
            world.put(Endpoints, &endpoints("a", followed.a.address()));
            world.put(Secret, &secret(&key));
        });
        followed.answers("b").await;
        load.stop().await.assert_lossless();
    }
}

async fn resources_are_removed_when_their_ttl_expires(which: Plane) {
    const TTL: Duration = Duration::from_secs(4);
    for api_type in [DELTA, "GRPC"] {
        let mut followed = Followed::start(which, api_type).await;
        followed.alone.sidecar.allow_log("their TTL has expired");
        let b = Backend::http("b").await;
        let other = json!({"match": {"prefix": "/b"}, "route": {"cluster": "b"}});
        let status = async |wanted: u16| {
            eventually(
                &format!("the route to b is answered with {wanted}"),
                async || match followed.get("/b").send().await?.status.as_u16() {
                    status if status == wanted => Ok(()),
                    status => Err(status.to_string()),
                },
            )
            .await;
        };
        followed.ads.change(|world| {
            world.put_for(TTL, Cluster, &cluster("b", b.address()));
            world.put(Route, &routes("table", &[other, to("a")]));
        });
        status(200).await;
        let load = Load::start(followed.get("/b"), 50);
        let prolonged = Instant::now();
        while prolonged.elapsed() < TTL + Duration::from_secs(1) {
            followed.ads.change(World::heartbeat);
            sleep(Duration::from_millis(200)).await;
        }
        load.stop().await.assert_lossless();
        status(503).await;
        followed.answers("a").await;
        // The cluster is sent again, without a TTL.
        followed
            .ads
            .change(|world| world.put(Cluster, &cluster("b", b.address())));
        status(200).await;
        assert_eq!(followed.ads.refusals(Cluster), Vec::<String>::new());
    }
}

async fn removing_a_cluster_only_affects_routes_that_use_it(which: Plane) {
    let followed = Followed::start(which, DELTA).await;
    let b = Backend::http("b").await;
    let other = json!({"match": {"prefix": "/b"}, "route": {"cluster": "b"}});
    followed.ads.change(|world| {
        world.put(Cluster, &cluster("b", b.address()));
        world.put(Route, &routes("table", &[other, to("a")]));
    });
    eventually("b answers as well", async || {
        match followed.get("/b").send().await?.header("x-backend") {
            "b" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let load = Load::start(followed.get("/b"), 100);
    // One cluster is removed and another added in one push; the routes do not change.
    followed.ads.change(|world| {
        world.remove(Cluster, "a");
        world.put(Cluster, &cluster("c", b.address()));
    });
    eventually("routes to a are answered with 503", async || {
        match followed.get("/").send().await?.status.as_u16() {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    // A different cluster `a` is added, while `c` is removed.
    followed.ads.change(|world| {
        world.remove(Cluster, "c");
        world.put(Cluster, &cluster("a", followed.a.address()));
    });
    followed.answers("a").await;
    load.stop().await.assert_lossless();
}

async fn a_listener_can_replace_another_at_the_same_address_in_one_push(which: Plane) {
    let followed = Followed::start(which, DELTA).await;
    let mut kept = Wire::open(followed.to).await;
    for turn in 0..4 {
        let (old, new) = match turn % 2 {
            0 => ("in", "new"),
            _ => ("new", "in"),
        };
        kept.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert_eq!(kept.answer().await.unwrap().status, 200);
        followed.ads.change(|world| {
            world.remove(Listener, old);
            world.put(Listener, &listener(new, followed.to, "table"));
        });
        eventually("the new listener replaces the old one", async || {
            let listeners = followed.alone.sidecar.admin("/listeners").await;
            let is = |name: &str| listeners.lines().any(|line| line.starts_with(&format!("{name}::")));
            match is(new) && !is(old) {
                true => Ok(()),
                false => Err(listeners),
            }
        })
        .await;
        followed.answers("a").await;
        // The old connection is drained: it is answered or closed.
        kept.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        match kept.answer().await {
            Some(said) => assert_eq!(said.status, 200),
            None => assert_eq!(kept.end().await, b""),
        }
        kept = Wire::open(followed.to).await;
    }
}

async fn updating_a_listener_under_load_drops_no_connections(which: Plane) {
    let followed = Followed::start(which, DELTA).await;
    let load = Load::start(followed.get("/load"), 200);
    for turn in 1..=20 {
        let mut changed = listener("in", followed.to, "table");
        changed["filter_chains"][0]["filters"][0]["typed_config"]["server_name"] = json!(format!("turn-{turn}"));
        followed.ads.change(|world| world.put(Listener, &changed));
        eventually("the update is applied", async || {
            match followed.get("/").send().await?.header("server") {
                server if server == format!("turn-{turn}") => Ok(()),
                server => Err(server.to_owned()),
            }
        })
        .await;
    }
    load.stop().await.assert_lossless();
    assert!(followed.ads.refusals(Listener).is_empty());
}

/// Whether an address accepts connections.
async fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

async fn resources_are_used_only_once_their_dependencies_have_arrived(which: Plane) {
    let a = Backend::http("a").await;
    // The cluster has no endpoints yet.
    let ads = Ads::start(|world| world.put(Cluster, &eds("a"))).await;
    let mut alone = Alone::follow(which, &ads, DELTA).await;
    let to = alone.socket(8080);
    let initializing = async |why: &str| {
        eventually(why, async || {
            let answer = get(alone.admin(), "admin", "/ready").send().await?;
            match answer.status == 503 {
                true => Ok(()),
                false => Err(answer.text()),
            }
        })
        .await;
    };
    initializing("the proxy waits for the endpoints").await;
    ads.change(|world| {
        world.put(Listener, &listener("in", to, "table"));
    });
    asks_for(&ads, Endpoints, "a", 0).await;
    assert_eq!(
        ads.taken(Listener),
        0,
        "listeners are requested after the clusters are warm"
    );
    ads.change(|world| world.put(Endpoints, &endpoints("a", a.address())));
    eventually("the listener is accepted", async || match ads.taken(Listener) {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    initializing("the listener waits for its routes").await;
    assert!(!is_open(to).await);
    ads.change(|world| world.put(Route, &routes("table", &[self::to("a")])));
    alone.sidecar.ready().await;
    get(to, "web", "/").expect(200).await;

    // One listener waits for its certificate; the other is not affected.
    let own = generate_simple_self_signed(["web".to_owned()]).unwrap();
    let secure = alone.socket(8443);
    let waiting = with_certificate(listener("secure", secure, "table"));
    let taken = ads.taken(Listener);
    ads.change(|world| world.put(Listener, &waiting));
    eventually("the other listener is accepted", async || {
        match ads.taken(Listener) > taken {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
    get(to, "web", "/").expect(200).await;
    assert!(!is_open(secure).await);
    let dump = alone.sidecar.admin("/init_dump").await;
    assert!(dump.contains("SdsApi own"), "{dump}");
    ads.change(|world| {
        world.put(
            Secret,
            &json!({"name": "own", "tls_certificate": {
                "certificate_chain": {"inline_string": own.cert.pem()},
                "private_key": {"inline_string": own.signing_key.serialize_pem()},
            }}),
        );
    });
    eventually("the listener has its certificate", async || {
        tls::connect(secure, "web", None, &[]).await.map(drop)
    })
    .await;

    // A cluster that waits for its endpoints does not exist for routes.
    let b = Backend::http("b").await;
    ads.change(|world| {
        world.put(Cluster, &eds("b"));
        world.put(Route, &routes("table", &[self::to("b")]));
    });
    asks_for(&ads, Endpoints, "b", 0).await;
    eventually("the route is answered with 503", async || {
        match get(to, "web", "/").send().await?.status.as_u16() {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    ads.change(|world| world.put(Endpoints, &endpoints("b", b.address())));
    eventually("b answers", async || {
        match get(to, "web", "/").send().await?.header("x-backend") {
            "b" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

async fn state_of_the_world_updates_add_and_remove_resources(which: Plane) {
    let mut followed = Followed::start(which, "GRPC").await;
    REFUSED
        .into_iter()
        .for_each(|text| followed.alone.sidecar.allow_log(text));
    followed.alone.sidecar.allow_log(STREAM_CLOSED);
    let b = Backend::http("b").await;
    let other = followed.alone.socket(8081);
    followed.ads.change(|world| {
        world.put(Cluster, &eds("b"));
        world.put(Endpoints, &endpoints("b", b.address()));
        world.put(Listener, &listener("other", other, "other"));
        world.put(Route, &routes("other", &[to("b")]));
    });
    eventually("the other listener answers", async || {
        match get(other, "web", "/").send().await?.header("x-backend") {
            "b" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    followed.get("/").expect(200).await;
    // Resources that are missing in a response are removed.
    followed.ads.change(|world| {
        world.remove(Listener, "other");
        world.remove(Cluster, "b");
    });
    eventually("the other listener is removed", async || match is_open(other).await {
        true => Err("still open".to_owned()),
        false => Ok(()),
    })
    .await;
    followed.get("/").expect(200).await;
    // The NACK names the resource; the next response is accepted.
    followed
        .ads
        .change(|world| world.put(Cluster, &json!({"name": "bad", "type": "EDS"})));
    eventually("the cluster is rejected", async || {
        match followed.ads.refusals(Cluster).first() {
            Some(why) if why.contains("bad") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    followed.ads.change(|world| world.remove(Cluster, "bad"));
    followed.ads.stop();
    followed.ads.start_again().await;
    followed.ads.change(|world| {
        world.put(Cluster, &cluster("b", b.address()));
        world.put(Route, &routes("table", &[to("b")]));
    });
    followed.answers("b").await;
}

async fn a_listener_update_that_cannot_bind_keeps_the_previous_listener(which: Plane) {
    let mut followed = Followed::start(which, DELTA).await;
    REFUSED
        .into_iter()
        .chain(["cannot bind"])
        .for_each(|text| followed.alone.sidecar.allow_log(text));
    let (first, other) = (followed.alone.socket(8090), followed.alone.socket(8091));
    let taken = tokio::net::TcpListener::bind(other).await.unwrap();
    followed
        .ads
        .change(|world| world.put(Listener, &listener("late", first, "late")));
    asks_for(&followed.ads, Route, "late", 0).await;
    followed
        .ads
        .change(|world| world.put(Listener, &listener("late", other, "late")));
    refused(&followed.ads, Listener, "cannot bind").await;
    followed
        .ads
        .change(|world| world.put(Route, &routes("late", &[to("a")])));
    eventually("the previous listener answers", async || {
        match get(first, "web", "/").send().await?.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    drop(taken);
}

async fn xds_cannot_replace_or_remove_static_listeners(which: Plane) {
    let own = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]);
    let fixed = http_listener("fixed", "OUTBOUND", own, json!({}));
    let a = Backend::http("a").await;
    let ads = Ads::start(|world| world.put(Cluster, &cluster("a", a.address()))).await;
    let mut alone = Alone::follow_beside(which, &ads, DELTA, std::slice::from_ref(&fixed)).await;
    REFUSED.into_iter().for_each(|text| alone.sidecar.allow_log(text));
    let (elsewhere, other) = (alone.socket(8090), alone.socket(8091));
    let at = |address| {
        let mut listener = fixed.clone();
        listener["address"] = socket(address);
        listener
    };
    // Envoy ignores the update, the bundled proxy rejects it.
    ads.change(|world| world.put(Listener, &at(elsewhere)));
    alone.sidecar.ready().await;
    eventually("the update is acknowledged or rejected", async || {
        match ads.taken(Listener) + ads.refusals(Listener).len() {
            0 => Err("neither".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    ads.change(|world| world.remove(Listener, "fixed"));
    let mut last = at(other);
    last["name"] = json!("other");
    ads.change(|world| world.put(Listener, &last));
    eventually("the other listener answers", async || {
        get(other, "web", "/").send().await.map(drop)
    })
    .await;
    get(alone.listener(0), "web", "/").expect(200).await;
}
