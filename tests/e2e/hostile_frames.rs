//! Malformed HTTP/2 and floods from clients. Envoy is compared where the planes behave the same; mostly it closes the
//! connection without the GOAWAY that the bundled proxy sends.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::harness::alone::{Alone, access_log, cluster, cluster_http2, http_listener};
use super::harness::frames::{
    DATA, Frame, Frames, GOAWAY, HEADERS, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, headers, request,
};
use super::harness::{Backend, Plane, eventually, get};
use crate::{between_planes, on_each_plane};

on_each_plane! {
    malformed_requests_are_reset_and_not_forwarded,
    connection_errors_close_the_connection,
    oversized_headers_reset_their_stream_and_are_logged,
    trailers_with_underscores_are_handled_as_configured,
    streams_reset_by_the_client_are_logged_with_their_reason,
    priority_window_update_and_empty_data_frames_are_limited,
    floods_close_only_their_own_connection,
}

between_planes! {
    both_planes_advertise_the_same_max_concurrent_streams,
}

/// A data plane in front of a backend that does not answer `/never`.
async fn plane(which: Plane, backend: &Backend) -> Alone {
    plane_with(which, backend, json!({"stream_idle_timeout": "0s"})).await
}

/// The same with further fields in the connection manager.
async fn plane_with(which: Plane, backend: &Backend, more: Value) -> Alone {
    let routes = json!([
        {"match": {"path": "/own"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}},
        {"match": {"prefix": "/never"}, "route": {"cluster": "back", "timeout": "0s"},
         "request_headers_to_add": [{"header": {"key": "x-echo-delay", "value": "60000"}}]},
        {"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}},
    ]);
    let listener = http_listener("in", "INBOUND", routes, more);
    Alone::start(which, &[listener], &[cluster("back", backend.address())], json!({})).await
}

/// Sends frames and returns the status of the response, or `None` if the stream or the connection is closed instead.
async fn outcome(alone: &Alone, frames: &[Frame]) -> Option<u16> {
    let mut client = Frames::open(alone.listener(0)).await;
    client.send(frames).await;
    loop {
        let frame = client.next().await?;
        match frame.kind {
            HEADERS => return Some(frame.status()),
            RST_STREAM | GOAWAY => return None,
            _ => {}
        }
    }
}

/// A complete request on stream 1 with additional headers.
fn get_with(more: &[(&str, &str)]) -> Vec<Frame> {
    vec![headers(1, &[&request("GET", "/a")[..], more].concat(), true)]
}

async fn malformed_requests_are_reset_and_not_forwarded(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend).await;
    assert_eq!(
        outcome(&alone, &get_with(&[("te", "trailers"), ("x-a", "b")])).await,
        Some(200)
    );
    // Requests with a fragment are answered with 400.
    assert_eq!(
        outcome(&alone, &[headers(1, &request("GET", "/a#b"), true)]).await,
        Some(400)
    );
    let without = |name: &str| {
        let fields: Vec<_> = request("GET", "/a")
            .into_iter()
            .filter(|(field, _)| *field != name)
            .collect();
        vec![headers(1, &fields, true)]
    };
    let before = |field: (&'static str, &'static str)| {
        let fields: Vec<_> = [field].into_iter().chain(request("GET", "/a")).collect();
        vec![headers(1, &fields, true)]
    };
    let posted = |fields: &[(&'static str, &'static str)], body: &[u8]| {
        let all = [&request("POST", "/a")[..], fields].concat();
        vec![headers(1, &all, false), Frame::new(0, 1, 1, body)]
    };
    for frames in [
        without(":method"),
        without(":path"),
        without(":scheme"),
        before(("x-a", "b")),
        before((":method", "GET")),
        before((":status", "200")),
        before((":unknown", "x")),
        get_with(&[("connection", "close")]),
        get_with(&[("keep-alive", "5")]),
        get_with(&[("proxy-connection", "close")]),
        get_with(&[("transfer-encoding", "chunked")]),
        get_with(&[("upgrade", "websocket")]),
        get_with(&[("te", "gzip")]),
        get_with(&[("X-A", "b")]),
        get_with(&[("x a", "b")]),
        get_with(&[("", "b")]),
        get_with(&[("x-a", "b\0c")]),
        get_with(&[("x-a", "b\r\nx-b: c")]),
        vec![headers(1, &request("GET", "/a b"), true)],
        vec![headers(1, &request("GET", "a"), true)],
        vec![headers(1, &request("G T", "/a"), true)],
        posted(&[("content-length", "10")], b"hello"),
        posted(&[("content-length", "2")], b"hello"),
        posted(&[("content-length", "-5")], b"hello"),
        posted(&[("content-length", "5"), ("content-length", "6")], b"hello"),
        vec![
            headers(1, &request("POST", "/a"), false),
            headers(1, &[(":path", "/b")], true),
        ],
        vec![
            headers(1, &request("POST", "/a"), false),
            headers(1, &[("x-a", "b")], false),
        ],
    ] {
        assert_eq!(outcome(&alone, &frames).await, None, "{frames:?}");
    }
    // Only the requests with a wrong content-length are forwarded, as that is detected while the body is.
    let seen = backend.seen();
    assert!(seen.iter().filter(|seen| seen.method == "GET").count() == 1, "{seen:?}");
}

