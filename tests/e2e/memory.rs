//! Memory limits: large bodies, bodies buffered for retries and endless heads. Slow readers hold back fast writers, and
//! buffers are bounded.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::alone::{Alone, cluster, http_listener};
use crate::harness::frames::{Frame, PREFACE, headers, request};
use crate::harness::wire::Wire;
use crate::harness::{Backend, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    stalled_uploads_are_held_back_at_the_client,
    unread_responses_are_held_back_at_the_host,
    unread_http2_responses_are_held_back_at_the_host,
    bodies_buffered_for_retries_are_limited,
    incomplete_request_heads_use_bounded_memory,
}

/// Concurrent bodies.
const MANY: usize = 100;
/// The length of each body.
const BODY: usize = 8 << 20;
/// The buffer limit of a connection.
const BUFFER: usize = 64 << 10;
/// The limit for the peak memory of a data plane, in kB: the buffers are 13 MB, Envoy itself takes 60 MB. The bodies are
/// 800 MB.
const ROOM: u64 = 160 << 10;

/// A listener and a cluster with bounded buffers; `more` are further fields of the route action.
async fn plane(which: Plane, host: SocketAddr, more: Value) -> Alone {
    let mut route = json!({"cluster": "back", "timeout": "0s"});
    route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let routes = json!([{"match": {"prefix": "/"}, "route": route}]);
    let mut listener = http_listener("in", "INBOUND", routes, json!({"stream_idle_timeout": "0s"}));
    listener["per_connection_buffer_limit_bytes"] = json!(BUFFER);
    let mut back = cluster("back", host);
    back["per_connection_buffer_limit_bytes"] = json!(BUFFER);
    back["circuit_breakers"] = json!({"thresholds": [{"max_connections": 1000, "max_retries": 1000}]});
    let mut alone = Alone::start(which, &[listener], &[back], json!({})).await;
    for said in ["circuit_breakers", "connection"] {
        alone.sidecar.allow_log(said);
    }
    alone
}

/// The peak resident memory of a data plane, in kB.
fn peak(alone: &Alone) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", alone.sidecar.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn assert_bounded(alone: &Alone) {
    let peak = peak(alone);
    assert!(peak < ROOM, "{peak} kB");
}

/// A listener whose connections, like those of [`dial`], have small socket buffers, so that data in flight is mostly in
/// the data plane.
fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1 << 16).unwrap();
    socket.set_send_buffer_size(1 << 16).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(1024).unwrap()
}

async fn dial(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1 << 16).unwrap();
    socket.set_send_buffer_size(1 << 16).unwrap();
    socket.connect(to).await.unwrap()
}

