//! The PROXY protocol, from a proxy in front of the data plane and to upstream hosts.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::alone::{Alone, cluster, cluster_http2, http_listener};
use crate::harness::wire::Wire;
use crate::harness::{Backend, Plane, answering, eventually, get, tls};
use crate::on_each_plane;

on_each_plane! {
    addresses_are_taken_from_the_proxy_protocol_header,
    invalid_proxy_protocol_headers_close_the_connection,
    connections_without_a_header_are_accepted_if_allowed,
    filter_chains_match_the_addresses_in_the_header,
    proxy_protocol_headers_are_sent_to_upstream_hosts,
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const ADDRESSES: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];

/// Stands for the client's own address, without one in a header: for loopback, Envoy forwards the machine's address.
const OWN: &str = "own";

/// A header of version 2.
fn two(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &len, rest].concat()
}

fn filter(more: Value) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"name": "envoy.filters.listener.proxy_protocol", "typed_config": config})
}

/// A listener with the PROXY protocol filter, which logs the addresses of each connection.
async fn start(plane: Plane, backend: &Backend, protocol: Value) -> Alone {
    let addresses = "%REQ(X-CASE)% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT% %DOWNSTREAM_LOCAL_ADDRESS% \
        %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%\n";
    let manager = json!({"use_remote_address": true, "access_log": [{"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "{dir}/log",
        "log_format": {"text_format_source": {"inline_string": addresses}},
    }}]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let mut listener = http_listener("in", "INBOUND", routes, manager);
    listener["listener_filters"] = json!([filter(protocol)]);
    Alone::start(plane, &[listener], &[cluster("back", backend.address())], json!({})).await
}

/// An upstream transport socket that sends the header before plain text.
fn proxy_protocol_socket(version: &str) -> Value {
    let raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    json!({"name": "told", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config": {"version": version},
        "transport_socket": {"name": "raw", "typed_config": {"@type": raw}},
    }})
}

async fn proxy_protocol_headers_are_sent_to_upstream_hosts(plane: Plane) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = host.local_addr().unwrap();
    let with_header = |name: &str, version: &str, mut cluster: Value| {
        cluster["name"] = json!(name);
        cluster["load_assignment"]["cluster_name"] = json!(name);
        cluster["transport_socket"] = proxy_protocol_socket(version);
        cluster
    };
    let clusters = [
        with_header("one", "V1", cluster("one", address)),
        with_header("two", "V2", cluster("two", address)),
        with_header("http2", "V1", cluster_http2("http2", address)),
    ];
    let to = |name: &str| json!({"match": {"prefix": format!("/{name}")}, "route": {"cluster": name}});
    let tcp = json!({"name": "tcp", "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "one",
    }}]}]});
    let web = http_listener("in", "INBOUND", json!([to("one"), to("two"), to("http2")]), json!({}));
    let alone = Alone::start(plane, &[web, tcp], &clusters, json!({})).await;
    let line = |client: &TcpStream, to: SocketAddr| {
        let own = client.local_addr().unwrap();
        format!("PROXY TCP4 {} {} {} {}\r\n", own.ip(), to.ip(), own.port(), to.port())
    };
    let ask = async |client: &mut TcpStream, path: &str| {
        let asked = format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n");
        client.write_all(asked.as_bytes()).await.unwrap();
    };

    // Two requests of one client share an upstream connection; another client gets a different one.
    for _ in 0..2 {
        let mut client = TcpStream::connect(alone.listener(0)).await.unwrap();
        ask(&mut client, "/one").await;
        let (mut connection, _) = host.accept().await.unwrap();
        let expected = format!("{}GET /one ", line(&client, alone.listener(0)));
        for expected in [expected.as_str(), "GET /one/again "] {
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n") || received.len() <= expected.len() {
                received.push(connection.read_u8().await.unwrap());
            }
            let received = String::from_utf8(received).unwrap();
            assert!(received.starts_with(expected), "{received} instead of {expected}");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            connection.write_all(answer).await.unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"\r\n\r\nok") {
                said.push(client.read_u8().await.unwrap());
            }
            if expected.starts_with("PROXY") {
                ask(&mut client, "/one/again").await;
            }
        }
    }

    let mut client = TcpStream::connect(alone.listener(0)).await.unwrap();
    ask(&mut client, "/two").await;
    let (mut connection, _) = host.accept().await.unwrap();
    let mut received = [0; 28];
    connection.read_exact(&mut received).await.unwrap();
    let port = |address: SocketAddr| address.port().to_be_bytes();
    assert_eq!(received[..16], two(0x21, 0x11, &[0; 12])[..16]);
    assert_eq!(received[24..26], port(client.local_addr().unwrap()));
    assert_eq!(received[26..], port(alone.listener(0)));

    let mut client = TcpStream::connect(alone.listener(0)).await.unwrap();
    ask(&mut client, "/http2").await;
    let (mut connection, _) = host.accept().await.unwrap();
    let expected = format!("{}PRI * HTTP/2.0\r\n", line(&client, alone.listener(0)));
    let mut received = vec![0; expected.len()];
    connection.read_exact(&mut received).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&received), expected);

    let mut client = TcpStream::connect(alone.listener(1)).await.unwrap();
    client.write_all(b"word").await.unwrap();
    let (mut connection, _) = host.accept().await.unwrap();
    let expected = format!("{}word", line(&client, alone.listener(1)));
    let mut received = vec![0; expected.len()];
    connection.read_exact(&mut received).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&received), expected);
}