async fn oversized_headers_reset_their_stream_and_are_logged(which: Plane) {
    let backend = Backend::http("echo").await;
    let log = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)% %REQ(X-A)%\n";
    let options = json!({"headers_with_underscores_action": "REJECT_REQUEST"});
    let more = json!({"access_log": access_log(log), "common_http_protocol_options": options});
    let alone = plane_with(which, &backend, more).await;
    let (large, too_large) = ("a".repeat(61_200), "a".repeat(61_500));
    let mut lines = Vec::new();
    for (fields, details) in [
        // 100 fields with the pseudo-headers.
        (vec![("x-b", "b"); 96], None),
        (vec![("x-b", "b"); 97], Some("http2.too_many_headers")),
        (vec![("x-b", large.as_str())], None),
        (
            vec![("x-b", too_large.as_str())],
            Some("http2.header_list_size_too_large"),
        ),
        (vec![("x_b", "b")], Some("http2.unexpected_underscore")),
    ] {
        let mut client = Frames::open(alone.listener(0)).await;
        let all = [&request("GET", "/own")[..], &fields].concat();
        client.send(&headers(1, &all, true).continued()).await;
        let response = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
        match details {
            None => {
                assert_eq!((response.kind, response.status()), (HEADERS, 200));
                lines.push("200 - direct_response GET -".to_owned());
            }
            Some(details) => {
                // INTERNAL_ERROR; the connection stays open.
                assert_eq!(
                    (response.kind, &response.payload[..]),
                    (RST_STREAM, &[0, 0, 0, 2][..]),
                    "{details}"
                );
                client.send(&[headers(3, &request("GET", "/own"), true)]).await;
                assert_eq!(client.next_of(&[HEADERS]).await.unwrap().status(), 200);
                lines.push(format!("0 DR {details} - -"));
                lines.push("200 - direct_response GET -".to_owned());
            }
        }
    }
    alone.logged(&lines).await;
    let stats = alone.sidecar.stats("downstream_rq_(total|rx_reset|active)$").await;
    let counted = ["total", "rx_reset", "active"].map(|name| stats[&format!("http.in.downstream_rq_{name}")]);
    assert_eq!(counted, [8, 3, 0]);
}

/// A host that answers with the names of the trailers that it received.
async fn host_that_reads_trailers() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        while let Some(Ok(_)) = body.data().await {}
                        // The stream was reset.
                        let Ok(trailers) = body.trailers().await else { return };
                        let names: Vec<_> = trailers.iter().flat_map(http::HeaderMap::keys).collect();
                        let names: Vec<_> = names.into_iter().map(http::HeaderName::as_str).collect();
                        let answer = http::Response::builder().header("x-got", names.join(","));
                        respond.send_response(answer.body(()).unwrap(), true).unwrap();
                    });
                }
            });
        }
    });
    address
}

