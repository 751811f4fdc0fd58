//! Unusual but valid requests and responses: both data planes handle them in the same way.
//!
//! There are no expected values: the results of both data planes are compared.

mod cases;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cases::{CASES, Case, STEERING};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::wire::{Said, Wire, next_head};
use super::harness::{Plane, eventually, get};
use crate::between_planes;

between_planes! {
    unusual_requests_and_responses_are_handled_as_in_envoy,
    request_headers_that_control_envoy_are_trusted_as_in_envoy,
    a_response_cut_off_by_max_stream_duration_is_logged,
    mirrored_requests_have_the_same_headers_as_in_envoy,
    a_direct_response_with_204_has_no_body,
    health_checks_fail_after_the_healthcheck_fail_command,
}

const LOG: &str = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)% %REQ(:PATH)% \
                   %REQ(X-ENVOY-ORIGINAL-PATH)% %ROUTE_NAME% %UPSTREAM_CLUSTER% \
                   %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";

/// The request heads that a host received.
type Seen = Arc<Mutex<Vec<String>>>;

/// A host that answers with the contents of `x-say`, where `~` is an end of line, or with a default response. `x-slow`
/// delays it by this many milliseconds, and with `x-early` it does not wait for the request body.
async fn host() -> (std::net::SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shared.clone()));
        }
    });
    (address, seen)
}

async fn serve(mut stream: TcpStream, seen: Seen) -> std::io::Result<()> {
    let mut read = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut read).await? {
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(one, _)| one.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        let len = header("content-length").map_or(0, |len| len.parse().unwrap());
        seen.lock().unwrap().push(head.clone());
        if let Some(slow) = header("x-slow") {
            tokio::time::sleep(std::time::Duration::from_millis(slow.parse().unwrap())).await;
        }
        let said = header("x-say").unwrap_or("HTTP/1.1 200 OK~content-length: 2~~ok".to_owned());
        if header("x-early").is_none() {
            while read.len() < len {
                if stream.read_buf(&mut read).await? == 0 {
                    return Ok(());
                }
            }
            read.drain(..len);
        }
        stream.write_all(said.replace('~', "\r\n").as_bytes()).await?;
    }
    Ok(())
}

