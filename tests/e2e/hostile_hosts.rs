//! Hosts that send malformed HTTP/2 or floods: what clients receive and what is logged.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::harness::alone::{Alone, access_log, cluster_http2, http_listener};
use super::harness::frame_host::{FrameHost, Step};
use super::harness::frames::{
    CONTINUATION, DATA, Frame, GOAWAY, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, headers,
};
use super::harness::wire::Wire;
use super::harness::{Backend, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    malformed_responses_are_answered_with_the_matching_error,
    incomplete_responses_reset_the_downstream_response,
    http2_connection_errors_of_the_host_close_its_connection,
    floods_close_the_upstream_connection_or_are_throttled,
    silence_and_endless_interim_responses_end_with_a_timeout,
    connections_without_ping_acks_are_closed,
}

/// The frames of a host, and the expected result of a request to it.
struct Case {
    name: &'static str,
    hello: Vec<Frame>,
    steps: Vec<Step>,
    /// The expected status and body.
    said: (u16, String),
    /// The expected access log line.
    logged: String,
    /// An alternative result.
    or: Option<((u16, String), String)>,
    /// Whether the connection to the host is reused for the next request.
    goes_on: bool,
    /// The route timeout.
    timeout: &'static str,
    /// Notified when the client has the first two bytes of a body of five.
    begun: Option<Arc<Notify>>,
}

fn case(name: &'static str, steps: Vec<Step>, goes_on: bool) -> Case {
    Case {
        name,
        hello: vec![settings(&[])],
        steps,
        said: (200, "good".to_owned()),
        logged: "200 - via_upstream".to_owned(),
        or: None,
        goes_on,
        timeout: "10s",
        begun: None,
    }
}

/// A host that performs these steps once the client has received part of its response.
fn midway(name: &'static str, mut steps: Vec<Step>, goes_on: bool) -> Case {
    let begun = Arc::new(Notify::new());
    let first = [head(&[("content-length", "5")]), data(b"he", false)];
    steps.splice(..0, [Step::Say(first.to_vec()), Step::Wait(begun.clone())]);
    Case {
        begun: Some(begun),
        ..case(name, steps, goes_on)
    }
}

impl Case {
    /// The client gets a local reply with this reset reason.
    fn none(mut self, status: u16, flag: &str, reason: &str) -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: ";
        self.said = (status, format!("{text}{reason}"));
        let reason = reason.replace(' ', "_");
        self.logged = format!("{status} {flag} upstream_reset_before_response_started{{{reason}}}");
        self
    }

    /// The client gets this part of the response, which is then reset for this reason.
    fn part(mut self, body: &str, flag: &str, reason: &str) -> Self {
        self.said = (200, body.to_owned());
        self.logged = format!("200 {flag} upstream_reset_after_response_started{{{reason}}}");
        self
    }

    /// The client gets the complete response.
    fn whole(mut self, body: &str) -> Self {
        self.said = (200, body.to_owned());
        self
    }

    /// The route timeout expires.
    fn late(mut self) -> Self {
        self.timeout = "0.5s";
        self.said = (504, "upstream request timeout".to_owned());
        self.logged = "504 UT response_timeout".to_owned();
        self
    }
}

fn settings(payload: &[u8]) -> Frame {
    Frame::new(SETTINGS, 0, 0, payload)
}

/// The HEADERS of a response.
fn head(more: &[(&str, &str)]) -> Frame {
    headers(1, &[&[(":status", "200")], more].concat(), false)
}

fn data(body: &[u8], last: bool) -> Frame {
    Frame::new(DATA, u8::from(last), 1, body)
}

fn say(frames: &[Frame]) -> Vec<Step> {
    vec![Step::Say(frames.to_vec())]
}

