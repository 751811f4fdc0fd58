//! Features that configurations for gateways use and those for sidecars rarely do: both planes behave the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::wire::{Said, Wire};
use super::harness::{Backend, Plane, get as call};
use crate::between_planes;

between_planes! {
    requests_without_tls_are_redirected_to_https,
    ports_and_trailing_dots_are_stripped_from_hosts,
    deprecated_http_protocol_options_of_clusters_apply,
    the_content_type_of_direct_responses_follows_header_mutations,
    rejected_upgrades_get_the_response_headers_of_their_route,
    deprecated_header_matchers_and_log_formats_apply,
}

const LOG: &str =
    "%REQ(:METHOD)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %ROUTE_NAME% %UPSTREAM_CLUSTER%\n";

/// Sends each of these request heads to its listener on a new connection and returns the responses.
async fn answers(alone: &Alone, sent: &[(usize, String)]) -> Vec<Option<Said>> {
    let mut answers = Vec::new();
    for (listener, head) in sent {
        let mut wire = Wire::open(alone.listener(*listener)).await;
        wire.send(format!("{head}connection: close\r\n\r\n").as_bytes()).await;
        let mut said = wire.answer().await;
        if let Some(said) = &mut said {
            said.headers
                .retain(|name, _| name != "date" && name != "x-envoy-upstream-service-time");
        }
        answers.push(said);
    }
    answers
}

/// Sends the same requests to both planes and compares the responses and the access logs.
async fn compare(listeners: &[Value], clusters: &[Value], sent: &[(usize, String)]) {
    let mut listeners = listeners.to_vec();
    for (index, listener) in listeners.iter_mut().enumerate() {
        listener["name"] = json!(format!("in{index}"));
    }
    let [envoy, ours] = [Plane::Envoy, Plane::Topsail].map(async |which| {
        let mut alone = Alone::unready(which, &listeners, clusters).await;
        alone.sidecar.allow_log("Using deprecated option");
        alone.sidecar.ready().await;
        alone
    });
    let (envoy, ours) = tokio::join!(envoy, ours);
    let (envoys, own) = (answers(&envoy, sent).await, answers(&ours, sent).await);
    for ((said, envoys), own) in sent.iter().zip(envoys).zip(own) {
        assert_eq!(envoys, own, "{said:?}");
    }
    envoy.logged_as_much(sent.len()).await;
    ours.logged_as_much(sent.len()).await;
    assert_eq!(envoy.wrote("access.log"), ours.wrote("access.log"));
}

async fn the_content_type_of_direct_responses_follows_header_mutations() {
    let html = |action: &str| json!({"header": {"key": "content-type", "value": "text/html"}, "append_action": action});
    let own = |path: &str, body: Value, more: Value| {
        let route = json!({"match": {"path": path}, "direct_response": {"status": 200, "body": body}});
        with(route, more)
    };
    let page = json!({"filename": "/etc/hostname"});
    let text = || json!({"inline_string": "text"});
    let routes = json!([
        own("/file", page, json!({})),
        own("/append", text(), json!({"response_headers_to_add": [html("APPEND_IF_EXISTS_OR_ADD")]})),
        own("/overwrite", text(), json!({"response_headers_to_add": [html("OVERWRITE_IF_EXISTS_OR_ADD")]})),
        own("/absent", text(), json!({"response_headers_to_add": [html("ADD_IF_ABSENT")]})),
        own("/existing", text(), json!({"response_headers_to_add": [html("OVERWRITE_IF_EXISTS")]})),
        own("/removed", text(), json!({"response_headers_to_remove": ["content-type"]})),
        own("/empty", Value::Null, json!({"response_headers_to_add": [html("APPEND_IF_EXISTS_OR_ADD")]})),
        {"match": {"prefix": "/"}, "redirect": {"path_redirect": "/there"},
         "response_headers_to_add": [html("APPEND_IF_EXISTS_OR_ADD")]},
    ]);
    let listener = http_listener("in", "INBOUND", routes, json!({"access_log": access_log(LOG)}));
    let paths = [
        "/file",
        "/append",
        "/overwrite",
        "/absent",
        "/existing",
        "/removed",
        "/empty",
        "/moved",
    ];
    let mut sent: Vec<_> = paths.iter().map(|path| get(0, path, "web", "")).collect();
    sent.extend(
        paths
            .iter()
            .map(|path| get(0, path, "web", "content-type: application/grpc\r\n")),
    );
    compare(&[listener], &[], &sent).await;
}