fn routes() -> Value {
    let to = |prefix: &str, more: Value| {
        let mut route = json!({"cluster": "back"});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let add = json!({"key": "x-route", "value": "%REQ(:PATH)%"});
        json!({
            "name": prefix, "match": {"prefix": prefix}, "route": route,
            "response_headers_to_add": [{"header": add}], "response_headers_to_remove": ["content-type"],
        })
    };
    let own = |prefix: &str, status: u16| {
        let body = json!({"inline_string": "own"});
        json!({"name": prefix, "match": {"prefix": prefix}, "direct_response": {"status": status, "body": body}})
    };
    let share = |path: &str, more: Value| {
        let one = json!({"name": "back", "weight": 1, "host_rewrite_literal": "share.example"});
        let mut route = json!({"weighted_clusters": {"clusters": [one]}});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": path, "match": {"path": path}, "route": route})
    };
    let tell = |path: &str, action: Value| {
        let value = "%REQ(X-A)% %RESP(X-A)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
        let mut route = json!({
            "name": path, "match": {"path": path},
            "response_headers_to_add": [{"header": {"key": "x-told", "value": value}}],
        });
        route
            .as_object_mut()
            .unwrap()
            .extend(action.as_object().unwrap().clone());
        route
    };
    let one = |path: &str, test: Value| {
        let mut header = json!({"name": "x-a"});
        header
            .as_object_mut()
            .unwrap()
            .extend(test.as_object().unwrap().clone());
        let body = json!({"inline_string": "matches"});
        json!({"name": path, "match": {"path": path, "headers": [header]}, "direct_response": {"status": 200, "body": body}})
    };
    let redirect = |prefix: &str, more: Value| json!({"name": prefix, "match": {"prefix": prefix}, "redirect": more});
    let regex =
        |pattern: &str, substitution: &str| json!({"pattern": {"regex": pattern}, "substitution": substitution});
    let text = |kind: &str, value: &str| json!({"string_match": {kind: value}});
    let not = |mut test: Value| {
        test["invert_match"] = json!(true);
        test
    };
    json!([
        own("/own", 200),
        own("/created", 201),
        own("/wrong", 400),
        own("/empty", 204),
        redirect("/moved", json!({"prefix_rewrite": "/new", "port_redirect": 8080})),
        redirect(
            "/turned",
            json!({"regex_rewrite": regex("^/turned/(.*)/(.*)$", "/\\2/\\1"), "response_code": "FOUND"})
        ),
        redirect("/there", json!({"path_redirect": "/there", "https_redirect": true})),
        to(
            "/literal",
            json!({"host_rewrite_literal": "new.example", "append_x_forwarded_host": true})
        ),
        to(
            "/same",
            json!({"host_rewrite_literal": "web", "append_x_forwarded_host": true})
        ),
        to("/header", json!({"host_rewrite_header": "x-host"})),
        to("/formatted", json!({"path_rewrite": "/%REQ(x-a)%"})),
        to("/prefix", json!({"prefix_rewrite": "/other"})),
        to(
            "/dead",
            json!({"cluster": "dead", "retry_policy": {
                "retry_on": "connect-failure", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"},
            }})
        ),
        to(
            "/try",
            json!({"timeout": "5s", "retry_policy": {
                "retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.3s", "retry_back_off": {"base_interval": "0.001s"},
            }})
        ),
        to("/late", json!({"timeout": "0.2s"})),
        to(
            "/short",
            json!({"timeout": "0s", "max_stream_duration": {"max_stream_duration": "0.2s"}})
        ),
        to(
            "/deadline",
            json!({"timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}})
        ),
        to("/copied", json!({"request_mirror_policies": [{"cluster": "back"}]})),
        to("/nowhere", json!({"cluster": null, "cluster_header": "x-a"})),
        to("/nobody", json!({"cluster": "nobody"})),
        to("/cookie", json!({"hash_policy": [{"cookie": {"name": "c", "ttl": "10s"}}]})),
        share("/share", json!({})),
        share("/shared", json!({"append_x_forwarded_host": true})),
        share("/both", json!({"host_rewrite_literal": "route.example", "append_x_forwarded_host": true})),
        {"name": "grpc", "match": {"prefix": "/grpc", "grpc": {}}, "route": {"cluster": "back"}},
        tell("/tell", json!({"route": {"cluster": "back", "timeout": "1s"}})),
        tell("/tell-late", json!({"route": {"cluster": "back", "timeout": "0.2s"}})),
        tell("/tell-dead", json!({"route": {"cluster": "dead"}})),
        tell("/tell-own", json!({"direct_response": {"status": 200}})),
        {"name": "gone", "match": {"prefix": "/gone"}, "route": {"cluster": "dead"}},
        {"name": "cors-all", "match": {"prefix": "/cors-all"}, "route": {"cluster": "back"}, "typed_per_filter_config": {
            "envoy.filters.http.cors": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                "allow_origin_string_match": [{"exact": "*"}],
            },
        }},
        {"name": "cors", "match": {"prefix": "/cors"}, "route": {"cluster": "back"}, "typed_per_filter_config": {
            "envoy.filters.http.cors": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                "allow_origin_string_match": [{"exact": "http://a"}],
            },
        }},
        one("/is-1", text("exact", "1")),
        one("/is-2", text("exact", "2")),
        one("/is-list", text("exact", "1,2")),
        one("/has-comma", text("contains", ",")),
        one("/begins-2", text("prefix", "2")),
        one("/is-not-2", not(text("exact", "2"))),
        one("/is-not-3", not(text("exact", "3"))),
        one("/below-2", json!({"range_match": {"start": 1, "end": 2}})),
        to("/", json!({})),
    ])
}

/// The listeners, named after what is special about them.
const LISTENERS: [&str; 10] = [
    "plain",
    "normal",
    "redirecting",
    "no-urls",
    "asking",
    "silent",
    "filtered",
    "checked",
    // At the edge of a mesh, without and with a trusted proxy in front.
    "edge",
    "behind",
];

