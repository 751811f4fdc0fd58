//! What there is not enough of: time, file descriptors, memory, and readers.

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
    handshakes_that_are_none_or_never_end_are_ended,
    inspections_that_never_end_are_ended_or_given_up,
    who_does_not_read_holds_back_who_writes,
    connections_beyond_the_limit_are_closed_at_once,
    hosts_that_speak_no_tls_are_told_apart,
    without_descriptors_for_hosts_requests_are_503_uf,
}

/// How much may be under way between a writer and a reader that does not read: the buffers of the system on four sockets,
/// and of the data plane.
const UNDER_WAY: usize = 40 << 20;

async fn handshakes_that_are_none_or_never_end_are_ended(which: Plane) {
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
    // Nothing; half a record; a record of nonsense; no TLS at all; the head of a record that is longer than any.
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

async fn connections_beyond_the_limit_are_closed_at_once(which: Plane) {
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
    // With Envoy, a connection to the admin interface may have counted.
    assert!(open.len() >= 3, "{}", open.len());
    assert!(ask(1).await.is_some());
    let name = format!("listener.{}_8080.downstream_global_cx_overflow", alone.listener(0).ip());
    assert_eq!(alone.sidecar.stats("global_cx_overflow").await[&name], 1);
    open.pop();
    eventually("there is room again", async || match ask(0).await {
        Some(_) => Ok(()),
        None => Err("there is none".to_owned()),
    })
    .await;
}

async fn inspections_that_never_end_are_ended_or_given_up(which: Plane) {
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
    // Nothing, and a first byte of TLS.
    for sent in [&b""[..], b"\x16\x03\x01\x02"] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(sent).await;
        assert_eq!(wire.end().await, b"");
    }
    let mut wire = Wire::open(alone.listener(1)).await;
    let given_up = format!("listener.{}_8080.downstream_pre_cx_timeout", alone.listener(1).ip());
    eventually("the inspection is given up", async || {
        match alone.sidecar.stats("downstream_pre_cx_timeout").await.get(&given_up) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    wire.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
}

/// What a host that is to speak TLS does instead.
#[derive(Clone)]
enum Instead {
    /// It says this.
    Says(&'static [u8]),
    /// It waits.
    Waits,
    /// It closes the connection.
    Closes,
    /// It does speak TLS, with this certificate and key.
    Shows((String, String)),
}

async fn host_that(instead: Instead) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let instead = instead.clone();
            tokio::spawn(async move {
                // The first words are the client's.
                let (certificate, key) = match instead {
                    Instead::Shows(identity) => identity,
                    Instead::Says(said) => {
                        stream.read_u8().await?;
                        stream.write_all(said).await?;
                        return std::future::pending().await;
                    }
                    Instead::Waits => return std::future::pending().await,
                    Instead::Closes => return stream.read_u8().await.map(|_| ()),
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

async fn hosts_that_speak_no_tls_are_told_apart(which: Plane) {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let cases = [
        ("good", Instead::Shows(known.issue("web.example", 2100)), ""),
        (
            "another-name",
            Instead::Shows(known.issue("other.example", 2100)),
            "|TLS_error:",
        ),
        (
            "expired",
            Instead::Shows(known.issue("web.example", 2020)),
            "|TLS_error:",
        ),
        (
            "unknown-root",
            Instead::Shows(unknown.issue("web.example", 2100)),
            "|TLS_error:",
        ),
        (
            "garbage",
            Instead::Says(b"garbage garbage garbage garbage"),
            "|TLS_error:",
        ),
        (
            "http",
            Instead::Says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
            "|TLS_error:",
        ),
        ("alert", Instead::Says(b"\x15\x03\x03\x00\x02\x02\x28"), "|TLS_error:"),
        ("closes", Instead::Closes, "|TLS_error:"),
        ("silence", Instead::Waits, ""),
    ];
    let mut clusters = Vec::new();
    for (name, instead, _) in &cases {
        let mut cluster = cluster(name, host_that(instead.clone()).await);
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
        // What exactly it was is not the client's affair.
        let text = format!("upstream connect error or disconnect/reset before headers. reset reason: {why}");
        assert_eq!((said.status, said.body), (503, text), "{name}");
        let why = why.replace(' ', "_");
        lines.push(format!(
            "/{name} 503 UF upstream_reset_before_response_started{{{why}{reason}}} {}",
            if reason.is_empty() { "-" } else { "TLS_error:" }
        ));
    }
    eventually("the log", async || {
        let written: Vec<_> = alone
            .wrote("access.log")
            .lines()
            .map(without_words_of_libraries)
            .collect();
        (written == lines)
            .then_some(())
            .ok_or(format!("{written:#?} instead of {lines:#?}"))
    })
    .await;
}

/// A line of a log in which each mention of `TLS_error:` goes on in the words of a library of TLS, up to the end of what
/// is told.
fn without_words_of_libraries(line: &str) -> String {
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

/// Writes until nobody takes any more, and returns how much was taken.
async fn flood(stream: &mut TcpStream) -> usize {
    let (piece, mut taken) = ([b'a'; 1 << 16], 0);
    while taken < 2 * UNDER_WAY {
        match timeout(Duration::from_secs(1), stream.write(&piece)).await {
            Ok(Ok(len)) => taken += len,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    taken
}

async fn who_does_not_read_holds_back_who_writes(which: Plane) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = host.local_addr().unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}}]);
    let listener = http_listener("in", "INBOUND", routes, json!({"stream_idle_timeout": "0s"}));
    let alone = Alone::start(which, &[listener], &[cluster("back", address)], json!({})).await;

    // The client does not read the answer.
    let mut client = Wire::open(alone.listener(0)).await;
    client.send(b"GET /answer HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let (mut answers, _) = host.accept().await.unwrap();
    assert!(answers.read(&mut [0; 1024]).await.unwrap() > 0);
    answers.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let taken = flood(&mut answers).await;
    assert!(taken < UNDER_WAY, "{taken}");

    // The host does not read the request.
    let mut stream = TcpStream::connect(alone.listener(0)).await.unwrap();
    let head = format!(
        "POST /request HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n",
        usize::MAX >> 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (reads, _) = host.accept().await.unwrap();
    let taken = flood(&mut stream).await;
    assert!(taken < UNDER_WAY, "{taken}");
    drop(reads);
}

/// Lets a process have so many file descriptors, or as many as it likes.
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

async fn without_descriptors_for_hosts_requests_are_503_uf(which: Plane) {
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
    // Its connection is accepted by the time it is answered; that to the host is closed.
    let name = "http.in.downstream_cx_active";
    eventually("the connection is there", async || {
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

/// Connections that are there go on, those that come wait, and both is over when there are file descriptors again.
#[tokio::test]
async fn without_file_descriptors_there_are_no_new_connections_and_the_others_go_on() {
    let backend = Backend::http("echo").await;
    // What is answered here needs no connection to a host, for which there may be no file descriptor either.
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
    alone.sidecar.allow_log("cannot accept connections");
    let request = b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n";
    let here = b"GET /here HTTP/1.1\r\nhost: web\r\n\r\n";
    let mut there = Wire::open(alone.listener(0)).await;
    there.send(request).await;
    assert_eq!(there.answer().await.unwrap().status, 200);

    let process = alone.sidecar.id();
    limit_descriptors(process, Some(descriptors(process) + 3));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(request).await;
        waiting.push(wire);
    }
    for _ in 0..10 {
        there.send(here).await;
        assert_eq!(there.answer().await.unwrap().status, 200);
    }
    limit_descriptors(process, None);
    // Those that were accepted may have been without a connection to the host; those that waited were not.
    let mut answered = 0;
    for mut wire in waiting {
        answered += u32::from(wire.answer().await.unwrap().status == 200);
    }
    assert!(answered >= 15, "{answered}");
    get(alone.listener(0), "web", "/a").expect(200).await;
}