/// A data plane with a route and a cluster for each host.
async fn plane(which: Plane, hosts: &[FrameHost], cases: &[Case]) -> Alone {
    let route = |name: &str, timeout: &str| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "timeout": timeout}});
    let names: Vec<_> = (0..hosts.len()).map(|number| number.to_string()).collect();
    let timeouts = cases.iter().map(|case| case.timeout).chain(["0s"]);
    let routes: Vec<Value> = names
        .iter()
        .zip(timeouts)
        .map(|(name, timeout)| route(name, timeout))
        .collect();
    let clusters: Vec<Value> = names
        .iter()
        .zip(hosts)
        .map(|(name, host)| cluster_http2(name, host.address))
        .collect();
    let log = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
    let listener = http_listener("in", "OUTBOUND", json!(routes), json!({"access_log": access_log(log)}));
    Alone::start(which, &[listener], &clusters, json!({})).await
}

async fn ask(alone: &Alone, host: usize, case: &str) -> Wire {
    let mut wire = Wire::open(alone.listener(0)).await;
    let head = format!("GET /{host} HTTP/1.1\r\nhost: web\r\nx-case: {case}\r\nconnection: close\r\n\r\n");
    wire.send(head.as_bytes()).await;
    wire
}

/// Sends each host a request and then a second one, which must succeed. Meanwhile a slow response from another host must
/// not be affected.
async fn expect(which: Plane, cases: &[Case]) {
    let mut hosts = Vec::new();
    for case in cases {
        hosts.push(FrameHost::start(&case.hello, &case.steps).await);
    }
    let finish = Arc::new(Notify::new());
    let begun = [head(&[("content-length", "5")]), data(b"he", false)];
    let slow = [
        Step::Say(begun.to_vec()),
        Step::Wait(finish.clone()),
        Step::Say(vec![data(b"llo", true)]),
    ];
    hosts.push(FrameHost::start(&[settings(&[])], &slow).await);
    let alone = plane(which, &hosts, cases).await;
    let mut other = ask(&alone, cases.len(), "other").await;
    assert_eq!(other.head().await.unwrap().status, 200);

    let mut actual = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut wire = ask(&alone, number, case.name).await;
        let said = match &case.begun {
            None => wire.answer().await.unwrap(),
            Some(begun) => {
                let mut said = wire.head().await.unwrap();
                let mut body = wire.bytes(2).await;
                begun.notify_one();
                body.append(&mut wire.bytes(3).await);
                said.body = String::from_utf8(body).unwrap();
                said
            }
        };
        let again = ask(&alone, number, "again").await.answer().await.unwrap();
        let goes_on = hosts[number].connections() == 1;
        actual.push(((said.status, said.body), (again.status, again.body), goes_on));
    }
    let lines = eventually("all requests are logged", async || {
        let log = alone.wrote("access.log");
        let of = |case: &Case| {
            log.lines()
                .find_map(|line| line.strip_prefix(&format!("{} ", case.name)))
        };
        let lines: Option<Vec<_>> = cases.iter().map(|case| of(case).map(str::to_owned)).collect();
        lines.ok_or(log.clone())
    })
    .await;
    let good = || (200, "good".to_owned());
    let each = cases.iter().zip(actual.into_iter().zip(lines));
    let differ = each.filter_map(|(case, actual)| {
        let ((said, again, goes_on), logged) = actual;
        let (first, actual) = ((case.said.clone(), case.logged.clone()), (said, logged));
        let fine = (first == actual || case.or.as_ref() == Some(&actual)) && (again, goes_on) == (good(), case.goes_on);
        (!fine).then(|| {
            format!(
                "{}: {actual:?} {goes_on} instead of {first:?} {}",
                case.name, case.goes_on
            )
        })
    });
    let differ: Vec<_> = differ.collect();
    assert!(differ.is_empty(), "{differ:#?}");
    finish.notify_one();
    assert_eq!(other.bytes(5).await, b"hello");
}