async fn plane(which: Plane) -> (Alone, Seen) {
    let (address, seen) = host().await;
    let filters = |name: &str| {
        let filter = |name: &str, mut config: Value| {
            config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{name}"));
            json!({"name": format!("envoy.filters.http.{}", name.split('.').next().unwrap()), "typed_config": config})
        };
        let router = filter("router.v3.Router", json!({"suppress_envoy_headers": name == "silent"}));
        if name == "checked" {
            let health = json!([{"name": ":path", "string_match": {"exact": "/health"}}]);
            let check = json!({"pass_through_mode": false, "headers": health});
            return json!([filter("health_check.v3.HealthCheck", check), router]);
        }
        if name != "filtered" {
            return json!([router]);
        }
        let always = json!({"numerator": 100});
        json!([
            filter("cors.v3.Cors", json!({})),
            filter("buffer.v3.Buffer", json!({"max_request_bytes": 8})),
            filter(
                "fault.v3.HTTPFault",
                json!({
                    "abort": {"grpc_status": 5, "percentage": always},
                    "headers": [{"name": "x-fault", "present_match": true}],
                })
            ),
            router,
        ])
    };
    let listeners = LISTENERS.map(|name| {
        let mut more = json!({"access_log": access_log(LOG), "http_filters": filters(name)});
        let own = match name {
            "normal" => json!({"normalize_path": true, "merge_slashes": true}),
            "redirecting" => json!({
                "normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT", "via": "1.1 here",
            }),
            "no-urls" => json!({"http_protocol_options": {"allow_absolute_url": false}}),
            "asking" => json!({"proxy_100_continue": true}),
            "edge" => json!({"use_remote_address": true}),
            "behind" => json!({"use_remote_address": true, "xff_num_trusted_hops": 1}),
            _ => json!({}),
        };
        more.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        http_listener(name, "OUTBOUND", routes(), more)
    });
    let dead = cluster("dead", "127.0.0.1:1".parse().unwrap());
    let nobody = json!({"name": "nobody", "type": "STATIC", "connect_timeout": "5s"});
    let clusters = [cluster("back", address), dead, nobody];
    let alone = Alone::start(which, &listeners, &clusters, json!({})).await;
    (alone, seen)
}

/// The result of a case: the response, and what the host received.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
    host: Vec<Vec<String>>,
}

/// The request id that clients send.
const ID: &str = "00000001-0000-4000-8000-000000000001";

async fn send(alone: &Alone, seen: &Seen, number: usize, case: &Case<'_>) -> Outcome {
    let (listener, line, headers, body) = case;
    let index = LISTENERS.iter().position(|one| one == listener).unwrap();
    seen.lock().unwrap().clear();
    let mut wire = Wire::open(alone.listener(index)).await;
    let headers = headers.replace('|', "\r\n");
    let headers = if headers.is_empty() {
        headers
    } else {
        format!("{headers}\r\n")
    };
    let head = format!("{line} HTTP/1.1\r\nhost: web\r\nx-case: {number}\r\nx-request-id: {ID}\r\n{headers}\r\n");
    // In one write: otherwise timing decides whether a connection stays open if the response precedes the request body.
    wire.send(&[head.as_bytes(), body.as_bytes()].concat()).await;
    let bodiless = line.starts_with("HEAD ") || [" 204 ", " 304 "].iter().any(|status| headers.contains(status));
    let said = if bodiless {
        wire.head().await
    } else {
        wire.answer().await
    };
    let Said {
        status,
        mut headers,
        body,
    } = said.unwrap_or_else(|| panic!("no answer to {case:?}"));
    for (name, value) in &mut headers {
        if name == "date" || name == "x-envoy-upstream-service-time" {
            value.clear();
        }
    }
    let heads = seen.lock().unwrap().clone();
    let host = heads.iter().map(|head| {
        let mut lines: Vec<_> = head.lines().map(rounded).collect();
        lines[1..].sort_unstable();
        lines
    });
    Outcome {
        status,
        headers,
        body,
        host: host.collect(),
    }
}