fn request(case: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: app.example\r\nx-case: {case}\r\n\r\n").into_bytes()
}

/// `x-forwarded-for` of a request that follows these bytes; `None` if the connection is closed instead.
async fn forwarded_for(alone: &Alone, header: &[u8], case: &str) -> Option<String> {
    let mut wire = Wire::open(alone.listener(0)).await;
    wire.send(&[header, &request(case)].concat()).await;
    let said = wire.answer().await?;
    assert_eq!(said.status, 200, "{said:?}");
    let seen: Value = serde_json::from_str(&said.body).unwrap();
    let client = seen["headers"]["x-forwarded-for"].as_str().unwrap();
    let in_header = header.windows(client.len()).any(|part| part == client.as_bytes());
    let binary = ["1.2.3.4", "2020:2020:2020:2020:2020:2020:2020:2020"].contains(&client);
    Some(if in_header || binary { client } else { OWN }.to_owned())
}

async fn addresses_are_taken_from_the_proxy_protocol_header(plane: Plane) {
    let backend = Backend::http("app").await;
    let alone = start(plane, &backend, json!({"stat_prefix": "edge"})).await;
    let own = alone.listener(0);
    let extended = [&ADDRESSES[..], &[4, 0, 0, 5, 0, 2, 1, 1]].concat();
    let v6 = [&[0x20; 16][..], &[0x21; 16], &[0, 7, 0, 8]].concat();
    let v6_source = "2020:2020:2020:2020:2020:2020:2020:2020";
    let v6_destination = "2121:2121:2121:2121:2121:2121:2121:2121";
    let cases: [(&str, &[u8], String, String); 7] = [
        (
            "line",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "1.2.3.4".into(),
            "1.2.3.4:80 80 5.6.7.8:443".into(),
        ),
        (
            "line6",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 80 443\r\n",
            "2001:db8::1".into(),
            "[2001:db8::1]:80 80 [2001:db8::2]:443".into(),
        ),
        (
            "unknown",
            b"PROXY UNKNOWN and so on\r\n",
            OWN.into(),
            format!("127.0.0.1:PORT PORT {own}"),
        ),
        (
            "two",
            &two(0x21, 0x11, &ADDRESSES),
            "1.2.3.4".into(),
            "1.2.3.4:80 80 5.6.7.8:443".into(),
        ),
        (
            "extended",
            &two(0x21, 0x11, &extended),
            "1.2.3.4".into(),
            "1.2.3.4:80 80 5.6.7.8:443".into(),
        ),
        (
            "six",
            &two(0x21, 0x21, &v6),
            v6_source.into(),
            format!("[{v6_source}]:7 7 [{v6_destination}]:8"),
        ),
        (
            "local",
            &two(0x20, 0x11, &[0; 700]),
            OWN.into(),
            format!("127.0.0.1:PORT PORT {own}"),
        ),
    ];
    for (case, header, client, _) in &cases {
        assert_eq!(
            forwarded_for(&alone, header, case).await.as_ref(),
            Some(client),
            "{case}"
        );
    }
    let logged = |case: &str| {
        let text = alone.wrote("log");
        let line = text.lines().find(|line| line.starts_with(&format!("{case} ")))?;
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        // Without addresses in the header, the port is an ephemeral one.
        if words[1].starts_with("127.0.0.1:") {
            words[1] = "127.0.0.1:PORT".into();
            words[2] = "PORT".into();
        }
        Some(words.join(" "))
    };
    for (case, _, _, addresses) in &cases {
        let line = eventually("the request is logged", async || {
            logged(case).ok_or_else(|| alone.wrote("log"))
        })
        .await;
        assert_eq!(line, format!("{case} {addresses} 127.0.0.1"));
    }
    let stats = alone.sidecar.stats("proxy_proto").await;
    assert_eq!(stats["proxy_proto.edge.versions.v1.found"], 3);
    assert_eq!(stats["proxy_proto.edge.versions.v2.found"], 4);
}