async fn trailers_with_underscores_are_handled_as_configured(which: Plane) {
    let address = host_that_reads_trailers().await;
    let log = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %RESP(X-GOT)%\n";
    for (action, all, one) in [
        ("ALLOW", "x_a,x-b", "x_a"),
        ("DROP_HEADER", "x-b", ""),
        ("REJECT_REQUEST", "", ""),
    ] {
        let options = json!({"headers_with_underscores_action": action});
        let more = json!({"access_log": access_log(log), "common_http_protocol_options": options});
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
        let listener = http_listener("in", "INBOUND", routes, more);
        let clusters = [cluster_http2("back", address)];
        let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
        let mut client = Frames::open(alone.listener(0)).await;
        let mut lines = Vec::new();
        for (id, trailers, got) in [(1, vec![("x_a", "1"), ("x-b", "2")], all), (3, vec![("x_a", "1")], one)] {
            let body = Frame::new(DATA, 0, id, b"hello");
            let frames = [
                headers(id, &request("POST", "/"), false),
                body,
                headers(id, &trailers, true),
            ];
            client.send(&frames).await;
            let response = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
            lines.push(match action {
                "REJECT_REQUEST" => {
                    assert_eq!(
                        (response.kind, response.stream, &response.payload[..]),
                        (RST_STREAM, id, &[0, 0, 0, 2][..])
                    );
                    "0 DR http2.unexpected_underscore -".to_owned()
                }
                _ => {
                    assert_eq!((response.kind, response.status()), (HEADERS, 200), "{action}");
                    format!("200 - via_upstream {got}")
                }
            });
        }
        alone.logged(&lines).await;
    }
}

async fn streams_reset_by_the_client_are_logged_with_their_reason(which: Plane) {
    let backend = Backend::http("echo").await;
    let log =
        "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:PATH)% %DOWNSTREAM_WIRE_BYTES_RECEIVED%\n";
    let alone = plane_with(which, &backend, json!({"access_log": access_log(log)})).await;
    let asked = headers(1, &request("GET", "/never"), true);
    let bytes = 9 + asked.payload.len();
    // CANCEL, REFUSED_STREAM, PROTOCOL_ERROR, and a closed connection.
    for code in [Some(8), Some(7), Some(1), None] {
        let mut client = Frames::open(alone.listener(0)).await;
        client.send(std::slice::from_ref(&asked)).await;
        eventually("the upstream request is active", async || {
            let stats = alone.sidecar.stats("cluster.back.upstream_rq_active").await;
            let active = stats["cluster.back.upstream_rq_active"];
            (active == 1).then_some(()).ok_or(active.to_string())
        })
        .await;
        if let Some(code) = code {
            client.send(&[Frame::new(RST_STREAM, 0, 1, &[0, 0, 0, code])]).await;
            client.send(&[headers(3, &request("GET", "/own"), true)]).await;
            assert_eq!(client.next_of(&[HEADERS]).await.unwrap().status(), 200);
        }
        drop(client);
        eventually("the upstream request is reset", async || {
            let stats = alone.sidecar.stats("cluster.back.upstream_rq_active").await;
            let active = stats["cluster.back.upstream_rq_active"];
            (active == 0).then_some(()).ok_or(active.to_string())
        })
        .await;
    }
    let own = "200 - direct_response /own 64";
    alone
        .logged(&[
            &format!("0 DR http2.remote_reset /never {}", bytes + 13),
            own,
            &format!("0 DR http2.remote_refuse /never {}", bytes + 13),
            own,
            &format!("0 DPE http2.remote_reset /never {}", bytes + 13),
            own,
            &format!("0 DC downstream_remote_disconnect /never {bytes}"),
        ])
        .await;
}

