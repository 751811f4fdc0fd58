//! Scarce resources: handshake and inspection timeouts, connection limits, file descriptors, and slow readers.

use rcgen::generate_simple_self_signed;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::tls::{Authority, acceptor_with};
use super::harness::wire::Wire;
use super::harness::{Backend, Identity, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    connections_with_malformed_or_stalled_tls_handshakes_are_closed,
    listener_filters_that_time_out_close_or_continue,
    slow_readers_apply_back_pressure,
    connections_beyond_the_global_limit_are_closed_at_once,
    upstream_tls_failures_are_reported_in_response_flags_and_details,
    requests_fail_with_503_uf_without_file_descriptors_for_upstreams,
}

/// The most that may be buffered between a writer and a reader that does not read: in four socket buffers and in the
/// data plane.
const MAX_BUFFERED: usize = 40 << 20;

async fn connections_with_malformed_or_stalled_tls_handshakes_are_closed(which: Plane) {
    let backend = Backend::http("echo").await;
    let own = generate_simple_self_signed(["web".to_owned()]).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let mut listener = http_listener("in", "INBOUND", routes, json!({}));
    let chain = &mut listener["filter_chains"][0];
    chain["transport_socket_connect_timeout"] = json!("0.3s");
    chain["transport_socket"] = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"inline_string": own.cert.pem()},
                "private_key": {"inline_string": own.signing_key.serialize_pem()},
            }]},
        },
    });
    let alone = Alone::start(which, &[listener], &[cluster("back", backend.address())], json!({})).await;
    // Nothing; half a record; a malformed record; plain HTTP; a record header with an invalid length.
    for sent in [
        &b""[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16\x03\x01\x00\x05hello",
        b"GET / HTTP/1.1\r\nhost: web\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01",
    ] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(sent).await;
        let end = wire.end().await;
        assert!(!end.starts_with(b"HTTP"), "{}", end.escape_ascii());
    }
    assert_eq!(backend.seen().len(), 0);
}

async fn connections_beyond_the_global_limit_are_closed_at_once(which: Plane) {
    let backend = Backend::http("echo").await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let listener = |name: &str| http_listener(name, "INBOUND", routes.clone(), json!({}));
    let mut unlimited = listener("unlimited");
    unlimited["ignore_global_conn_limit"] = json!(true);
    let monitor =
        "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
    let overload = json!({"overload_manager": {"resource_monitors": [{
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": monitor, "max_active_downstream_connections": 4},
    }]}});
    let clusters = [cluster("back", backend.address())];
    let alone = Alone::start(which, &[listener("in"), unlimited], &clusters, overload).await;
    let ask = async |listener: usize| {
        let mut wire = Wire::open(alone.listener(listener)).await;
        wire.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        wire.answer().await.map(|_| wire)
    };
    let mut open = Vec::new();
    while let Some(wire) = ask(0).await {
        open.push(wire);
        assert!(open.len() <= 4, "there is no limit");
    }
    // With Envoy, a connection to the admin interface may count as well.
    assert!(open.len() >= 3, "{}", open.len());
    assert!(ask(1).await.is_some());
    let name = format!("listener.{}_8080.downstream_global_cx_overflow", alone.listener(0).ip());
    assert_eq!(alone.sidecar.stats("global_cx_overflow").await[&name], 1);
    open.pop();
    eventually("a new connection is accepted", async || match ask(0).await {
        Some(_) => Ok(()),
        None => Err("closed".to_owned()),
    })
    .await;
}

async fn listener_filters_that_time_out_close_or_continue(which: Plane) {
    let backend = Backend::http("echo").await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let mut ends = http_listener("ends", "INBOUND", routes, json!({}));
    ends["listener_filters_timeout"] = json!("0.3s");
    ends["listener_filters"] = json!([{
        "name": "tls",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
    }]);
    let mut goes_on = ends.clone();
    goes_on["name"] = json!("goes_on");
    goes_on["continue_on_listener_filters_timeout"] = json!(true);
    let back = cluster("back", backend.address());
    let alone = Alone::start(which, &[ends, goes_on], &[back], json!({})).await;
    // Nothing, and the start of a TLS record.
    for sent in [&b""[..], b"\x16\x03\x01\x02"] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(sent).await;
        assert_eq!(wire.end().await, b"");
    }
    let mut wire = Wire::open(alone.listener(1)).await;
    let given_up = format!("listener.{}_8080.downstream_pre_cx_timeout", alone.listener(1).ip());
    eventually("the listener filter times out", async || {
        match alone.sidecar.stats("downstream_pre_cx_timeout").await.get(&given_up) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    wire.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
}

/// How a host that is expected to speak TLS behaves.
#[derive(Clone)]
enum Behaviour {
    /// Sends these bytes.
    Says(&'static [u8]),
    /// Sends nothing.
    Waits,
    /// Closes the connection.
    Closes,
    /// Speaks TLS with this certificate and key.
    Shows((String, String)),
}

async fn host_with(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let behaviour = behaviour.clone();
            tokio::spawn(async move {
                // The client sends first.
                let (certificate, key) = match behaviour {
                    Behaviour::Shows(identity) => identity,
                    Behaviour::Says(said) => {
                        stream.read_u8().await?;
                        stream.write_all(said).await?;
                        return std::future::pending().await;
                    }
                    Behaviour::Waits => return std::future::pending().await,
                    Behaviour::Closes => return stream.read_u8().await.map(|_| ()),
                };
                let mut stream = acceptor_with(Identity::of(&certificate, &key)).accept(stream).await?;
                stream.read_u8().await?;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
                    .await?;
                std::future::pending::<std::io::Result<()>>().await
            });
        }
    });
    address
}