async fn malformed_responses_are_answered_with_the_matching_error(which: Plane) {
    let with = |fields: &[(&str, &str)]| say(&[headers(1, fields, false), data(b"hello", true)]);
    let good = (":status", "200");
    let resets = which == Plane::Topsail;
    let wrong = |name, steps| case(name, steps, resets).none(502, "UPE", "protocol error");
    let large_ones = |name, steps| case(name, steps, true).none(503, "UR", "remote reset");
    let refused = |name, code| {
        let goes = Frame::new(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code]);
        case(name, say(&[goes]), false).none(503, "UR", "remote refused stream reset")
    };
    let large = "a".repeat(61_500);
    let continued = |fields: &[(&str, &str)]| {
        let mut frames = head(fields).continued();
        frames.push(data(b"hello", true));
        say(&frames)
    };
    let cases = [
        wrong("no-status", with(&[("x-a", "b")])),
        wrong("no-number", with(&[(":status", "abc")])),
        wrong("short-status", with(&[(":status", "20")])),
        wrong("status-twice", with(&[good, good])),
        wrong("late-status", with(&[("x-a", "b"), good])),
        wrong("of-requests", with(&[good, (":path", "/")])),
        wrong("unknown-pseudo", with(&[good, (":unknown", "x")])),
        wrong("upper-case", with(&[good, ("X-A", "b")])),
        wrong("space-in-name", with(&[good, ("x a", "b")])),
        wrong("no-name", with(&[good, ("", "b")])),
        wrong("null-in-value", with(&[good, ("x-a", "b\0c")])),
        wrong("line-in-value", with(&[good, ("x-a", "b\r\nx-b: c")])),
        wrong("connection", with(&[good, ("connection", "close")])),
        wrong("transfer-encoding", with(&[good, ("transfer-encoding", "chunked")])),
        wrong("negative-length", with(&[good, ("content-length", "-5")])),
        wrong(
            "two-lengths",
            with(&[good, ("content-length", "5"), ("content-length", "6")]),
        ),
        wrong(
            "length-and-end",
            say(&[headers(1, &[good, ("content-length", "5")], true)]),
        ),
        wrong("data-first", say(&[data(b"hello", true)])),
        wrong("switching", with(&[(":status", "101")])),
        wrong("interim-end", say(&[headers(1, &[(":status", "103")], true)])),
        // 100 fields with `:status`.
        case(
            "as-many-headers",
            continued(&[&[("content-length", "5")][..], &[("x-a", "b"); 98]].concat()),
            true,
        )
        .whole("hello"),
        large_ones("too-many-headers", continued(&[("x-a", "b"); 100])),
        large_ones("large-header", continued(&[("x-a", &large)])),
        refused("goaway", 0),
        refused("goaway-error", 2),
        case("reset", say(&[Frame::new(RST_STREAM, 0, 1, &[0, 0, 0, 2])]), true).none(503, "UR", "remote reset"),
    ];
    expect(which, &cases).await;
}

async fn incomplete_responses_reset_the_downstream_response(which: Plane) {
    let broken = |name, frame: Frame| midway(name, say(&[frame]), true).part("he", "UPE", "protocol_error");
    let malformed = |name, frame| Case {
        goes_on: which == Plane::Topsail,
        ..broken(name, frame)
    };
    let goes =
        |last: u8, code: u8, rest: Frame| say(&[Frame::new(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, code]), rest]);
    let rest = || data(b"llo", true);
    let cases = [
        broken("short", data(b"ll", true)),
        broken("long", data(b"llo, world", true)),
        malformed("trailers-without-end", headers(1, &[("x-a", "b")], false)),
        malformed("trailers-with-status", headers(1, &[(":status", "200")], true)),
        malformed("trailers-too-early", headers(1, &[("x-a", "b")], true)),
        midway("after-the-end", say(&[rest(), data(b"more", true)]), true).whole("hello"),
        midway("goaway", goes(1, 0, rest()), false).whole("hello"),
        midway("goaway-error", goes(1, 2, rest()), false).whole("hello"),
        midway("goaway-not-seen", goes(0, 0, rest()), false).part("he", "UR", "remote_refused_stream_reset"),
        midway("goaway-not-seen-error", goes(0, 2, rest()), false).part("he", "UR", "remote_refused_stream_reset"),
        midway("reset", say(&[Frame::new(RST_STREAM, 0, 1, &[0, 0, 0, 2])]), true).part("he", "UR", "remote_reset"),
        midway("closes", vec![Step::Close], false).part("he", "UC", "connection_termination"),
    ];
    expect(which, &cases).await;
}

