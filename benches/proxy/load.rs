//! Load at the maximum rate (wrk, h2load) or at a fixed rate, where requests are sent on schedule
//! regardless of earlier responses.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::documents::{GRPC_HOST, HTTP_HOST, HTTP2_HOST, ROUTES_HOST};
use crate::figures::Outcome;
use crate::pace::Pace;

/// The kind of load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// HTTP/1.1; matches the last of a hundred routes with retries, or a host with one route.
    Http1 { routes: bool },
    /// HTTP/2.
    Http2,
    /// gRPC, unary.
    Grpc,
    /// HTTP/1.1 forwarded as TCP.
    Tcp,
    /// Bulk transfer on a few connections; a request is a megabyte.
    Bulk,
}

/// Connections of a bulk load.
const BULK_CONNECTIONS: usize = 4;

/// Connections of a fixed-rate load.
const CONNECTIONS: usize = 32;

impl Load {
    /// Host and path of the requests.
    pub(crate) fn url(self) -> (&'static str, &'static str) {
        match self {
            Load::Http1 { routes: false } => (HTTP_HOST, "/"),
            Load::Http1 { routes: true } => (ROUTES_HOST, "/route-99/x"),
            Load::Http2 => (HTTP2_HOST, "/"),
            Load::Grpc => (GRPC_HOST, "/bench.Echo/Say"),
            Load::Tcp | Load::Bulk => ("bench", "/"),
        }
    }

    /// Runs at the maximum rate.
    pub(crate) async fn maximum(self, target: SocketAddr, time: Duration) -> Outcome {
        match self {
            Load::Http1 { .. } | Load::Tcp => self.wrk(target, time).await,
            Load::Http2 | Load::Grpc => self.h2load(target, time).await,
            Load::Bulk => bulk(target, time).await,
        }
    }

    async fn wrk(self, target: SocketAddr, time: Duration) -> Outcome {
        let (host, path) = self.url();
        let output = Command::new("wrk")
            .args(["-t1", "-c32", "--latency", &format!("-d{}s", time.as_secs())])
            .args(["-H", &format!("Host: {host}"), &format!("http://{target}{path}")])
            .output()
            .await
            .expect("wrk runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("Non-2xx"), "errors: {text}");
        let word = |line: &str, at: usize| {
            let line = text.lines().find(|one| one.trim_start().starts_with(line))?;
            line.split_whitespace().nth(at).map(str::to_owned)
        };
        let total = text
            .lines()
            .find(|line| line.contains("requests in"))
            .expect("wrk's total");
        let total: f64 = total
            .split_whitespace()
            .next()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let latency = |percent: &str| word(percent, 1).map_or(f64::NAN, |text| micros(&text));
        Outcome {
            requests: total,
            rate: word("Requests/sec:", 1)
                .and_then(|text| text.parse().ok())
                .unwrap_or(f64::NAN),
            p50: latency("50%"),
            p99: latency("99%"),
            p999: f64::NAN,
        }
    }

    async fn h2load(self, target: SocketAddr, time: Duration) -> Outcome {
        let (host, path) = self.url();
        let mut command = Command::new("h2load");
        command.args(["-c8", "-m8", "-t1", "-D", &time.as_secs().to_string()]);
        command.args(["-H", &format!(":authority: {host}")]);
        let message = tempfile::NamedTempFile::new().expect("a file");
        if self == Load::Grpc {
            std::fs::write(message.path(), grpc_message()).expect("a message");
            command
                .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"])
                .arg(message.path());
        }
        let output = command
            .arg(format!("http://{target}{path}"))
            .output()
            .await
            .expect("h2load runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = |start: &str| {
            text.lines()
                .find(|line| line.starts_with(start))
                .unwrap_or_default()
                .to_owned()
        };
        let done: f64 = line("requests:")
            .split_whitespace()
            .nth(7)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0.0);
        let failed = line("status codes:");
        assert!(
            done > 0.0 && failed.contains("0 5xx") && failed.contains("0 4xx"),
            "errors: {text}"
        );
        Outcome {
            requests: done,
            rate: done / time.as_secs_f64(),
            p50: f64::NAN,
            p99: f64::NAN,
            p999: f64::NAN,
        }
    }

    /// Whether it supports a fixed rate.
    pub(crate) fn has_rate(self) -> bool {
        self != Load::Bulk
    }

