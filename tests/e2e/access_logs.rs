//! Access logs: the bundled proxy writes the same lines as Envoy for the same requests and formats.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use topsail::clock::Clock;
use topsail::pki::{Ca, IssueOptions, StateDir};

use super::harness::alone::{Alone, cluster, http_listener};
use super::harness::{Backend, Identity, Plane, answering, eventually, get, tls};
use crate::between_planes;

between_planes! {
    access_log_lines_match_envoy,
    access_log_filters_select_the_same_requests,
    reopening_logs_after_a_rename_writes_to_a_new_file,
    access_logs_are_flushed_when_the_proxy_exits,
}

/// Istio's default format, without `accessLogFormat` in MeshConfig (`EnvoyTextLogFormat`).
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Command operators whose values are equal on both planes.
const SAME: [&str; 117] = [
    "%REQ(X-FORWARDED-CLIENT-CERT)%",
    "%DOWNSTREAM_PEER_FINGERPRINT_1%",
    "%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1%",
    "%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%",
    "%DOWNSTREAM_PEER_CHAIN_SERIALS%",
    "%UPSTREAM_HOSTS_ATTEMPTED%",
    "%UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%",
    "%UPSTREAM_HOST_NAMES_ATTEMPTED%",
    "%UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT%",
    "%DOWNSTREAM_LOCAL_CLOSE_REASON%",
    "%UPSTREAM_LOCAL_CLOSE_REASON%",
    "%DOWNSTREAM_DETECTED_CLOSE_TYPE%",
    "%UPSTREAM_DETECTED_CLOSE_TYPE%",
    "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "%DOWNSTREAM_TLS_GROUP%",
    "%UPSTREAM_TLS_GROUP%",
    "%REQUEST_HEADER(X-CASE)%",
    "%RESPONSE_HEADER(X-BACKEND)%",
    "%RESPONSE_TRAILER(GRPC-STATUS)%",
    "%RESPONSE_TRAILERS_BYTES%",
    "%UPSTREAM_PEER_SUBJECT%",
    "%UPSTREAM_PEER_ISSUER%",
    "%UPSTREAM_PEER_CERT%",
    "%UPSTREAM_PEER_CERT_V_START%",
    "%UPSTREAM_PEER_CERT_V_END%",
    "%UPSTREAM_PEER_URI_SAN%",
    "%UPSTREAM_PEER_DNS_SAN%",
    "%UPSTREAM_PEER_IP_SAN%",
    "%UPSTREAM_LOCAL_URI_SAN%",
    "%UPSTREAM_LOCAL_DNS_SAN%",
    "%UPSTREAM_LOCAL_IP_SAN%",
    "%UPSTREAM_TLS_VERSION%",
    "%DOWNSTREAM_LOCAL_SUBJECT%",
    "%DOWNSTREAM_LOCAL_DNS_SAN%",
    "%DOWNSTREAM_LOCAL_IP_SAN%",
    "%DOWNSTREAM_LOCAL_EMAIL_SAN%",
    "%DOWNSTREAM_PEER_CERT_V_END%",
    "%DOWNSTREAM_PEER_CERT%",
    "%PATH%",
    "%PATH(NQ)%",
    "%PATH(WQ:ORIG)%",
    "%PATH(NQ:PATH)%",
    "%PATH(:ORIG_OR_PATH):5%",
    "%QUERY_PARAM(q)%",
    "%QUERY_PARAM(escaped)%",
    "%QUERY_PARAM(absent)%",
    "%QUERY_PARAMS%",
    "%ACCESS_LOG_TYPE%",
    "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_DIRECT_LOCAL_PORT%",
    "%DOWNSTREAM_PEER_IP_SAN%",
    "%DOWNSTREAM_PEER_EMAIL_SAN%",
    "%UPSTREAM_HOST_NAME%",
    "%UPSTREAM_HOST_NAME_WITHOUT_PORT%",
    "%CUSTOM_FLAGS%",
    "%TLS_JA3_FINGERPRINT%",
    "%TLS_JA4_FINGERPRINT%",
    "%ROUNDTRIP_DURATION%",
    "%DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID%",
    "%UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID%",
    "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID%",
    "%REQ(X-CASE)%",
    "%REQ(:METHOD)%",
    "%REQ(:PATH)%",
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):6%",
    "%REQ(X-ABSENT?USER-AGENT)%",
    "%REQ(:AUTHORITY)%",
    "%REQ(:SCHEME)%",
    "%RESP(:STATUS)%",
    "%RESP(X-BACKEND)%",
    "%RESP(X-BACKEND?SERVER):3%",
    "%TRAILER(GRPC-STATUS)%",
    "%PROTOCOL%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%CONNECTION_TERMINATION_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_FLAGS_LONG%",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%UPSTREAM_HOST%",
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_CLUSTER_RAW%",
    "%UPSTREAM_REMOTE_ADDRESS%",
    "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%UPSTREAM_REMOTE_PORT%",
    "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "%UPSTREAM_PROTOCOL%",
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_LOCAL_PORT%",
    "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "%REQUESTED_SERVER_NAME%",
    "%ROUTE_NAME%",
    "%VIRTUAL_CLUSTER_NAME%",
    "%FILTER_CHAIN_NAME%",
    "%GRPC_STATUS%",
    "%GRPC_STATUS(SNAKE_STRING)%",
    "%GRPC_STATUS_NUMBER%",
    "%DYNAMIC_METADATA(com.example:key)%",
    "%CLUSTER_METADATA(com.example:key)%",
    "%UPSTREAM_METADATA(com.example:key)%",
    "%FILTER_STATE(com.example.key:PLAIN)%",
    "%METADATA(DYNAMIC:com.example:key)%",
    "%ENVIRONMENT(TOPSAIL_NOT_SET)%",
    "%HOSTNAME%",
    "%DOWNSTREAM_PEER_URI_SAN%",
    "%DOWNSTREAM_PEER_DNS_SAN%",
    "%DOWNSTREAM_LOCAL_URI_SAN%",
    "%DOWNSTREAM_PEER_SUBJECT%",
    "%DOWNSTREAM_PEER_ISSUER%",
    "%DOWNSTREAM_PEER_SERIAL%",
    "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "%DOWNSTREAM_PEER_CERT_V_START%",
    "%DOWNSTREAM_TLS_VERSION%",
    "text %PROTOCOL% and %RESPONSE_CODE%%%",
];