async fn http2_connection_errors_of_the_host_close_its_connection(which: Plane) {
    let ends = |name, steps| case(name, steps, false).none(502, "UPE", "protocol error");
    let frame = |kind, flags, stream, payload: &[u8]| say(&[Frame::new(kind, flags, stream, payload)]);
    let promise = [&[0, 0, 0, 2][..], &head(&[]).payload].concat();
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    let mut cases = vec![
        ends(
            "http1",
            vec![Step::Bytes(
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec(),
            )],
        ),
        // Server push is disabled (RFC 9113 section 8.4); Envoy ignores the frame.
        match which {
            Plane::Topsail => ends("push-promise", frame(PUSH_PROMISE, 4, 1, &promise)),
            _ => case("push-promise", frame(PUSH_PROMISE, 4, 1, &promise), true).late(),
        },
        ends("hpack", frame(1, 5, 1, &[0xff; 8])),
        ends("headers-on-0", say(&[headers(0, &[(":status", "200")], true)])),
        ends("headers-on-even", say(&[headers(2, &[(":status", "200")], true)])),
        ends("headers-on-idle", say(&[headers(5, &[(":status", "200")], true)])),
        ends("data-on-0", frame(DATA, 0, 0, b"x")),
        ends("data-on-idle", frame(DATA, 0, 5, b"x")),
        ends("reset-of-idle", frame(RST_STREAM, 0, 5, &[0; 4])),
        ends("padding", frame(DATA, 8, 1, &[0xff])),
        ends("large-frame", frame(DATA, 0, 1, &[0; 20_000])),
        ends("short-ping", frame(PING, 0, 0, &[0; 3])),
        ends("short-settings", say(&[settings(&[0; 5])])),
        ends("large-window", say(&[settings(&[0, 4, 0x80, 0, 0, 0])])),
        ends("small-frames", say(&[settings(&[0, 5, 0, 0, 0, 1])])),
        ends("no-update", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ends("overflow", frame(WINDOW_UPDATE, 0, 0, &overflow)),
        ends("continuation-of-nothing", frame(CONTINUATION, 4, 1, &[])),
        ends(
            "nothing-continued",
            say(&[Frame::new(1, 0, 1, &[]), Frame::new(PING, 0, 0, &[0; 8])]),
        ),
        case("closes", vec![Step::Close], false).none(503, "UC", "connection termination"),
    ];
    let mut mute = ends("no-settings", say(&[head(&[]), data(b"hello", true)]));
    mute.hello = Vec::new();
    cases.push(mute);
    expect(which, &cases).await;
}

async fn floods_close_the_upstream_connection_or_are_throttled(which: Plane) {
    let block = headers(1, &[("x-a", &"a".repeat(1000))], false).payload;
    let flood = |first: &[Frame], flood: Frame| vec![Step::Say(first.to_vec()), Step::Flood(vec![flood; 1000])];
    let mut begun = head(&[]);
    begun.flags = 0;
    let ends = |name, steps| case(name, steps, false).none(502, "UPE", "protocol error");
    // The bundled proxy stops reading while its acknowledgements cannot be written.
    let waits = |name, mut steps: Vec<Step>| {
        steps.push(Step::Say(vec![head(&[("content-length", "5")]), data(b"hello", true)]));
        match which {
            // A flood takes seconds on a busy machine.
            Plane::Topsail => Case {
                timeout: "25s",
                ..case(name, steps, true).whole("hello")
            },
            _ => ends(name, steps),
        }
    };
    // Envoy reports oversized headers or a flood, depending on how many frames it reads at once.
    let block = flood(&[begun.clone()], Frame::new(CONTINUATION, 0, 1, &block));
    let large = case("", Vec::new(), false).none(503, "UR", "remote reset");
    let continued = Case {
        or: (which == Plane::Envoy).then_some((large.said, large.logged)),
        ..ends("continuation", block)
    };
    let cases = [
        continued,
        ends(
            "empty-continuation",
            flood(&[begun], Frame::new(CONTINUATION, 0, 1, &[])),
        ),
        case("empty-data", flood(&[head(&[])], data(b"", false)), false).part("", "UPE", "protocol_error"),
        waits("ping", flood(&[], Frame::new(PING, 0, 0, &[0; 8]))),
        waits("settings", flood(&[], settings(&[]))),
        ends("priority", flood(&[], Frame::new(2, 0, 3, &[0, 0, 0, 0, 9]))),
        ends(
            "window-update",
            flood(&[], Frame::new(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ),
    ];
    expect(which, &cases).await;
}

async fn silence_and_endless_interim_responses_end_with_a_timeout(which: Plane) {
    let again = |frame: Frame| vec![Step::Repeat(vec![frame], Duration::from_millis(1))];
    let interim = |status: &str| again(headers(1, &[(":status", status)], false));
    // Sends its SETTINGS only after the timeout.
    let mute = [
        Step::Repeat(Vec::new(), Duration::from_millis(10)),
        Step::Say(vec![settings(&[])]),
    ];
    let mut mute = case("mute", mute.to_vec(), true).late();
    mute.hello = Vec::new();
    let cases = [
        case("silence", vec![Step::Say(Vec::new())], true).late(),
        case("pings", again(Frame::new(PING, 0, 0, &[0; 8])), true).late(),
        case("continue", interim("100"), true).late(),
        case("early-hints", interim("103"), true).late(),
        mute,
    ];
    expect(which, &cases).await;
}

async fn connections_without_ping_acks_are_closed(which: Plane) {
    let mute = FrameHost::start(&[settings(&[])], &[Step::Say(Vec::new())]).await;
    let slow = Backend::http("slow").await;
    let cluster = |name: &str, host, timeout: &str| {
        let mut cluster = cluster_http2(name, host);
        let options = &mut cluster["typed_extension_protocol_options"];
        let options = &mut options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"];
        options["http2_protocol_options"] = json!({"connection_keepalive": {"interval": "0.1s", "timeout": timeout}});
        cluster
    };
    let clusters = [cluster("0", mute.address, "0.2s"), cluster("1", slow.address(), "10s")];
    let route =
        |name: &str| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "timeout": "0s"}});
    let log = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
    let more = json!({"access_log": access_log(log)});
    let listener = http_listener("in", "OUTBOUND", json!([route("0"), route("1")]), more);
    let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    let said = ask(&alone, 0, "mute").await.answer().await.unwrap();
    let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_eq!((said.status, said.body.as_str()), (503, text));
    assert_eq!(ask(&alone, 0, "again").await.answer().await.unwrap().body, "good");
    assert_eq!(mute.connections(), 2);
    // A slow response is awaited as long as the host acknowledges pings.
    let slowly = get(alone.listener(0), "web", "/1")
        .header("x-echo-delay", "1000")
        .header("x-case", "slow");
    slowly.expect(200).await;
    let reason = "upstream_reset_before_response_started{connection_termination}";
    let lines = [
        &format!("mute 503 UC {reason}"),
        "again 200 - via_upstream",
        "slow 200 - via_upstream",
    ];
    alone.logged(&lines).await;
}
