//! Timeouts: which one ends a request, and what the client, the access log and the statistics show.
//!
//! There are no expected values: the results of both data planes are compared. Times are compared in seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::harness::alone::{Alone, access_log, cluster, http_listener};
use super::harness::frames::{Frame, Frames, headers};
use super::harness::scripted::Scripted;
use super::harness::wire::Wire;
use super::harness::{Plane, eventually, lasting};
use crate::between_planes;

between_planes! {
    timeouts_end_requests_as_in_envoy,
}

const LOG: &str = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST% \
                   %UPSTREAM_REQUEST_ATTEMPT_COUNT% %BYTES_RECEIVED% %DURATION%\n";

/// How a client sends its request and reads the response.
#[derive(Clone, Copy, Debug)]
enum Client {
    /// Sends the headers and the first piece, and each further piece a second later; then reads the response.
    Sends(&'static [&'static str]),
    /// Sends the request and does not read the response.
    Deaf,
    /// The same over HTTP/2, with this initial window for the response.
    DeafHttp2(u32),
}

/// A request, and the configuration of the listener and the route that it uses.
struct Case {
    name: &'static str,
    /// Fields of its connection manager.
    manager: Value,
    /// Fields of its route action.
    route: Value,
    /// Headers, separated by `|`.
    headers: &'static str,
    client: Client,
}

fn case(name: &'static str, manager: Value, route: Value, headers: &'static str, client: Client) -> Case {
    Case {
        name,
        manager,
        route,
        headers,
        client,
    }
}

const BIG: &str = "x-script: say HTTP/1.1 200 OK~content-length: 67108864~~; flood 65536";
const SMALL: &str = "x-script: say HTTP/1.1 200 OK~content-length: 5~~hello";
const SLOW: &str = "x-script: take; wait 2000; say HTTP/1.1 200 OK~content-length: 2~~ok";
const NEVER: &str = "x-script: take; stall";
const HALF: &str = "x-script: say HTTP/1.1 200 OK~content-length: 9~~half; take; stall";
const FAILS: &str = "x-script: take; say HTTP/1.1 503 No~content-length: 0~~";
const WHOLE: Client = Client::Sends(&[]);
/// Two halves of a body of four bytes.
const HALVES: Client = Client::Sends(&["ab", "cd"]);
/// The first half alone.
const FIRST: Client = Client::Sends(&["ab"]);