/// Masks the remaining timeout and new request ids, which differ from run to run.
fn rounded(line: &str) -> String {
    match line.split_once(": ") {
        Some((name @ "x-envoy-expected-rq-timeout-ms", value)) => {
            let seconds = value.parse::<f64>().unwrap() / 1000.0;
            format!("{name}: {seconds:.1} s")
        }
        Some((name @ "x-request-id", id)) if id != ID => format!("{name}: another"),
        Some(_) | None => line.to_owned(),
    }
}

/// Access log lines by case.
type Lines = BTreeMap<String, String>;

fn lines(alone: &Alone) -> Lines {
    let written = alone.wrote("access.log");
    let lines = written.lines().filter_map(|line| line.split_once(' '));
    let lines = lines.map(|(case, line)| (case.to_owned(), line.to_owned()));
    lines.filter(|(case, _)| case != "-").collect()
}

/// The lines of both logs, once they have the same cases: all but the few that are rejected before `x-case` is known.
async fn logged(one: &Alone, other: &Alone, cases: usize) -> (Lines, Lines) {
    eventually("both planes log all requests", async || {
        let both = (lines(one), lines(other));
        let complete = both.0.len() >= cases - 3 && both.0.keys().eq(both.1.keys());
        if complete { Ok(both) } else { Err(format!("{both:#?}")) }
    })
    .await
}