/// The number of frames without effect that each data plane accepts before it closes the connection.
async fn priority_window_update_and_empty_data_frames_are_limited(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend).await;
    let own = |id| headers(id, &request("GET", "/own"), true);
    let post = headers(1, &request("POST", "/never"), false);
    let priority = Frame::new(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]);
    let update = Frame::new(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    // The bundled proxy counts every stream for its limits; Envoy does not count those with a local reply.
    let answered = usize::from(which == Plane::Topsail);
    for (before, frame, most) in [
        (None, &priority, Some(100)),
        (Some(&post), &priority, Some(200)),
        (Some(&own(1)), &priority, Some(100 + 100 * answered)),
        (None, &update, Some(5)),
        (Some(&post), &update, Some(7)),
        (Some(&own(1)), &update, Some(25 + 2 * answered)),
        (Some(&post), &Frame::new(DATA, 0, 1, &[]), Some(1)),
        (None, &Frame::new(0xaa, 0, 0, &[0; 4]), None),
        (None, &Frame::new(0x10, 0, 0, &[0, 0, 0, 1, b'u']), None),
    ] {
        for (count, fine) in match most {
            Some(most) => vec![(most, true), (most + 1, false)],
            None => vec![(10_000, true)],
        } {
            let mut client = Frames::open(alone.listener(0)).await;
            client.send(before.map_or(&[], std::slice::from_ref)).await;
            if before == Some(&own(1)) {
                client.next_of(&[DATA]).await.unwrap();
            }
            client.send(&vec![frame.clone(); count]).await;
            client.send(&[own(5)]).await;
            let answer = client.next_of(&[HEADERS]).await;
            assert_eq!(answer.is_some(), fine, "{count} times {frame:?} after {before:?}");
        }
    }
}

/// The default without `max_concurrent_streams`.
async fn both_planes_advertise_the_same_max_concurrent_streams() {
    let backend = Backend::http("echo").await;
    for which in [Plane::Envoy, Plane::Topsail] {
        let alone = plane(which, &backend).await;
        let mut client = Frames::open(alone.listener(0)).await;
        let settings = client.next_of(&[SETTINGS]).await.unwrap();
        let offered = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]);
        assert_eq!(offered.unwrap()[2..], 1024_u32.to_be_bytes(), "{which:?}");
    }
}

async fn connection_errors_close_the_connection(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend).await;
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    for frames in [
        vec![Frame::new(8, 0, 0, &overflow), Frame::new(8, 0, 0, &overflow)],
        vec![Frame::new(8, 0, 0, &[0; 4])],
        vec![Frame::new(0, 0, 5, b"x")],
        vec![headers(0, &request("GET", "/a"), true)],
        vec![headers(2, &request("GET", "/a"), true)],
        vec![Frame::new(HEADERS, 5, 1, &[0xff; 8])],
        vec![Frame::new(RST_STREAM, 0, 1, &[0; 4])],
        vec![Frame::new(5, 4, 1, &[0, 0, 0, 2])],
        vec![Frame::new(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])],
        vec![Frame::new(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])],
        vec![Frame::new(SETTINGS, 0, 0, &[0; 5])],
        vec![Frame::new(6, 0, 0, &[0; 3])],
        vec![Frame::new(0, 8, 1, &[0xff])],
        vec![Frame::new(0, 0, 1, &[0; 20_000])],
        // A CONTINUATION without HEADERS, and HEADERS that are followed by another frame.
        vec![Frame::new(9, 4, 1, &[])],
        vec![Frame::new(HEADERS, 0, 1, &[]), Frame::new(6, 0, 0, &[0; 8])],
    ] {
        let mut client = Frames::open(alone.listener(0)).await;
        client.send(&frames).await;
        while let Some(frame) = client.next().await {
            assert_ne!(frame.kind, HEADERS, "{frames:?}");
        }
    }
    assert_eq!(backend.seen().len(), 0);
}