fn cases() -> Vec<Case> {
    let plain = || json!({});
    let idle = || json!({"stream_idle_timeout": "1s"});
    let longest = |limit: &str| json!({"common_http_protocol_options": {"max_stream_duration": limit}});
    let timeout = |limit: &str| json!({"timeout": limit});
    let tries = |whole: &str, one: &str| {
        let back_off = json!({"base_interval": "0.001s"});
        let policy = json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": one, "retry_back_off": back_off});
        json!({"timeout": whole, "retry_policy": policy})
    };
    let buffered = |mut manager: Value| {
        let filter = |name: &str, kind: &str| {
            let kind = format!("type.googleapis.com/envoy.extensions.filters.http.{kind}");
            json!({"name": name, "typed_config": {"@type": kind}})
        };
        let mut buffer = filter("envoy.filters.http.buffer", "buffer.v3.Buffer");
        buffer["typed_config"]["max_request_bytes"] = json!(9);
        manager["http_filters"] = json!([buffer, filter("router", "router.v3.Router")]);
        manager
    };
    let delayed = |mut manager: Value| {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
        let delay = json!({"fixed_delay": "3s", "percentage": {"numerator": 100}});
        let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
        manager["http_filters"] = json!([
            {"name": "envoy.filters.http.fault", "typed_config": {"@type": kind, "delay": delay}},
            {"name": "router", "typed_config": router},
        ]);
        manager
    };
    let duration = |more: Value| json!({"timeout": "1s", "max_stream_duration": more});
    let pausing = json!({"timeout": "1s", "retry_policy": {
        "retry_on": "5xx", "num_retries": 1,
        "retry_back_off": {"base_interval": "1000s", "max_interval": "1000s"},
    }});
    let mut again = pausing.clone();
    again["timeout"] = json!("3s");
    vec![
        // The per-try timeout starts at the end of the request.
        case(
            "try-upload",
            plain(),
            tries("9s", "1s"),
            "content-length: 4",
            Client::Sends(&["ab", "c", "d"]),
        ),
        case("try-slow", plain(), tries("9s", "1s"), SLOW, WHOLE),
        case(
            "try-slow-once",
            plain(),
            tries("9s", "1s"),
            "x-script: take; wait 500; say HTTP/1.1 200 OK~content-length: 0~~",
            WHOLE,
        ),
        case("try-longer", plain(), tries("1s", "2s"), NEVER, WHOLE),
        case("try-equal", plain(), tries("1s", "1s"), NEVER, WHOLE),
        case("try-unreached", plain(), tries("3s", "1s"), "", WHOLE),
        case("unreached", plain(), timeout("1s"), "", WHOLE),
        // So does the route timeout, even if the response started earlier.
        case(
            "early",
            plain(),
            timeout("1s"),
            "content-length: 4|x-script: say HTTP/1.1 200 OK~content-length: 9~~half; take; stall",
            HALVES,
        ),
        case("half", plain(), timeout("1s"), HALF, WHOLE),
        // The client does not read the response.
        case("deaf-idle", idle(), timeout("0s"), BIG, Client::Deaf),
        case("deaf-route", plain(), timeout("1s"), BIG, Client::Deaf),
        case("deaf-longest", longest("1s"), timeout("0s"), BIG, Client::Deaf),
        case("deaf2-idle", idle(), timeout("0s"), BIG, Client::DeafHttp2(60000)),
        case("deaf2-route", plain(), timeout("1s"), BIG, Client::DeafHttp2(60000)),
        case(
            "deaf2-longest",
            longest("1s"),
            timeout("0s"),
            BIG,
            Client::DeafHttp2(60000),
        ),
        case("deaf2-small", idle(), timeout("0s"), SMALL, Client::DeafHttp2(0)),
        case("deaf2-some", idle(), timeout("0s"), SMALL, Client::DeafHttp2(2)),
        case(
            "deaf2-small-longest",
            longest("1s"),
            timeout("0s"),
            SMALL,
            Client::DeafHttp2(0),
        ),
        // A filter delays or buffers the request.
        case(
            "buffer-idle",
            buffered(idle()),
            timeout("0s"),
            "content-length: 4",
            FIRST,
        ),
        case(
            "buffer-request",
            buffered(json!({"request_timeout": "1s"})),
            timeout("0s"),
            "content-length: 4",
            FIRST,
        ),
        case(
            "buffer-longest",
            buffered(longest("1s")),
            timeout("0s"),
            "content-length: 4",
            FIRST,
        ),
        case(
            "buffer-whole",
            buffered(json!({"request_timeout": "2s"})),
            timeout("1s"),
            "content-length: 4",
            HALVES,
        ),
        case("delay-idle", delayed(idle()), timeout("0s"), "", WHOLE),
        case("delay-longest", delayed(longest("1s")), timeout("0s"), "", WHOLE),
        case(
            "delay-request",
            delayed(json!({"request_timeout": "1s"})),
            timeout("0s"),
            "",
            WHOLE,
        ),
        // The route's `max_stream_duration` replaces that of the connection manager.
        case(
            "stream",
            plain(),
            duration(json!({"max_stream_duration": "2s"})),
            NEVER,
            WHOLE,
        ),
        case("stream-none", plain(), duration(json!({})), SLOW, WHOLE),
        case(
            "stream-zero",
            longest("1s"),
            duration(json!({"max_stream_duration": "0s"})),
            SLOW,
            WHOLE,
        ),
        case("stream-wider", longest("1s"), duration(json!({})), SLOW, WHOLE),
        case(
            "grpc-asked",
            plain(),
            duration(json!({"grpc_timeout_header_max": "0s"})),
            "grpc-timeout: 1S|x-script: take; stall",
            WHOLE,
        ),
        case(
            "grpc-capped",
            plain(),
            duration(json!({"grpc_timeout_header_max": "1s"})),
            "content-type: application/grpc|grpc-timeout: 5S|x-script: take; stall",
            WHOLE,
        ),
        case(
            "grpc-nonsense",
            plain(),
            duration(json!({"max_stream_duration": "1s", "grpc_timeout_header_max": "0s"})),
            "content-type: application/grpc|grpc-timeout: 5X|x-script: take; stall",
            WHOLE,
        ),
        case(
            "grpc-whole",
            plain(),
            duration(json!({"max_stream_duration": "1s"})),
            "content-type: application/grpc|grpc-timeout: 5S|x-script: take; stall",
            WHOLE,
        ),
        case(
            "grpc-none",
            plain(),
            duration(json!({})),
            "content-type: application/grpc|grpc-timeout: 5S",
            WHOLE,
        ),
        case(
            "grpc-zero",
            plain(),
            duration(json!({"max_stream_duration": "0s"})),
            "content-type: application/grpc|grpc-timeout: 5S",
            WHOLE,
        ),
        case(
            "grpc-zero-wider",
            longest("9s"),
            duration(json!({"max_stream_duration": "0s"})),
            "content-type: application/grpc|grpc-timeout: 5S",
            WHOLE,
        ),
        case(
            "grpc-wider",
            longest("9s"),
            duration(json!({})),
            "content-type: application/grpc|grpc-timeout: 5S",
            WHOLE,
        ),
        case(
            "grpc-unsaid",
            plain(),
            timeout("2s"),
            "content-type: application/grpc|grpc-timeout: 5S",
            WHOLE,
        ),
        case(
            "grpc-no-grpc",
            plain(),
            duration(json!({"max_stream_duration": "100s"})),
            "grpc-timeout: 5S",
            WHOLE,
        ),
        case(
            "grpc-long",
            plain(),
            duration(json!({"max_stream_duration": "200000s"})),
            "content-type: application/grpc",
            WHOLE,
        ),
        case(
            "grpc-fine",
            plain(),
            duration(json!({"grpc_timeout_header_max": "0s"})),
            "content-type: application/grpc|grpc-timeout: 5000001u",
            WHOLE,
        ),
        // The timeout expires during the back-off between attempts.
        case("pause", plain(), pausing, FAILS, WHOLE),
        case("pause-longest", longest("1s"), again, FAILS, WHOLE),
        // The upstream service time does not include the time that the client takes to send its request.
        case("service-time", plain(), timeout("9s"), "content-length: 4", HALVES),
        case(
            "service-time-slow",
            plain(),
            timeout("9s"),
            "content-length: 4|x-script: take; wait 1000; say HTTP/1.1 200 OK~content-length: 0~~",
            HALVES,
        ),
    ]
}