async fn invalid_proxy_protocol_headers_close_the_connection(plane: Plane) {
    let backend = Backend::http("app").await;
    let alone = start(plane, &backend, json!({"disallowed_versions": ["V2"]})).await;
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let headers: [&[u8]; 12] = [
        b"",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n",
        b"PROXY TCP4 1::2 ::3 80 443\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
        b"PROXY TCP4 0.0.0.0 5.6.7.8 80 443\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY \r\n",
        long.as_bytes(),
        &two(0x21, 0x11, &ADDRESSES),
        &two(0x22, 0x11, &ADDRESSES),
        &two(0x21, 0x31, &[0; 216]),
        &two(0x21, 0x11, &ADDRESSES[..11]),
    ];
    for header in headers {
        let found = forwarded_for(&alone, header, "bad").await;
        assert_eq!(found, None, "{}", header.escape_ascii());
    }
    assert_eq!(backend.seen().len(), 0);
    let good = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n";
    assert_eq!(forwarded_for(&alone, good, "good").await.unwrap(), "1.2.3.4");
}

async fn connections_without_a_header_are_accepted_if_allowed(plane: Plane) {
    let backend = Backend::http("app").await;
    let alone = start(plane, &backend, json!({"allow_requests_without_proxy_protocol": true})).await;
    assert_eq!(forwarded_for(&alone, b"", "without").await.unwrap(), OWN);
    let header = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n";
    assert_eq!(forwarded_for(&alone, header, "with").await.unwrap(), "1.2.3.4");
    assert_eq!(forwarded_for(&alone, b"PROXY \r\n", "bad").await, None);
    let stats = alone.sidecar.stats("proxy_proto").await;
    assert_eq!(stats["proxy_proto.not_found_allowed"], 1);
    assert_eq!(stats["proxy_proto.versions.v1.found"], 1);
    assert_eq!(stats["proxy_proto.versions.v1.error"], 1);
}

async fn filter_chains_match_the_addresses_in_the_header(plane: Plane) {
    let (secure, plain) = (Backend::tls("tlssv").await, Backend::tcp("plain").await);
    let chain = |name: &str, wanted: Value| {
        json!({"name": name, "filter_chain_match": wanted, "filters": [{"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name, "cluster": name,
        }}]})
    };
    let listener = json!({
        "name": "in",
        "listener_filters": [filter(json!({})), {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        }}],
        "filter_chains": [
            chain("secure", json!({"destination_port": 443, "server_names": ["app.example"]})),
            chain("plain", json!({
                "source_prefix_ranges": [{"address_prefix": "1.2.3.0", "prefix_len": 24}],
                "direct_source_prefix_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}],
            })),
        ],
    });
    let clusters = [cluster("secure", secure.address()), cluster("plain", plain.address())];
    let alone = Alone::start(plane, &[listener], &clusters, json!({})).await;
    let open = async |header: &str| {
        let mut stream = TcpStream::connect(alone.listener(0)).await.unwrap();
        stream.write_all(header.as_bytes()).await.unwrap();
        stream
    };
    let stream = open("PROXY TCP4 9.9.9.9 5.6.7.8 80 443\r\n").await;
    let stream = tls::over(stream, "app.example", None, &[]).await.unwrap();
    assert_eq!(answering(stream).await.unwrap(), "tlssv");
    let stream = open("PROXY TCP4 1.2.3.4 5.6.7.8 80 80\r\n").await;
    assert_eq!(answering(stream).await.unwrap(), "plain");
    let stream = open("PROXY TCP4 9.9.9.9 5.6.7.8 80 80\r\n").await;
    answering(stream).await.unwrap_err();
    // Without a header the connection is closed.
    get(alone.listener(0), "app.example", "/").send().await.unwrap_err();
}