async fn upstream_tls_failures_are_reported_in_response_flags_and_details(which: Plane) {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let cases = [
        ("good", Behaviour::Shows(known.issue("web.example", 2100)), ""),
        (
            "another-name",
            Behaviour::Shows(known.issue("other.example", 2100)),
            "|TLS_error:",
        ),
        (
            "expired",
            Behaviour::Shows(known.issue("web.example", 2020)),
            "|TLS_error:",
        ),
        (
            "unknown-root",
            Behaviour::Shows(unknown.issue("web.example", 2100)),
            "|TLS_error:",
        ),
        (
            "garbage",
            Behaviour::Says(b"garbage garbage garbage garbage"),
            "|TLS_error:",
        ),
        (
            "http",
            Behaviour::Says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
            "|TLS_error:",
        ),
        ("alert", Behaviour::Says(b"\x15\x03\x03\x00\x02\x02\x28"), "|TLS_error:"),
        ("closes", Behaviour::Closes, "|TLS_error:"),
        ("silence", Behaviour::Waits, ""),
    ];
    let mut clusters = Vec::new();
    for (name, behaviour, _) in &cases {
        let mut cluster = cluster(name, host_with(behaviour.clone()).await);
        if *name == "silence" {
            cluster["connect_timeout"] = json!("0.3s");
        }
        let san = json!({"san_type": "DNS", "matcher": {"exact": "web.example"}});
        cluster["transport_socket"] = json!({
            "name": "tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "web.example",
                "common_tls_context": {"validation_context": {
                    "trusted_ca": {"inline_string": known.pem},
                    "match_typed_subject_alt_names": [san],
                }},
            },
        });
        clusters.push(cluster);
    }
    let routes: Vec<_> = cases
        .iter()
        .map(|(name, ..)| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name}}))
        .collect();
    let log =
        "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n";
    let listener = http_listener("in", "OUTBOUND", json!(routes), json!({"access_log": access_log(log)}));
    let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    let mut lines = Vec::new();
    for (name, _, reason) in &cases {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(format!("GET /{name} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes())
            .await;
        let said = wire.answer().await.unwrap();
        if *name == "good" {
            assert_eq!((said.status, said.body.as_str()), (200, "good"));
            lines.push("/good 200 - via_upstream -".to_owned());
            continue;
        }
        let why = if *name == "silence" {
            "connection timeout"
        } else {
            "remote connection failure"
        };
        // Details of TLS failures are not sent to the client.
        let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {why}");
        assert_eq!((said.status, said.body), (503, text), "{name}");
        let why = why.replace(' ', "_");
        lines.push(format!(
            "/{name} 503 UF upstream_reset_before_response_started{{{why}{reason}}} {}",
            if reason.is_empty() { "-" } else { "TLS_error:" }
        ));
    }
    eventually("the log", async || {
        let written: Vec<_> = alone.wrote("access.log").lines().map(without_tls_error_text).collect();
        (written == lines)
            .then_some(())
            .ok_or(format!("{written:#?} instead of {lines:#?}"))
    })
    .await;
}

/// A log line without the text after each `TLS_error:`, up to the closing brace, which depends on the TLS library.
fn without_tls_error_text(line: &str) -> String {
    let mut kept = String::new();
    for (number, part) in line.split("TLS_error:").enumerate() {
        match number {
            0 => kept.push_str(part),
            _ => {
                kept.push_str("TLS_error:");
                kept.push_str(part.find('}').map_or("", |end| &part[end..]));
            }
        }
    }
    kept
}

/// Writes until writing blocks, and returns the number of bytes written.
async fn flood(stream: &mut TcpStream) -> usize {
    let (piece, mut taken) = ([b'a'; 1 << 16], 0);
    while taken < 2 * MAX_BUFFERED {
        match timeout(Duration::from_secs(1), stream.write(&piece)).await {
            Ok(Ok(len)) => taken += len,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    taken
}

async fn slow_readers_apply_back_pressure(which: Plane) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = host.local_addr().unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}}]);
    let listener = http_listener("in", "INBOUND", routes, json!({"stream_idle_timeout": "0s"}));
    let alone = Alone::start(which, &[listener], &[cluster("back", address)], json!({})).await;

    // The client does not read the response.
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(b"GET /answer HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let (mut answers, _) = host.accept().await.unwrap();
    assert!(answers.read(&mut [0; 1024]).await.unwrap() > 0);
    answers.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let taken = flood(&mut answers).await;
    assert!(taken < MAX_BUFFERED, "{taken}");

    // The host does not read the request.
    let mut stream = TcpStream::connect(alone.listener(0)).await.unwrap();
    let head = format!(
        "POST /request HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n",
        usize::MAX >> 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (reads, _) = host.accept().await.unwrap();
    let taken = flood(&mut stream).await;
    assert!(taken < MAX_BUFFERED, "{taken}");
    drop(reads);
}

/// Limits the number of file descriptors of a process, or removes the limit.
fn limit_descriptors(process: u32, most: Option<u64>) {
    let whole = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: most.or(whole.current),
        ..whole
    };
    prlimit(Pid::from_raw(i32::try_from(process).unwrap()), Resource::Nofile, limit).unwrap();
}