/// Writes a body until the peer stops reading.
async fn flood(stream: &mut TcpStream) {
    let piece = [b'a'; 1 << 16];
    for _ in 0..BODY / piece.len() {
        match timeout(Duration::from_secs(1), stream.write_all(&piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
}

/// Reads a message head and discards the part of the body that came with it.
async fn head(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0);
    }
}

/// Writes responses to all requests until they are no longer read, and returns the connections.
async fn answer_all(host: &TcpListener) -> Vec<TcpStream> {
    let mut answering = JoinSet::new();
    for _ in 0..MANY {
        let (mut stream, _) = host.accept().await.unwrap();
        answering.spawn(async move {
            head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            flood(&mut stream).await;
            stream
        });
    }
    answering.join_all().await
}

async fn stalled_uploads_are_held_back_at_the_client(which: Plane) {
    let host = listen();
    let alone = plane(which, host.local_addr().unwrap(), json!({})).await;
    let to = alone.listener(0);
    let mut writing = JoinSet::new();
    for _ in 0..MANY {
        writing.spawn(async move {
            let mut stream = dial(to).await;
            let head = format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {BODY}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            flood(&mut stream).await;
            stream
        });
    }
    let mut silent = Vec::new();
    for _ in 0..MANY {
        silent.push(host.accept().await.unwrap());
    }
    let clients = writing.join_all().await;
    assert_bounded(&alone);
    drop((silent, clients));
}

async fn unread_responses_are_held_back_at_the_host(which: Plane) {
    let host = listen();
    let alone = plane(which, host.local_addr().unwrap(), json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut stream = dial(alone.listener(0)).await;
        // The client waits for the end of the connection, as socket buffers might hold the whole response.
        let request = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        clients.push(stream);
    }
    let hosts = answer_all(&host).await;
    assert_bounded(&alone);
    // A client that reads gets its response.
    let mut rest = Vec::new();
    let reading = clients.pop().unwrap();
    drop((hosts, clients));
    timeout(Duration::from_secs(30), { reading }.read_to_end(&mut rest))
        .await
        .unwrap()
        .ok();
    assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

async fn unread_http2_responses_are_held_back_at_the_host(which: Plane) {
    let host = listen();
    let alone = plane(which, host.local_addr().unwrap(), json!({})).await;
    // The client grants large windows and then does not read from its socket.
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(BODY as u32)
        .initial_connection_window_size(1 << 30);
    let stream = dial(alone.listener(0)).await;
    let (sender, mut connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..MANY {
        let request = Request::get("http://web/").body(()).unwrap();
        let mut sender = tokio::select! {
            sender = sender.clone().ready() => sender.unwrap(),
            end = &mut connection => panic!("{end:?}"),
        };
        answers.push(sender.send_request(request, true).unwrap());
    }
    let hosts = async {
        let mut streams = Vec::new();
        for _ in 0..MANY {
            streams.push(host.accept().await.unwrap().0);
        }
        streams
    };
    let streams = tokio::select! {
        streams = hosts => streams,
        end = &mut connection => panic!("{end:?}"),
    };
    let mut answering = JoinSet::new();
    for mut stream in streams {
        answering.spawn(async move {
            head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            flood(&mut stream).await;
            stream
        });
    }
    let hosts = answering.join_all().await;
    assert_bounded(&alone);
    drop((hosts, answers, connection));
}

async fn bodies_buffered_for_retries_are_limited(which: Plane) {
    let host = listen();
    let retry = json!({"retry_policy": {
        "retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"},
    }});
    let alone = plane(which, host.local_addr().unwrap(), retry).await;
    let to = alone.listener(0);
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    // A host that reads each request to its end and answers 503.
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = host.accept().await {
            let attempts = counted.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                let start = loop {
                    if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                        break end + 4;
                    }
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                };
                let text = String::from_utf8_lossy(&read[..start]).to_ascii_lowercase();
                let (_, length) = text.split_once("content-length: ").unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                let mut left = length - (read.len() - start);
                let mut room = vec![0; 1 << 16];
                while left > 0 {
                    match stream.read(&mut room).await {
                        Ok(len @ 1..) => left -= len,
                        Ok(0) | Err(_) => return,
                    }
                }
                attempts.fetch_add(1, Ordering::Relaxed);
                let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                // The data plane may have closed the connection.
                let _ = stream.write_all(refusal).await;
            });
        }
    });
    let send = async |length: usize| {
        let mut wire = Wire::open(to).await;
        let head = format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {length}\r\n\r\n");
        wire.send(head.as_bytes()).await;
        wire.send(&vec![b'a'; length]).await;
        wire.answer().await.unwrap().status
    };
    // Small bodies are retried, large ones are not.
    assert_eq!(send(BUFFER / 2).await, 503);
    assert_eq!(attempts.swap(0, Ordering::Relaxed), 3);
    assert_eq!(send(BODY).await, 503);
    assert_eq!(attempts.swap(0, Ordering::Relaxed), 1);
    let mut sending = JoinSet::new();
    for _ in 0..MANY {
        sending.spawn(async move {
            let mut wire = Wire::open(to).await;
            let head = format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {BODY}\r\n\r\n");
            wire.send(head.as_bytes()).await;
            for _ in 0..BODY >> 16 {
                wire.send(&[b'a'; 1 << 16]).await;
            }
            wire.answer().await.unwrap().status
        });
    }
    assert_eq!(sending.join_all().await, [503; MANY]);
    assert_eq!(attempts.load(Ordering::Relaxed), MANY);
    assert_bounded(&alone);
    eventually("no upstream request is active", async || {
        let active = alone.sidecar.stats("cluster.back.upstream_rq_active").await;
        match active.values().sum::<u64>() {
            0 => Ok(()),
            active => Err(active.to_string()),
        }
    })
    .await;
    serving.abort();
}

/// Connections with incomplete heads.
const HEADS: usize = 1000;
/// The length of each head, below the limit for request headers.
const HEAD: usize = 50 << 10;

/// All heads together are 50 MB; buffers that grow by doubling would need several times as much.
async fn incomplete_request_heads_use_bounded_memory(which: Plane) {
    let backend = Backend::http("echo").await;
    let value = "a".repeat(HEAD);
    let lines = format!("GET / HTTP/1.1\r\nhost: web\r\nx-a: {value}").into_bytes();
    let mut frames = PREFACE.to_vec();
    let begun = headers(1, &[&request("GET", "/")[..], &[("x-a", &value)]].concat(), true).continued();
    let settings = Frame::new(4, 0, 0, &[]);
    // Without the last frame, which has END_HEADERS.
    let begun = std::iter::once(&settings).chain(&begun[..begun.len() - 1]);
    begun.for_each(|frame| frame.write(&mut frames));
    for said in [lines, frames] {
        let alone = plane(which, backend.address(), json!({})).await;
        let mut streams = Vec::new();
        for _ in 0..HEADS {
            let mut stream = TcpStream::connect(alone.listener(0)).await.unwrap();
            stream.write_all(&said).await.unwrap();
            streams.push(stream);
        }
        // This request is answered after the heads are read, or at the same time.
        get(alone.listener(0), "web", "/").expect(200).await;
        let name = "http.in.downstream_cx_rx_bytes_total";
        eventually("all heads are read", async || {
            let read = alone.sidecar.stats(name).await[name] as usize;
            (read >= HEADS * said.len()).then_some(()).ok_or(read.to_string())
        })
        .await;
        assert_bounded(&alone);
        drop(streams);
    }
}