/// The result of a case.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// What the client received.
    client: Vec<String>,
    /// The access log line.
    log: String,
    /// The statistics of the cluster and its host.
    counted: Vec<String>,
    /// The timeout headers that the host received.
    host: Vec<String>,
}

const COUNTED: [&str; 8] = [
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_total",
    "upstream_rq_2xx",
    "upstream_rq_5xx",
    "upstream_rq_503",
    "upstream_rq_504",
    "upstream_rq_retry",
];

async fn all(which: Plane) -> BTreeMap<String, Outcome> {
    let host = Scripted::start().await;
    // Accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cases = cases();
    let listeners: Vec<_> = cases.iter().map(listener).collect();
    let clusters: Vec<_> = cases
        .iter()
        .map(|case| match case.name.ends_with("unreached") {
            true => unreached(case.name, silent.local_addr().unwrap()),
            false => cluster(case.name, host.address),
        })
        .collect();
    let alone = Alone::start(which, &listeners, &clusters, json!({})).await;
    let requests = cases.iter().enumerate().map(|(index, case)| ask(&alone, index, case));
    let said = join_all(requests).await;
    let lines = eventually("all requests are logged", async || {
        let lines = lines(&alone);
        let missing = cases.iter().find(|case| !lines.contains_key(case.name));
        missing.map_or(Ok(lines.clone()), |case| Err(format!("{} of {lines:#?}", case.name)))
    })
    .await;
    let (stats, hosts) = (alone.sidecar.stats("").await, alone.sidecar.admin("/clusters").await);
    let mut all = BTreeMap::new();
    for (case, client) in cases.iter().zip(said) {
        let of_cluster = COUNTED.iter().filter_map(|name| {
            let value = stats.get(&format!("cluster.{}.{name}", case.name))?;
            (*value > 0).then(|| format!("{name} {value}"))
        });
        let of_host = hosts.lines().filter_map(|line| {
            let (name, number) = line
                .strip_prefix(&format!("{}::127.0.0.1:", case.name))?
                .split_once("::")?
                .1
                .rsplit_once("::")?;
            (name.starts_with("rq_") && number != "0").then(|| format!("{name} {number}"))
        });
        let timeout_headers = host
            .heads()
            .into_iter()
            .filter(|head| head.contains(&format!("x-case: {}\r\n", case.name)));
        let timeout_headers = timeout_headers.flat_map(|head| {
            let lines = head
                .lines()
                .filter(|line| line.starts_with("grpc-timeout") || line.starts_with("x-envoy-expected"));
            lines.map(rounded).collect::<Vec<_>>()
        });
        let outcome = Outcome {
            client,
            log: lines[case.name]
                .replace(&host.address.to_string(), "host")
                .replace(&silent.local_addr().unwrap().to_string(), "silent"),
            counted: of_cluster.chain(of_host).collect(),
            host: timeout_headers.collect(),
        };
        all.insert(case.name.to_owned(), outcome);
    }
    all
}