    /// Runs at a fixed rate.
    pub(crate) async fn paced(self, target: SocketAddr, rate: u64, time: Duration) -> Outcome {
        let total = rate * time.as_secs();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(target, self).await);
        }
        let pace = Pace::begin(rate, total);
        let mut tasks = JoinSet::new();
        for mut client in clients {
            let pace = pace.clone();
            tasks.spawn(async move {
                let mut own = Vec::new();
                while let Some(due) = pace.next().await {
                    client.request(self).await;
                    own.push((due, due.elapsed()));
                }
                own
            });
        }
        let latencies: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        Outcome::paced(pace.start(), &latencies)
    }
}

/// A connection of the load.
enum Client {
    Http1(Http1),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    async fn connect(target: SocketAddr, load: Load) -> Self {
        let stream = TcpStream::connect(target).await.expect("a connection");
        stream.set_nodelay(true).ok();
        match load {
            Load::Http1 { .. } | Load::Tcp | Load::Bulk => Client::Http1(Http1::new(stream, load)),
            Load::Http2 | Load::Grpc => {
                let io = TokioIo::new(stream);
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
                tokio::spawn(connection);
                Client::Http2(sender)
            }
        }
    }

    async fn request(&mut self, load: Load) {
        match self {
            Client::Http1(client) => client.request().await,
            Client::Http2(sender) => request_http2(sender, load).await,
        }
    }
}

/// An HTTP/1.1 connection that sends the same bytes each time. A general client's work would add to the latencies: load
/// and backend share a processor.
struct Http1 {
    stream: TcpStream,
    request: String,
    response: Vec<u8>,
}

impl Http1 {
    fn new(stream: TcpStream, load: Load) -> Self {
        let (host, path) = load.url();
        Self {
            stream,
            request: format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
            response: Vec::with_capacity(4096),
        }
    }

    async fn request(&mut self) {
        let sent = self.stream.write_all(self.request.as_bytes()).await;
        sent.expect("a request");
        self.response.clear();
        while !is_complete(&self.response) {
            let read = self.stream.read_buf(&mut self.response).await;
            assert_ne!(read.expect("an answer"), 0, "the connection was closed");
        }
    }
}

/// Whether a response has been received: its status must be 200, its length that of its `content-length`.
fn is_complete(response: &[u8]) -> bool {
    let Some(end) = response.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let head = std::str::from_utf8(&response[..end]).expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse::<usize>())
    });
    let length = length.expect("a content-length").expect("a number");
    response.len() == end + 4 + length
}

async fn request_http2(sender: &mut http2::SendRequest<Full<Bytes>>, load: Load) {
    let (host, path) = load.url();
    let request = Request::builder().uri(format!("http://{host}{path}"));
    let request = match load {
        Load::Grpc => request
            .method(Method::POST)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(grpc_message())),
        Load::Http1 { .. } | Load::Http2 | Load::Tcp | Load::Bulk => request.body(Full::default()),
    };
    let response = sender
        .send_request(request.expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("the whole answer");
}

/// Receives as fast as possible.
async fn bulk(target: SocketAddr, time: Duration) -> Outcome {
    let start = Instant::now();
    let mut receivers = JoinSet::new();
    for _ in 0..BULK_CONNECTIONS {
        receivers.spawn(async move {
            let mut stream = TcpStream::connect(target).await.expect("a connection");
            let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
            while start.elapsed() < time {
                bytes += stream.read(&mut buffer).await.expect("bytes");
            }
            bytes
        });
    }
    let bytes: usize = receivers.join_all().await.into_iter().sum();
    let megabytes = bytes as f64 / 1e6;
    Outcome {
        requests: megabytes,
        rate: megabytes / start.elapsed().as_secs_f64(),
        p50: f64::NAN,
        p99: f64::NAN,
        p999: f64::NAN,
    }
}

fn grpc_message() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 100];
    message.extend_from_slice(&[b'y'; 100]);
    message
}

/// Opens connections that stay idle after one request.
pub(crate) async fn idle_connections(target: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::with_capacity(count);
    while connections.len() < count
        && let Ok(stream) = idle_connection(target).await
    {
        connections.push(stream);
    }
    connections
}

async fn idle_connection(target: SocketAddr) -> io::Result<TcpStream> {
    let (host, path) = Load::Http1 { routes: false }.url();
    let mut stream = TcpStream::connect(target).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await?;
    match stream.read(&mut [0; 4096]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(stream),
    }
}

/// Parses a duration printed by wrk, in microseconds.
fn micros(text: &str) -> f64 {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        _ => 1e6,
    };
    digits.parse::<f64>().map_or(f64::NAN, |value| value * scale)
}