fn descriptors(process: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64
}

async fn requests_fail_with_503_uf_without_file_descriptors_for_upstreams(which: Plane) {
    let backend = Backend::http("echo").await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let log = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n";
    let listener = http_listener("in", "INBOUND", routes, json!({"access_log": access_log(log)}));
    let clusters = [cluster("back", backend.address())];
    let mut alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    alone.sidecar.allow_log("envoy_bug");
    let process = alone.sidecar.id();
    let mut wire = Wire::open(alone.listener(0)).await;
    let ask = async |wire: &mut Wire| {
        wire.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        wire.answer().await.unwrap()
    };
    // The client's connection is accepted; the host has none yet.
    let name = "http.in.downstream_cx_active";
    eventually("the connection is accepted", async || {
        let active = alone.sidecar.stats(name).await[name];
        (active == 1).then_some(()).ok_or(active.to_string())
    })
    .await;
    limit_descriptors(process, Some(0));
    for _ in 0..3 {
        let said = ask(&mut wire).await;
        let text = "upstream connect error or disconnect/reset before headers. reset reason: local connection failure";
        assert_eq!((said.status, said.body.as_str()), (503, text));
    }
    limit_descriptors(process, None);
    assert_eq!(ask(&mut wire).await.status, 200);
    let why = "local_connection_failure|socket_creation_failure";
    let none = &format!("503 UF upstream_reset_before_response_started{{{why}}} socket_creation_failure");
    alone
        .logged(&[none, none, none, &"200 - via_upstream -".to_owned()])
        .await;
}

/// New connections are accepted once file descriptors are available again.
#[tokio::test]
async fn without_file_descriptors_new_connections_wait_and_existing_ones_are_served() {
    let backend = Backend::http("echo").await;
    // Direct responses need no file descriptor for a connection to a host.
    let routes = json!([
        {"match": {"path": "/here"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/"}, "route": {"cluster": "back"}},
    ]);
    let listener = http_listener("in", "INBOUND", routes, json!({}));
    let mut alone = Alone::start(
        Plane::Topsail,
        &[listener],
        &[cluster("back", backend.address())],
        json!({}),
    )
    .await;
    alone.sidecar.allow_log("failed to accept connections");
    let request = b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n";
    let here = b"GET /here HTTP/1.1\r\nhost: web\r\n\r\n";
    let mut existing = Wire::open(alone.listener(0)).await;
    existing.send(request).await;
    assert_eq!(existing.answer().await.unwrap().status, 200);

    let process = alone.sidecar.id();
    limit_descriptors(process, Some(descriptors(process) + 3));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(request).await;
        waiting.push(wire);
    }
    for _ in 0..10 {
        existing.send(here).await;
        assert_eq!(existing.answer().await.unwrap().status, 200);
    }
    limit_descriptors(process, None);
    // Connections accepted with the last descriptors may fail to reach the host; those that waited do not.
    let mut answered = 0;
    for mut wire in waiting {
        answered += u32::from(wire.answer().await.unwrap().status == 200);
    }
    assert!(answered >= 15, "{answered}");
    get(alone.listener(0), "web", "/a").expect(200).await;
}