/// Rounds the remaining timeout in a header, which differs from run to run.
fn rounded(line: &str) -> String {
    match line.split_once("-ms: ") {
        Some((name, value)) => format!("{name}: {:.1} s", value.parse::<f64>().unwrap() / 1000.0),
        None => line.to_owned(),
    }
}

fn listener(case: &Case) -> Value {
    let mut route = case.route.clone();
    route["cluster"] = json!(case.name);
    let mut manager = case.manager.clone();
    manager["access_log"] = access_log(LOG);
    let routes = json!([{"match": {"prefix": "/"}, "route": route}]);
    http_listener(case.name, "OUTBOUND", routes, manager)
}

/// A cluster with TLS whose host accepts connections but does not answer the handshake.
fn unreached(name: &str, host: SocketAddr) -> Value {
    let mut cluster = cluster(name, host);
    cluster["connect_timeout"] = json!("20s");
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    cluster["transport_socket"] = json!({"name": "tls", "typed_config": {"@type": kind}});
    cluster
}

async fn ask(alone: &Alone, index: usize, case: &Case) -> Vec<String> {
    let address = alone.listener(index);
    match case.client {
        Client::Sends(pieces) => {
            let mut wire = Wire::open(address).await;
            wire.send(head(case).as_bytes()).await;
            for (number, piece) in pieces.iter().enumerate() {
                if number > 0 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                wire.send(piece.as_bytes()).await;
            }
            match wire.answer().await {
                None => vec!["nothing".to_owned()],
                Some(said) => {
                    let headers = [
                        "x-envoy-upstream-service-time",
                        "connection",
                        "grpc-status",
                        "grpc-message",
                    ];
                    let headers = headers.iter().map(|name| match (*name, said.header(name)) {
                        ("x-envoy-upstream-service-time", time) if !time.is_empty() => {
                            format!("took {:.0} s", time.parse::<f64>().unwrap() / 1000.0)
                        }
                        (name, value) => format!("{name}: {value}"),
                    });
                    let mut all = vec![said.status.to_string(), said.body.clone()];
                    all.extend(headers);
                    all
                }
            }
        }
        Client::Deaf => {
            let mut wire = Wire::open(address).await;
            wire.send(head(case).as_bytes()).await;
            written(alone, case.name).await;
            Vec::new()
        }
        Client::DeafHttp2(window) => {
            let mut frames = Frames::open(address).await;
            let settings = Frame::new(4, 0, 0, &[&[0, 4], &window.to_be_bytes()[..]].concat());
            let mut fields = vec![
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "web"),
                (":path", "/"),
                ("x-case", case.name),
            ];
            fields.extend(case.headers.split('|').filter_map(|line| line.split_once(": ")));
            frames.send(&[settings, headers(1, &fields, true)]).await;
            // Waits for RST_STREAM or GOAWAY, if one comes.
            let reset = timeout(Duration::from_secs(4), frames.next_of(&[3, 7])).await;
            reset.iter().flatten().map(|frame| format!("{frame:?}")).collect()
        }
    }
}

fn head(case: &Case) -> String {
    let headers = case.headers.split('|').filter(|line| !line.is_empty());
    let headers: String = headers.map(|line| format!("{line}\r\n")).collect();
    let method = if headers.contains("content-length: 4\r\n") || headers.contains("grpc") {
        "POST"
    } else {
        "GET"
    };
    format!(
        "{method} / HTTP/1.1\r\nhost: web\r\nx-case: {}\r\n{headers}\r\n",
        case.name
    )
}

async fn written(alone: &Alone, case: &str) {
    eventually("the request is logged", async || {
        match lines(alone).contains_key(case) {
            true => Ok(()),
            false => Err(case.to_owned()),
        }
    })
    .await;
}

/// The access log lines by case, with durations in seconds.
fn lines(alone: &Alone) -> BTreeMap<String, String> {
    let written = alone.wrote("access.log");
    let lines = written.lines().filter_map(|line| {
        let (case, line) = line.split_once(' ')?;
        let (line, took) = line.rsplit_once(' ')?;
        let seconds = (took.parse::<u64>().ok()? + 500) / 1000;
        // How long a plane reads the response before its buffers are full depends on the machine.
        let line = match case.starts_with("deaf") && case.ends_with("idle") {
            true => line.to_owned(),
            false => format!("{line} {seconds} s"),
        };
        Some((case.to_owned(), line))
    });
    lines.collect()
}

async fn timeouts_end_requests_as_in_envoy() {
    let differ = lasting(all).await;
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