/// Command operators whose values change from run to run: runs of digits are masked before the comparison.
const ALIKE: [&str; 41] = [
    "%START_TIME_LOCAL%",
    "%START_TIME_LOCAL(%F %T.%3f %z)%",
    "%EMIT_TIME_LOCAL%",
    "%UPSTREAM_CONNECTION_ID%",
    "%UPSTREAM_CONNECTION_IDS_ATTEMPTED%",
    "%UPSTREAM_WIRE_BYTES_RECEIVED%",
    "%UPSTREAM_WIRE_BYTES_SENT%",
    "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
    "%DOWNSTREAM_WIRE_BYTES_SENT%",
    "%UPSTREAM_HEADER_BYTES_RECEIVED%",
    "%UPSTREAM_HEADER_BYTES_SENT%",
    "%DOWNSTREAM_HEADER_BYTES_RECEIVED%",
    "%DOWNSTREAM_HEADER_BYTES_SENT%",
    "%REQUEST_HEADERS_BYTES%",
    "%RESPONSE_HEADERS_BYTES%",
    "%EMIT_TIME%",
    "%EMIT_TIME(%s.%3f)%",
    "%DOWNSTREAM_DIRECT_REMOTE_PORT%",
    "%COMMON_DURATION(DS_RX_BEG:DS_TX_END)%",
    "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:us)%",
    "%COMMON_DURATION(DS_RX_END:US_RX_BEG:ns)%",
    "%COMMON_DURATION(DS_TX_BEG:DS_TX_END:ms)%",
    "%COMMON_DURATION(US_RX_BEG:DS_TX_BEG:ms)%",
    "%START_TIME%",
    "%START_TIME(%s)%",
    "%START_TIME(%s.%3f)%",
    "%START_TIME(%s%6f)%",
    "%START_TIME(%3s)%",
    "%START_TIME(%Y/%m/%dT%H:%M:%S%z %e %j)%",
    "%START_TIME(%F %T.%3f %Z)%",
    "%DURATION%",
    "%REQUEST_DURATION%",
    "%REQUEST_TX_DURATION%",
    "%RESPONSE_DURATION%",
    "%RESPONSE_TX_DURATION%",
    "%UPSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%DOWNSTREAM_REMOTE_PORT%",
    "%CONNECTION_ID%",
    // The planes prefer different cipher suites among those that both ends support.
    "%DOWNSTREAM_TLS_CIPHER%",
    "%UPSTREAM_TLS_CIPHER%",
];

