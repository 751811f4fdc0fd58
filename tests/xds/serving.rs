//! What the server does on every connection, regardless of the client.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{channel, connector};
use super::control_plane::{Home, PATIENCE, service_entry};

/// HTTP/2 connection preface and an empty SETTINGS frame.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Type of a SETTINGS frame.
const SETTINGS: u8 = 4;
/// Type of a PING frame.
const PING: u8 = 6;

#[tokio::test]
async fn the_health_service_requires_no_credential() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let server = home.serve().await;
    let mut health = HealthClient::new(channel(&home, server.address()).await);
    let mut updates = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    // The health status may be updated shortly after the generation is served.
    let serving = async {
        loop {
            let update = updates.message().await.unwrap().unwrap();
            if update.status() == ServingStatus::Serving {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, serving).await.unwrap();
}

/// Time is advanced rather than waited for, past the server's timeout and repeatedly until it closes the
/// connection.
#[tokio::test]
async fn clients_that_do_not_answer_pings_are_disconnected() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let server = home.serve().await;
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut client = connector(&home).connect(name, tcp).await.unwrap();
    client.write_all(BEGINNING).await.unwrap();
    let (told, mut frames) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(kind) = frame(&mut client).await {
            told.send(kind).unwrap();
        }
    });
    assert_eq!(frames.recv().await, Some(SETTINGS), "the server has begun, too");

    let mut pinged = false;
    for _ in 0..20 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
        while let Ok(next) = tokio::time::timeout(Duration::from_millis(100), frames.recv()).await {
            match next {
                Some(kind) => pinged |= kind == PING,
                None => {
                    assert!(pinged, "the connection ends, but not for want of an answer");
                    return;
                }
            }
        }
    }
    panic!("the connection is still there; pinged: {pinged}");
}

/// The type of the next frame; `None` at the end of the connection.
async fn frame(client: &mut tokio_rustls::client::TlsStream<TcpStream>) -> Option<u8> {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut content = vec![0; length as usize];
    client.read_exact(&mut content).await.ok()?;
    Some(head[3])
}