async fn rejected_upgrades_get_the_response_headers_of_their_route() {
    let app = Backend::http("app").await;
    let added = |value: &str| json!([{"header": {"key": "x-said", "value": value}}]);
    let text = json!({"status": 200, "body": {"inline_string": "own"}});
    let routes = json!([
        {"match": {"prefix": "/app"}, "route": {"cluster": "app"}, "response_headers_to_add": added("app")},
        {"match": {"prefix": "/own"}, "direct_response": text, "response_headers_to_add": added("own")},
        {"match": {"prefix": "/moved"}, "redirect": {"path_redirect": "/there"}, "response_headers_to_add": added("moved")},
    ]);
    let hosts = json!([{"name": "web", "domains": ["*"], "routes": routes, "response_headers_to_add": added("host")}]);
    let more = json!({"route_config": {"name": "routes", "virtual_hosts": hosts}, "access_log": access_log(LOG)});
    let listener = http_listener("in", "INBOUND", json!([]), more);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    let sent = ["/app", "/own", "/moved", "/none"].map(|path| get(0, path, "web", upgrade));
    compare(&[listener], &[cluster("app", app.address())], &sent).await;
}

/// Header matchers and access log formats in deprecated fields, which many configurations still use.
async fn deprecated_header_matchers_and_log_formats_apply() {
    let matchers = [
        ("exact", json!({"exact_match": "abc"})),
        ("prefix", json!({"prefix_match": "ab"})),
        ("suffix", json!({"suffix_match": "yz"})),
        ("contains", json!({"contains_match": "b"})),
        ("regex", json!({"safe_regex_match": {"regex": "x+"}})),
    ];
    let routes = matchers.map(|(name, matcher)| {
        let header = with(json!({"name": "x-a"}), matcher);
        let body = json!({"inline_string": name});
        json!({"match": {"prefix": "/", "headers": [header]}, "direct_response": {"status": 200, "body": body}})
    });
    let log = |format: Value| {
        let file = json!({
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "{dir}/access.log",
        });
        json!([{"name": "log", "typed_config": with(file, format)}])
    };
    let fields = json!({"code": "%RESPONSE_CODE%", "text": "%REQ(:PATH)% %RESPONSE_CODE%", "none": "%REQ(x-none)%"});
    let listeners = [
        json!({"format": "%REQ(:PATH)% %RESPONSE_CODE% %REQ(x-none)%\n"}),
        json!({"json_format": fields}),
        json!({"typed_json_format": fields}),
        json!({"log_format": {"text_format": "%REQ(:PATH)% %RESPONSE_CODE%\n"}}),
    ];
    let listeners =
        listeners.map(|format| http_listener("in", "INBOUND", json!(routes), json!({"access_log": log(format)})));
    let values = ["abc", "abd", "xyz", "cbc", "xxx", "ABC", ""];
    let to_all =
        (0..listeners.len()).flat_map(|index| values.map(|value| get(index, "/", "web", &format!("x-a: {value}\r\n"))));
    compare(&listeners, &[], &to_all.collect::<Vec<_>>()).await;
}

/// Many configurations still have HTTP options in fields of the cluster itself.
async fn deprecated_http_protocol_options_of_clusters_apply() {
    let app = Backend::http("app").await;
    let mut observed = Vec::new();
    for which in [Plane::Envoy, Plane::Topsail] {
        let clusters = [
            json!({"http2_protocol_options": {"max_concurrent_streams": 10}}),
            json!({"http_protocol_options": {}, "max_requests_per_connection": 1}),
            json!({"protocol_selection": "USE_DOWNSTREAM_PROTOCOL", "http2_protocol_options": {}}),
            json!({"upstream_http_protocol_options": {}, "common_http_protocol_options": {"max_requests_per_connection": 2}}),
        ];
        let clusters: Vec<_> = clusters
            .into_iter()
            .enumerate()
            .map(|(index, more)| with(cluster(&format!("app{index}"), app.address()), more))
            .collect();
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}}]);
        let listener = http_listener("in", "INBOUND", routes, json!({}));
        let mut alone = Alone::unready(which, &[listener], &clusters).await;
        alone.sidecar.allow_log("Using deprecated option");
        alone.sidecar.ready().await;
        let mut seen = BTreeMap::new();
        for index in 0..clusters.len() {
            for http2 in [false, true, false, false] {
                let call = call(alone.listener(0), "web", "/").header("x-cluster", &format!("app{index}"));
                let call = if http2 { call.http2() } else { call };
                let protocol = call.expect(200).await.seen().protocol;
                *seen.entry(format!("app{index} {protocol}")).or_insert(0) += 1;
            }
        }
        let connections = alone.sidecar.stats("cluster.app.*upstream_cx_(http[12]_)?total").await;
        observed.push((seen, connections));
    }
    assert_eq!(observed[0], observed[1]);
}