/// Command operators whose values are random.
const OPAQUE: [&str; 2] = ["%UNIQUE_ID%", "%STREAM_ID%"];

/// The text with each run of digits replaced by a single 9.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if masked.ends_with('9') => {}
            '0'..='9' => masked.push('9'),
            other => masked.push(other),
        }
    }
    masked
}

/// Lines by the test case they belong to.
type Lines<T> = BTreeMap<String, T>;

struct Stage {
    alone: Alone,
    backend: Backend,
}

/// TLS configuration for both sides.
struct Secured {
    /// The downstream transport socket.
    server: Value,
    /// A cluster whose host requires TLS.
    cluster: Value,
}

/// File access loggers, in JSON and in text format. Text lines begin with the test case.
fn sinks() -> Value {
    let fields = SAME
        .iter()
        .chain(&ALIKE)
        .chain(&OPAQUE)
        .map(|format| ((*format).to_owned(), json!(format)));
    let mut fields: serde_json::Map<_, _> = fields.collect();
    fields.insert(
        "nested".to_owned(),
        json!({"number": 7, "truth": true, "list": ["%PROTOCOL%", "x"], "status": "%RESPONSE_CODE%"}),
    );
    let file = |path: &str, format: Value| {
        json!({"name": path, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": format!("{{dir}}/{path}"), "log_format": format,
        }})
    };
    let text = |omit: bool| {
        let case = "%REQ(X-CASE)%%REQUESTED_SERVER_NAME% ";
        json!({"text_format_source": {"inline_string": format!("{case}{ISTIO}")}, "omit_empty_values": omit})
    };
    json!([
        file("json.log", json!({"json_format": fields.clone()})),
        file("omitted.log", json!({"json_format": fields, "omit_empty_values": true})),
        file("text.log", text(false)),
        file("short.log", text(true)),
    ])
}

const OWN: &str = "spiffe://cluster.local/ns/default/sa/web";
const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

/// The transport socket of a server that requires client certificates issued by the mesh CA.
fn mutual_tls(state: &Path) -> Value {
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": certificates(state, OWN),
    }})
}

/// A host that requires mutual TLS with mesh certificates, and the cluster that reaches it.
async fn secured_host(state: &Path, tls: &Value, backend: &Backend) -> (Alone, Value) {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let mut listener = http_listener("far", "INBOUND", routes, json!({}));
    listener["filter_chains"][0]["transport_socket"] = tls.clone();
    let host = Alone::start(
        Plane::Topsail,
        &[listener],
        &[cluster("back", backend.address())],
        json!({}),
    )
    .await;
    let mut cluster = cluster("far", host.listener(0));
    cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "far.example",
        "common_tls_context": certificates(state, CLIENT),
    }});
    // Envoy's upstream TLS contexts default to at most TLS 1.2.
    cluster["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"]["tls_maximum_protocol_version"] =
        json!("TLSv1_3");
    (host, cluster)
}

