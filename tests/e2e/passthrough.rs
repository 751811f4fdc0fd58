//! TLS passthrough by server name, for all versions and fragmentations of the ClientHello.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::harness::Plane;
use super::harness::alone::{Alone, cluster};
use super::harness::wire::Wire;
use crate::on_each_plane;

on_each_plane! {
    filter_chains_match_server_names_of_fragmented_client_hellos,
    client_hellos_are_limited_in_size,
}

/// A host that answers every connection with its name and the first bytes received.
async fn host(name: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = [0; 5];
                if stream.read_exact(&mut received).await.is_ok() {
                    // The client may have closed the connection.
                    let _ = stream.write_all(&[name.as_bytes(), &received].concat()).await;
                    // Closing with unread data would reset the connection.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            });
        }
    });
    address
}

fn to(cluster: &str, matches: Value) -> Value {
    json!({
        "name": cluster,
        "filter_chain_match": matches,
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
        }}],
    })
}

async fn plane(which: Plane) -> Alone {
    let names = ["named", "tls", "plain"];
    let clusters = [
        cluster("named", host("named").await),
        cluster("tls", host("tls").await),
        cluster("plain", host("plain").await),
    ];
    let matches = [
        json!({"server_names": ["db.example"]}),
        json!({"transport_protocol": "tls"}),
        json!({"transport_protocol": "raw_buffer"}),
    ];
    let chains: Vec<_> = names
        .into_iter()
        .zip(matches)
        .map(|(name, one)| to(name, one))
        .collect();
    let listener = json!({
        "name": "in",
        "traffic_direction": "OUTBOUND",
        "listener_filters": [{"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        }}],
        "filter_chains": chains,
    });
    Alone::start(which, &[listener], &clusters, json!({})).await
}

/// A ClientHello of TLS 1.0 with this server name and an unknown extension of this size.
fn hello(name: Option<&str>, padding: usize) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let list = sized(&[&[0][..], &sized(name.as_bytes())].concat());
        extensions.extend([&[0, 0][..], &sized(&list)].concat());
    }
    extensions.extend([&[0xfa, 0xfa][..], &sized(&vec![0; padding])].concat());
    let mut message = vec![3, 1];
    message.extend([7; 32]);
    message.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    message.extend(sized(&extensions));
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &message].concat()
}

/// A handshake message in TLS records of this size at most.
fn in_records(message: &[u8], len: usize) -> Vec<u8> {
    let records = message.chunks(len).map(|record| {
        let length = u16::try_from(record.len()).unwrap().to_be_bytes();
        [&[22, 3, 1][..], &length, record].concat()
    });
    records.collect::<Vec<_>>().concat()
}

async fn filter_chains_match_server_names_of_fragmented_client_hellos(which: Plane) {
    let alone = plane(which).await;
    for (sent, host) in [
        (in_records(&hello(Some("db.example"), 0), 16_000), "named"),
        (in_records(&hello(Some("DB.example"), 300), 100), "named"),
        (in_records(&hello(Some("other.example"), 0), 16_000), "tls"),
        (in_records(&hello(None, 0), 16_000), "tls"),
        (b"hello, world".to_vec(), "plain"),
        // A ServerHello.
        (in_records(&[2, 0, 0, 1, 0], 100), "plain"),
    ] {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(&sent).await;
        let answer = wire.bytes(host.len() + 5).await;
        assert_eq!(
            answer,
            [host.as_bytes(), &sent[..5]].concat(),
            "{}",
            sent.escape_ascii()
        );
    }
}

async fn client_hellos_are_limited_in_size(which: Plane) {
    let alone = plane(which).await;
    let answer_to = async |sent: &[u8]| {
        let mut wire = Wire::open(alone.listener(0)).await;
        wire.send(sent).await;
        String::from_utf8_lossy(&wire.bytes(5).await).into_owned()
    };
    assert_eq!(
        answer_to(&in_records(&hello(Some("db.example"), 15_000), 16_000)).await,
        "named"
    );
    // A message that announces a longer ClientHello is not taken for TLS.
    assert_eq!(
        answer_to(&in_records(&hello(Some("db.example"), 17_000), 16_000)).await,
        "plain"
    );
    // Too many record headers exceed the limit of the inspector.
    assert_eq!(answer_to(&in_records(&hello(Some("db.example"), 15_000), 20)).await, "");
}