async fn floods_close_only_their_own_connection(which: Plane) {
    let backend = Backend::http("echo").await;
    let alone = plane(which, &backend).await;
    // Another client, which must not be affected.
    let mut other = Frames::open(alone.listener(0)).await;
    let post = headers(1, &request("POST", "/never"), false);
    let block = |name: &str| headers(1, &[(name, &"a".repeat(1000))], false);
    let resets = (0..2000).flat_map(|number| {
        let id = 2 * number + 1;
        [
            headers(id, &request("GET", "/never"), true),
            Frame::new(RST_STREAM, 0, id, &[0, 0, 0, 8]),
        ]
    });
    let mut begun = post.clone();
    begun.flags = 0;
    let continued = |frame: Frame| std::iter::once(begun.clone()).chain(std::iter::repeat_n(frame, 5000));
    let continuation = |payload: &[u8]| Frame::new(9, 0, 1, payload);
    let floods: Vec<Vec<Frame>> = vec![
        resets.collect(),
        continued(continuation(&[])).collect(),
        continued(continuation(&block("x-a").payload)).collect(),
        std::iter::once(post.clone())
            .chain(std::iter::repeat_n(Frame::new(0, 0, 1, &[]), 5000))
            .collect(),
    ];
    for flood in floods {
        let mut client = Frames::open(alone.listener(0)).await;
        client.send(&flood).await;
        while client.next().await.is_some() {}
        get(alone.listener(0), "web", "/a").expect(200).await;
    }
    other.send(&[headers(1, &request("GET", "/a"), true)]).await;
    loop {
        let frame = other.next().await.expect("the other connection ended");
        if frame.kind == HEADERS {
            assert_eq!(frame.status(), 200);
            break;
        }
    }
    // No request is left active.
    let active = "http.in.downstream_rq_active";
    eventually("all requests end", async || {
        match alone.sidecar.stats(active).await[active] {
            0 => Ok(()),
            active => Err(active.to_string()),
        }
    })
    .await;
}

/// The bundled proxy sends GOAWAY with ENHANCE_YOUR_CALM.
#[tokio::test]
async fn floods_are_answered_with_enhance_your_calm() {
    let backend = Backend::http("echo").await;
    let alone = plane(Plane::Topsail, &backend).await;
    let post = headers(1, &request("POST", "/never"), false);
    let flood: Vec<_> = std::iter::once(post)
        .chain(std::iter::repeat_n(Frame::new(0, 0, 1, &[]), 5000))
        .collect();
    let mut client = Frames::open(alone.listener(0)).await;
    client.send(&flood).await;
    let mut reason = None;
    while let Some(frame) = client.next().await {
        if frame.kind == GOAWAY {
            reason = Some(frame.payload[7]);
        }
    }
    assert_eq!(reason, Some(11));
}

/// Streams that are reset after they were forwarded count as well as those that are reset at once.
#[tokio::test]
async fn resets_of_forwarded_streams_close_the_connection_as_well() {
    let backend = Backend::http("echo").await;
    let alone = plane(Plane::Topsail, &backend).await;
    let mut client = Frames::open(alone.listener(0)).await;
    for number in 0..600 {
        let id = 2 * number + 1;
        client
            .send(&[
                headers(id, &request("GET", "/never"), true),
                Frame::new(6, 0, 0, &[0; 8]),
            ])
            .await;
        // The PING is acknowledged after the stream was processed.
        loop {
            match client.next().await {
                None => return assert!(number >= 499, "{number}"),
                Some(frame) if frame.kind == 6 => break,
                Some(_) => {}
            }
        }
        client.send(&[Frame::new(RST_STREAM, 0, id, &[0, 0, 0, 8])]).await;
    }
    while client.next().await.is_some() {}
}

/// A client that sends PING and SETTINGS and does not read the acknowledgements.
#[tokio::test]
async fn unread_ping_and_settings_acks_are_not_buffered_without_limit() {
    let backend = Backend::http("echo").await;
    let alone = plane(Plane::Topsail, &backend).await;
    let before = alone.sidecar.stats("server.memory_allocated").await["server.memory_allocated"];
    for flood in [
        Frame::new(6, 0, 0, &[0; 8]),
        Frame::new(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
    ] {
        let mut client = Frames::open(alone.listener(0)).await;
        let flood = vec![flood; 1000];
        // Until the proxy stops reading or closes the connection.
        while client.takes(&flood).await {}
        get(alone.listener(0), "web", "/a").expect(200).await;
    }
    let after = alone.sidecar.stats("server.memory_allocated").await["server.memory_allocated"];
    assert!(after < before + (8 << 20), "{before} -> {after}");
}