/// A `CommonTlsContext` with a certificate for this identity that trusts the mesh CA.
fn certificates(state: &Path, identity: &str) -> Value {
    let opened = StateDir::open(state).unwrap();
    let ca = Ca::load_or_create(&opened, &"cluster.local".parse().unwrap(), &Clock::system()).unwrap();
    let issued = ca.issue(&identity.parse().unwrap(), &IssueOptions::default()).unwrap();
    let root = std::fs::read_to_string(state.join("ca/root-cert.pem")).unwrap();
    json!({
        "tls_certificates": [{
            "certificate_chain": {"inline_string": issued.chain_pem},
            "private_key": {"inline_string": issued.key_pem.expose()},
        }],
        "validation_context": {"trusted_ca": {"inline_string": root}},
        // The planes prefer different key exchange groups among those that both ends support.
        "tls_params": {"ecdh_curves": ["X25519"]},
    })
}

/// A host that reads a request and closes the connection without answering.
async fn reset_host() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    address
}

impl Stage {
    async fn start(plane: Plane, backend: Backend, tcp: &Backend, reset_host: SocketAddr, tls: &Secured) -> Self {
        let mut crowded = cluster("crowded", backend.address());
        crowded["circuit_breakers"] =
            json!({"thresholds": [{"max_connections": 0, "max_pending_requests": 0, "max_requests": 0}]});
        let mut empty = cluster("empty", backend.address());
        empty["load_assignment"]["endpoints"] = json!([]);
        let mut back = cluster("back", backend.address());
        back["alt_stat_name"] = json!("back;");
        let clusters = [
            back,
            cluster("dead", "127.0.0.1:1".parse().unwrap()),
            empty,
            crowded,
            cluster("hanging-up", reset_host),
            cluster("tcp", tcp.address()),
            tls.cluster.clone(),
        ];
        let to = |name: &str, more: Value| {
            let mut route = json!({"cluster": name});
            route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"name": name, "match": {"prefix": format!("/{name}")}, "route": route})
        };
        let mut retried = to(
            "back",
            json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}}),
        );
        retried["match"]["prefix"] = json!("/retried");
        let mut slow = to("back", json!({"timeout": "0.1s"}));
        slow["match"]["prefix"] = json!("/slow");
        let routes = json!([
            retried,
            slow,
            to("dead", json!({})),
            to("empty", json!({})),
            to("crowded", json!({})),
            to("hanging-up", json!({})),
            to("far", json!({})),
            {"name": "nobody", "match": {"prefix": "/nobody"}, "route": {"cluster_header": "x-cluster"}},
            {"name": "own", "match": {"prefix": "/own"}, "direct_response": {"status": 418, "body": {"inline_string": "teapot"}}},
            {"name": "elsewhere", "match": {"prefix": "/elsewhere"}, "redirect": {"path_redirect": "/there"}},
            to("back", json!({"prefix_rewrite": "/rewritten"})),
        ]);
        let http = |name, more: Value| {
            let mut manager = json!({"access_log": sinks()});
            manager
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            http_listener(name, "INBOUND", routes.clone(), manager)
        };
        let tcp = |name: &str, cluster: &str| {
            json!({"name": name, "filter_chains": [{"name": name, "filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name, "cluster": cluster, "access_log": sinks(),
            }}]}]})
        };
        let details = json!({"subject": true, "cert": true, "chain": true, "dns": true, "uri": true});
        let forward_details =
            json!({"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": details});
        let mut secured = http("secured", forward_details);
        secured["filter_chains"][0]["transport_socket"] = tls.server.clone();
        secured["listener_filters"] = json!([{"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        }}]);
        let edge = http("edge", json!({"use_remote_address": true, "server_name": "edge"}));
        let mut narrow = http("narrow", json!({}));
        narrow["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["domains"] =
            json!(["app.example"]);
        let listeners = [
            narrow,
            edge,
            secured,
            tcp("tcp-good", "tcp"),
            tcp("tcp-dead", "dead"),
            tcp("tcp-empty", "empty"),
            tcp("tcp-nobody", "nobody"),
        ];
        Self {
            alone: Alone::start(plane, &listeners, &clusters, json!({})).await,
            backend,
        }
    }

    /// Sends every request and returns the number of lines to expect.
    async fn send(&self, client: &Identity) -> usize {
        let call = |listener, case: &str, path: &str| {
            get(self.alone.listener(listener), "app.example", path)
                .header("x-case", case)
                .header("user-agent", "test agent")
                .header("x-request-id", "00000001-0000-4000-8000-000000000001")
        };
        call(0, "good", "/back/1?q=2&escaped=a%20b+c&q=3").expect(200).await;
        call(0, "http2", "/back").http2().expect(200).await;
        call(0, "body", "/back")
            .method(http::Method::POST)
            .body("a body of some length")
            .expect(200)
            .await;
        call(0, "forwarded", "/back")
            .header("x-forwarded-for", "6.6.6.6, 7.7.7.7")
            .expect(200)
            .await;
        call(1, "edge", "/back")
            .header("x-forwarded-for", "6.6.6.6, 7.7.7.7")
            .expect(200)
            .await;
        call(0, "no-route", "/missing").expect(404).await;
        get(self.alone.listener(0), "other.example", "/back")
            .header("x-case", "no-host")
            .header("x-request-id", "00000001-0000-4000-8000-000000000001")
            .expect(404)
            .await;
        call(0, "no-connection", "/dead").expect(503).await;
        call(0, "no-hosts", "/empty").expect(503).await;
        call(0, "overflow", "/crowded").expect(503).await;
        call(0, "no-cluster", "/nobody")
            .header("x-cluster", "nobody")
            .expect(503)
            .await;
        call(0, "timeout", "/slow")
            .header("x-echo-delay", "2000")
            .expect(504)
            .await;
        call(0, "retried", "/retried")
            .header("x-echo-status", "503")
            .expect(503)
            .await;
        call(0, "hung-up", "/hanging-up").expect(503).await;
        call(0, "far", "/far").expect(200).await;
        call(0, "own", "/own").expect(418).await;
        call(0, "redirect", "/elsewhere").expect(301).await;
        call(0, "grpc", "/missing")
            .method(http::Method::POST)
            .header("content-type", "application/grpc")
            .expect(200)
            .await;
        tls::send(&call(2, "secured", "/back"), Some(client)).await.unwrap();
        self.cancel_request().await;
        for listener in 3..7 {
            let stream = TcpStream::connect(self.alone.listener(listener)).await.unwrap();
            assert_eq!(answering(stream).await.is_ok(), listener == 3);
        }
        20 + 4
    }

    /// Sends a request and closes the connection as soon as the host has received it.
    async fn cancel_request(&self) {
        let seen = self.backend.seen().len();
        let mut stream = TcpStream::connect(self.alone.listener(0)).await.unwrap();
        let request =
            "GET /back HTTP/1.1\r\nhost: app.example\r\nx-case: gone\r\nx-request-id: 1\r\nx-echo-delay: 2000\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        eventually("the host receives the request", async || {
            match self.backend.seen().len() > seen {
                true => Ok(()),
                false => Err("not received".to_owned()),
            }
        })
        .await;
    }

    async fn lines(&self, file: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in {file}"), async || {
            let lines: Vec<_> = self.alone.wrote(file).lines().map(str::to_owned).collect();
            match lines.len() >= count {
                true => Ok(lines),
                false => Err(format!("{}: {lines:#?}", lines.len())),
            }
        })
        .await
    }

    /// The JSON lines by test case, with values that change from run to run masked.
    async fn objects(&self, file: &str, count: usize) -> Lines<Value> {
        let lines = self.lines(file, count).await;
        let lines = lines.iter().map(|line| {
            let mut object: Value = serde_json::from_str(line).unwrap();
            for name in ALIKE {
                if let Some(value) = object.get_mut(name) {
                    *value = match &*value {
                        Value::String(text) => masked(text).into(),
                        Value::Number(_) => "a number".into(),
                        other => other.clone(),
                    };
                }
            }
            for name in OPAQUE {
                if let Some(Value::String(id)) = object.get_mut(name) {
                    let id_of_request = id.starts_with("00000001-");
                    *id = if id_of_request {
                        "the request's".into()
                    } else {
                        format!("{} letters", id.len())
                    };
                }
            }
            let case = [&object["%REQ(X-CASE)%"], &object["%FILTER_CHAIN_NAME%"]];
            let case = case.map(|part| part.as_str().unwrap_or_default()).join(" ");
            // Each test has its own loopback network.
            let ours = self.alone.listener(0).ip().to_string();
            let network = ours.rsplit_once('.').unwrap().0;
            let text = object.to_string().replace(network, "own");
            (case, serde_json::from_str(&text).unwrap())
        });
        lines.collect()
    }

    async fn texts(&self, file: &str, count: usize) -> Vec<String> {
        let lines = self.lines(file, count).await;
        // The edge listener generates its own request id.
        let compared = lines.iter().filter(|line| !line.starts_with("edge"));
        let mut lines: Vec<_> = compared.map(|line| masked(line)).collect();
        lines.sort();
        lines
    }
}

