//! Listeners with additional addresses, including Unix domain sockets.

use std::net::{IpAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::alone::{Alone, cluster, http_listener};
use crate::harness::{Backend, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    every_address_of_a_listener_accepts_connections,
}

/// Sends one request and returns what the backend echoes about it.
async fn seen(stream: UnixStream, case: &str) -> Value {
    stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: app.example\r\nx-case: {case}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(body).unwrap()
}

/// Whether this is an address of this machine, not on loopback unless it has no route to others. Sends nothing.
fn is_own(address: IpAddr) -> bool {
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9"));
    UdpSocket::bind((address, 0)).is_ok() && (route.is_err() || !address.is_loopback())
}

async fn every_address_of_a_listener_accepts_connections(plane: Plane) {
    let backend = Backend::http("app").await;
    let addresses = "%REQ(X-CASE)% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
        %DOWNSTREAM_REMOTE_PORT% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
        %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %FILTER_CHAIN_NAME%\n";
    let manager = json!({"use_remote_address": true, "access_log": [{"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "{dir}/log",
        "log_format": {"text_format_source": {"inline_string": addresses}},
    }}]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "hash_policy": [
        {"connection_properties": {"source_ip": true}},
    ]}}]);
    let mut listener = http_listener("in", "INBOUND", routes, manager);
    let name = format!("@topsail-test-{}-{plane:?}", std::process::id());
    let pipe = |path: &str, mode: u32| json!({"address": {"pipe": {"path": path, "mode": mode}}});
    listener["additional_addresses"] = json!([pipe("{dir}/in.sock", 0o600), pipe(&name, 0)]);
    let mut local = listener["filter_chains"][0].clone();
    local["name"] = json!("local");
    local["filter_chain_match"] = json!({"source_type": "SAME_IP_OR_LOOPBACK"});
    listener["filter_chains"].as_array_mut().unwrap().push(local);
    let alone = Alone::start(plane, &[listener], &[cluster("back", backend.address())], json!({})).await;
    let path = alone.path("in.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let by_tcp = get(alone.listener(0), "app.example", "/").header("x-case", "tcp");
    let client_address = by_tcp.expect(200).await.seen().headers["x-forwarded-for"]
        .parse()
        .unwrap();
    // A loopback address means nothing to other machines, so `x-forwarded-for` has the address of this machine instead.
    assert!(is_own(client_address), "{client_address}");
    let by_path = seen(UnixStream::connect(&path).unwrap(), "path").await;
    let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
    let by_name = seen(UnixStream::connect_addr(&address).unwrap(), "name").await;
    for seen in [by_path, by_name] {
        // Unix domain sockets have no client address to forward.
        assert_eq!(seen["headers"].get("x-forwarded-for"), None, "{seen}");
        assert_eq!(seen["headers"].get("x-envoy-external-address"), None, "{seen}");
    }
    let path = path.to_str().unwrap();
    for (case, place) in [("path", path), ("name", &name)] {
        let wanted = format!("{case} {place} {place}  {place} {place}  {place} local");
        eventually(&format!("`{wanted}` on {plane:?}"), async || {
            let text = alone.wrote("log");
            match text.lines().any(|line| line == wanted) {
                true => Ok(()),
                false => Err(text),
            }
        })
        .await;
    }
    let listeners = alone.sidecar.admin("/listeners").await;
    let wanted = [alone.listener(0).to_string(), path.to_owned(), name];
    let lines: Vec<_> = listeners.lines().collect();
    assert_eq!(lines, wanted.map(|address| format!("in::{address}")));
    let shown: Value = serde_json::from_str(&alone.sidecar.admin("/listeners?format=json").await).unwrap();
    let status = &shown["listener_statuses"][0];
    assert_eq!(
        status["local_address"]["socket_address"]["address"],
        alone.listener(0).ip().to_string()
    );
    assert_eq!(status["additional_local_addresses"][0]["pipe"]["path"], path);
}