/// Sends each case to both planes and compares the results and the access logs.
async fn compare(cases: &[Case<'_>]) {
    let (envoy, ours) = tokio::join!(plane(Plane::Envoy), plane(Plane::Topsail));
    let mut differ = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let envoys = send(&envoy.0, &envoy.1, number, case).await;
        let own = send(&ours.0, &ours.1, number, case).await;
        if envoys != own {
            differ.push(format!("{case:?}\nEnvoy: {envoys:#?}\nours: {own:#?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let (envoys, own) = logged(&envoy.0, &ours.0, cases.len()).await;
    // The planes log rejected paths in different stages of normalization.
    let refused = |line: &str| line.contains("path_normalization_failed") || line.contains("absolute_path_rejected");
    for (case, line) in envoys.iter().filter(|(_, line)| !refused(line)) {
        let sent = case.parse().map(|number: usize| cases[number]);
        assert_eq!(own.get(case), Some(line), "{sent:?}");
    }
}

async fn unusual_requests_and_responses_are_handled_as_in_envoy() {
    compare(&CASES).await;
}

async fn request_headers_that_control_envoy_are_trusted_as_in_envoy() {
    let fails = "x-say: HTTP/1.1 503 No~content-length: 0~~";
    let (inside, outside) = ("x-forwarded-for: 10.0.0.1", "x-forwarded-for: 10.0.0.1, 1.2.3.4");
    let all: Vec<_> = STEERING
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    // Each header alone, and all that have an effect only in combination.
    let together = all[..16].join("|");
    let mut sent = Vec::new();
    for forwarded in ["x-a: 1", inside, outside] {
        sent.extend(all.iter().map(|header| ("GET /a", format!("{header}|{forwarded}"))));
        for line in ["GET /a", "GET /try", "GET /dead"] {
            sent.push((line, format!("{together}|{forwarded}")));
            sent.push((line, format!("{together}|{forwarded}|{fails}")));
            sent.push((line, format!("{together}|{forwarded}|x-slow: 20")));
        }
    }
    let listeners = ["plain", "edge", "behind"];
    let each = |(line, headers)| listeners.map(|listener| (listener, line, headers, ""));
    let cases: Vec<_> = sent
        .iter()
        .map(|(line, headers)| (*line, headers.as_str()))
        .flat_map(each)
        .collect();
    compare(&cases).await;
}

async fn a_response_cut_off_by_max_stream_duration_is_logged() {
    for which in [Plane::Envoy, Plane::Topsail] {
        let (alone, _) = plane(which).await;
        let mut wire = Wire::open(alone.listener(0)).await;
        let said = "x-say: HTTP/1.1 200 OK~content-length: 9~~half";
        wire.send(format!("GET /short HTTP/1.1\r\nhost: web\r\nx-case: short\r\n{said}\r\n\r\n").as_bytes())
            .await;
        assert_eq!(wire.head().await.unwrap().status, 200);
        let line = eventually("the line", async || {
            lines(&alone).get("short").cloned().ok_or(alone.wrote("access.log"))
        })
        .await;
        let expected = "200 - max_duration_timeout GET /short - /short back 1";
        assert_eq!(line, expected, "{which:?}");
        let stats = alone.sidecar.stats("plain.downstream_rq_max_duration_reached").await;
        assert_eq!(stats["http.plain.downstream_rq_max_duration_reached"], 1, "{which:?}");
    }
}

/// The head of the mirrored request for a request with this header line.
async fn copy(which: Plane, forwarded: &str) -> Vec<String> {
    let (alone, seen) = plane(which).await;
    let mut wire = Wire::open(alone.listener(0)).await;
    let id = "x-request-id: 00000001-0000-4000-8000-000000000001";
    wire.send(format!("GET /copied HTTP/1.1\r\nhost: web\r\n{id}\r\n{forwarded}\r\n").as_bytes())
        .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    let head = eventually("the mirrored request arrives", async || {
        let heads = seen.lock().unwrap().clone();
        let copy = heads.iter().find(|head| head.contains("web-shadow")).cloned();
        copy.ok_or(format!("{heads:?}"))
    })
    .await;
    let lines = head.lines().filter(|line| !line.contains("-timeout-ms"));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

async fn mirrored_requests_have_the_same_headers_as_in_envoy() {
    for forwarded in ["", "x-forwarded-for: 1.2.3.4\r\n"] {
        let envoys = copy(Plane::Envoy, forwarded).await;
        assert!(envoys.contains(&"x-envoy-internal: true".to_owned()), "{envoys:?}");
        assert_eq!(copy(Plane::Topsail, forwarded).await, envoys);
    }
}

async fn a_direct_response_with_204_has_no_body() {
    for which in [Plane::Envoy, Plane::Topsail] {
        let (alone, _) = plane(which).await;
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(b"GET /empty HTTP/1.1\r\nhost: web\r\nx-case: empty\r\nconnection: close\r\n\r\n")
            .await;
        assert_eq!(wire.head().await.unwrap().status, 204);
        wire.end().await;
        let line = eventually("the line", async || {
            lines(&alone).get("empty").cloned().ok_or(alone.wrote("access.log"))
        })
        .await;
        assert_eq!(line, "204 - direct_response GET /empty - /empty - 0", "{which:?}");
    }
}

async fn health_checks_fail_after_the_healthcheck_fail_command() {
    let index = LISTENERS.iter().position(|one| *one == "checked").unwrap();
    for which in [Plane::Envoy, Plane::Topsail] {
        let (alone, _) = plane(which).await;
        get(alone.admin(), "admin", "/healthcheck/fail")
            .method(http::Method::POST)
            .expect(200)
            .await;
        for (path, status, cluster) in [("/health", 503, "test"), ("/own", 200, "")] {
            let mut wire = Wire::open(alone.listener(index)).await;
            let head = format!("GET {path} HTTP/1.1\r\nhost: web\r\nx-case: {}\r\n\r\n", &path[1..]);
            wire.send(head.as_bytes()).await;
            let said = wire.answer().await.unwrap();
            let health = (
                said.status,
                said.header("x-envoy-immediate-health-check-fail"),
                said.header("x-envoy-upstream-healthchecked-cluster"),
            );
            assert_eq!(health, (status, "true", cluster), "{which:?}");
        }
        let line = eventually("the line", async || {
            lines(&alone).get("health").cloned().ok_or(alone.wrote("access.log"))
        })
        .await;
        assert_eq!(line, "503 LH health_check_failed GET /health - / back 0", "{which:?}");
    }
}