fn with(mut message: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    message.as_object_mut().unwrap().extend(more);
    message
}

fn get(listener: usize, path: &str, host: &str, more: &str) -> (usize, String) {
    (listener, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}"))
}

async fn requests_without_tls_are_redirected_to_https() {
    let host = |domain: &str, require: &str| {
        let added = json!({"header": {"key": "x-host", "value": "said"}});
        json!({
            "name": domain, "domains": [domain], "require_tls": require, "response_headers_to_add": [added],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}}],
        })
    };
    let hosts = json!([host("all", "ALL"), host("external", "EXTERNAL_ONLY"), host("*", "NONE")]);
    let added = json!({"header": {"key": "x-table", "value": "said"}});
    let routes = json!({"name": "routes", "virtual_hosts": hosts, "response_headers_to_add": [added], "ignore_port_in_host_matching": true});
    let listeners = [false, true].map(|edge| {
        let more = json!({"route_config": routes, "access_log": access_log(LOG), "use_remote_address": edge});
        http_listener("in", "INBOUND", json!([]), more)
    });
    let mut sent = Vec::new();
    for listener in [0, 1] {
        for name in ["all", "external", "other", "all:80", "all:8080", "ALL"] {
            for more in [
                "",
                "x-forwarded-proto: https\r\n",
                "x-envoy-internal: true\r\nx-forwarded-for: 10.0.0.1\r\n",
            ] {
                sent.push(get(listener, "/a?b=c", name, more));
            }
        }
        let post = "POST /a HTTP/1.1\r\nhost: all\r\ncontent-length: 0\r\n";
        sent.push((listener, post.to_owned()));
    }
    compare(&listeners, &[], &sent).await;
}

async fn ports_and_trailing_dots_are_stripped_from_hosts() {
    let app = Backend::http("app").await;
    let route = json!({
        "match": {"prefix": "/"}, "route": {"cluster": "app"},
        "response_headers_to_add": [{"header": {"key": "x-authority", "value": "%REQ(:AUTHORITY)%"}}],
    });
    let redirect = json!({"match": {"path": "/moved"}, "redirect": {"path_redirect": "/there"}});
    let connect = json!({
        "match": {"connect_matcher": {}},
        "route": {"cluster": "app", "upgrade_configs": [{"upgrade_type": "CONNECT"}]},
    });
    let host = json!({"name": "a", "domains": ["a.example", "[::1]"], "routes": [redirect, connect, route]});
    let listeners = [
        json!({"strip_any_host_port": true}),
        json!({"strip_matching_host_port": true}),
        json!({"strip_trailing_host_dot": true}),
        json!({"strip_any_host_port": true, "strip_trailing_host_dot": true}),
    ];
    let listeners = listeners.map(|mut more| {
        more["route_config"] = json!({"name": "routes", "virtual_hosts": [host]});
        more["access_log"] = access_log(LOG);
        more["generate_request_id"] = json!(false);
        more["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
        http_listener("in", "INBOUND", json!([]), more)
    });
    let mut sent = Vec::new();
    for listener in 0..listeners.len() {
        for name in [
            "a.example",
            "a.example:8080",
            "a.example:80",
            "a.example.",
            "a.example.:8080",
            "a.example:",
            "a.example:x",
            "[::1]",
            "[::1]:8080",
        ] {
            sent.push(get(listener, "/", name, ""));
            sent.push(get(listener, "/moved", name, ""));
        }
        let connect = "CONNECT a.example:8080 HTTP/1.1\r\nhost: a.example:8080\r\n";
        sent.push((listener, connect.to_owned()));
    }
    compare(&listeners, &[cluster("app", app.address())], &sent).await;
}