async fn access_log_lines_match_envoy() {
    let state = tempfile::tempdir().unwrap();
    let client = Identity::issued(&state.path().join("state"), "cluster.local", CLIENT);
    let (server, tcp, reset_host) = (
        mutual_tls(&state.path().join("state")),
        Backend::tcp("tcpsv").await,
        reset_host().await,
    );
    let backend = Backend::http("app").await;
    let (_far, cluster) = secured_host(&state.path().join("state"), &server, &backend).await;
    let tls = Secured { server, cluster };
    let address = backend.address();
    let envoy = Stage::start(Plane::Envoy, backend, &tcp, reset_host, &tls).await;
    let count = envoy.send(&client).await;
    let envoys = (
        envoy.objects("json.log", count).await,
        envoy.objects("omitted.log", count).await,
        envoy.texts("text.log", count).await,
        envoy.texts("short.log", count).await,
    );
    let Stage { backend, alone } = envoy;
    drop(alone);
    assert_eq!(backend.address(), address);
    let topsail = Stage::start(Plane::Topsail, backend, &tcp, reset_host, &tls).await;
    topsail.send(&client).await;
    let mut differences = Vec::new();
    for (file, envoys) in [("json.log", &envoys.0), ("omitted.log", &envoys.1)] {
        let ours = topsail.objects(file, count).await;
        for (case, envoys) in envoys {
            let ours = ours.get(case).cloned().unwrap_or_default();
            let keys: std::collections::BTreeSet<_> = [&ours, envoys]
                .into_iter()
                .filter_map(Value::as_object)
                .flat_map(|object| object.keys())
                .collect();
            for key in keys {
                if ours.get(key) != envoys.get(key) {
                    differences.push(format!(
                        "{file} {case} {key}: {:?}, Envoy {:?}",
                        ours.get(key),
                        envoys.get(key)
                    ));
                }
            }
        }
    }
    for (file, envoys) in [("text.log", &envoys.2), ("short.log", &envoys.3)] {
        for (ours, envoys) in topsail.texts(file, count).await.iter().zip(envoys) {
            if ours != envoys {
                differences.push(format!("{file}:\n  {ours}\n  {envoys}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A file access logger with this name and filter that logs the test case only.
fn filtered(name: &str, filter: Value) -> Value {
    json!({"name": name, "filter": filter, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": format!("{{dir}}/{name}"),
        "log_format": {"text_format_source": {"inline_string": "%REQ(X-CASE)%\n"}},
    }})
}

async fn access_log_filters_select_the_same_requests() {
    let comparison = |op: &str, value: u32| json!({"op": op, "value": {"default_value": value, "runtime_key": "none"}});
    let status = |op: &str, value: u32| json!({"status_code_filter": {"comparison": comparison(op, value)}});
    let flags = |flags: &[&str]| json!({"response_flag_filter": {"flags": flags}});
    let share = |numerator: u32| json!({"runtime_filter": {"runtime_key": "none", "percent_sampled": {"numerator": numerator, "denominator": "MILLION"}}});
    let header = json!({"header_filter": {"header": {"name": "x-case", "string_match": {"prefix": "g"}}}});
    let slow = json!({"duration_filter": {"comparison": comparison("GE", 100)}});
    let wanted: [(&str, Value, &[&str]); 13] = [
        ("failures", status("GE", 500), &["dead", "failed"]),
        ("found", status("LE", 399), &["good", "grpc", "slow"]),
        ("missing", status("EQ", 404), &["missing"]),
        ("slow", slow, &["slow"]),
        ("flagged", flags(&[]), &["dead", "grpc", "missing"]),
        ("no-route", flags(&["NR", "UH"]), &["grpc", "missing"]),
        ("header", header.clone(), &["good", "grpc"]),
        // Without gRPC, the HTTP status is mapped to a gRPC status.
        (
            "grpc",
            json!({"grpc_status_filter": {"statuses": ["UNIMPLEMENTED"]}}),
            &["grpc", "missing"],
        ),
        (
            "and",
            json!({"and_filter": {"filters": [header.clone(), flags(&[])]}}),
            &["grpc"],
        ),
        (
            "or",
            json!({"or_filter": {"filters": [header, status("EQ", 404)]}}),
            &["good", "grpc", "missing"],
        ),
        // The first 32 bits of the request id, 0x10000 = 65536, modulo a million are compared to the percentage.
        ("less", share(65_536), &[]),
        (
            "more",
            share(65_537),
            &["dead", "failed", "good", "grpc", "missing", "slow"],
        ),
        ("traced", json!({"traceable_filter": {}}), &["slow"]),
    ];
    for plane in [Plane::Envoy, Plane::Topsail] {
        let backend = Backend::http("app").await;
        let sinks: Vec<_> = wanted
            .iter()
            .map(|(name, filter, _)| filtered(name, filter.clone()))
            .collect();
        let routes = json!([
            {"match": {"path": "/"}, "route": {"cluster": "back"}},
            {"match": {"path": "/dead"}, "route": {"cluster": "dead"}},
        ]);
        let manager = json!({"access_log": sinks, "tracing": {"random_sampling": {"value": 0}}});
        let clusters = [
            cluster("back", backend.address()),
            cluster("dead", "127.0.0.1:1".parse().unwrap()),
        ];
        let alone = Alone::start(
            plane,
            &[http_listener("in", "INBOUND", routes, manager)],
            &clusters,
            json!({}),
        )
        .await;
        let call = |case: &str, path: &str| {
            let call = get(alone.listener(0), "app.example", path).header("x-case", case);
            call.header("x-request-id", "00010000-0000-4000-8000-000000000000")
        };
        call("good", "/").header("x-client-trace-id", "1").expect(200).await;
        // The `a` in the request id means that a service of the mesh has forced tracing of this request.
        get(alone.listener(0), "app.example", "/")
            .header("x-case", "slow")
            .header("x-request-id", "00010000-0000-a000-8000-000000000000")
            .header("x-echo-delay", "120")
            .expect(200)
            .await;
        call("failed", "/").header("x-echo-status", "500").expect(500).await;
        call("missing", "/missing").expect(404).await;
        call("dead", "/dead").expect(503).await;
        let grpc = call("grpc", "/missing").method(http::Method::POST);
        grpc.header("content-type", "application/grpc").expect(200).await;
        for (name, _, cases) in &wanted {
            eventually(&format!("the lines of {name} on {plane:?}"), async || {
                let text = alone.wrote(name);
                let mut lines: Vec<_> = text.lines().collect();
                lines.sort_unstable();
                match lines == *cases {
                    true => Ok(()),
                    false => Err(format!("{lines:?}")),
                }
            })
            .await;
        }
    }
}

async fn reopening_logs_after_a_rename_writes_to_a_new_file() {
    for plane in [Plane::Envoy, Plane::Topsail] {
        let backend = Backend::http("app").await;
        let routes = json!([{"match": {"path": "/"}, "route": {"cluster": "back"}}]);
        let manager = json!({"access_log": [filtered("log", json!({"or_filter": {"filters": [
            {"not_health_check_filter": {}}, {"not_health_check_filter": {}},
        ]}}))]});
        let clusters = [cluster("back", backend.address())];
        let mut alone = Alone::start(
            plane,
            &[http_listener("in", "INBOUND", routes, manager)],
            &clusters,
            json!({}),
        )
        .await;
        alone.sidecar.allow_log("SIG");
        let case = async |case: &str, file: &str| {
            get(alone.listener(0), "app.example", "/")
                .header("x-case", case)
                .expect(200)
                .await;
            eventually(&format!("{case} is in {file} on {plane:?}"), async || {
                let text = alone.wrote(file);
                match text.lines().any(|line| line == case) {
                    true => Ok(()),
                    false => Err(text),
                }
            })
            .await;
        };
        case("before", "log").await;
        std::fs::rename(alone.path("log"), alone.path("log.1")).unwrap();
        case("moved", "log.1").await;
        get(alone.admin(), "admin", "/reopen_logs")
            .method(http::Method::POST)
            .expect(200)
            .await;
        case("after", "log").await;
        assert!(!alone.wrote("log.1").contains("after"));
        // SIGUSR1, which log rotation sends, does the same. SIGHUP is ignored.
        std::fs::rename(alone.path("log"), alone.path("log.2")).unwrap();
        alone.sidecar.signal(Signal::HUP);
        case("moved again", "log.2").await;
        alone.sidecar.signal(Signal::USR1);
        eventually("the log is reopened", async || {
            let call = get(alone.listener(0), "app.example", "/").header("x-case", "late");
            call.expect(200).await;
            let text = alone.wrote("log");
            text.lines().any(|line| line == "late").then_some(()).ok_or(text)
        })
        .await;
    }
}

async fn access_logs_are_flushed_when_the_proxy_exits() {
    for plane in [Plane::Envoy, Plane::Topsail] {
        let backend = Backend::http("app").await;
        let routes = json!([{"match": {"path": "/"}, "route": {"cluster": "back"}}]);
        let manager = json!({"access_log": [filtered("log", json!({"not_health_check_filter": {}}))]});
        let clusters = [cluster("back", backend.address())];
        let listeners = [http_listener("in", "INBOUND", routes, manager)];
        let alone = Alone::start(plane, &listeners, &clusters, json!({})).await;
        for case in ["first", "second", "third"] {
            let call = get(alone.listener(0), "app.example", "/").header("x-case", case);
            call.expect(200).await;
        }
        get(alone.admin(), "admin", "/quitquitquit")
            .method(http::Method::POST)
            .expect(200)
            .await;
        eventually(&format!("all lines are written on {plane:?}"), async || {
            let text = alone.wrote("log");
            match text == "first\nsecond\nthird\n" {
                true => Ok(()),
                false => Err(text),
            }
        })
        .await;
    }
}
