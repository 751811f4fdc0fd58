//! Every action of the HTTP routes of a VirtualService, on live traffic.

use std::time::{Duration, Instant};

use http::Method;

use crate::harness::{Plane, Planes, eventually};
use crate::web::{Web, routed};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    weights_split_the_requests,
    rewrites_change_the_path_and_the_authority,
    request_and_response_headers_are_set_added_and_removed,
    slow_requests_end_with_the_route_timeout,
    requests_are_retried_as_configured,
    faults_delay_and_abort,
    mirrors_receive_copies_and_their_responses_are_ignored,
    cors_preflights_are_answered_by_the_sidecar,
}

on_each_plane! {
    redirects_and_direct_responses_need_no_backend,
}

async fn weights_split_the_requests(planes: Planes) {
    let shared = "
- route:
  - {destination: {host: HOST, subset: v1}, weight: 80}
  - {destination: {host: HOST, subset: v2}, weight: 20}
";
    let nothing = "
- route:
  - {destination: {host: HOST, subset: v1}, weight: 0}
  - {destination: {host: HOST, subset: v2}, weight: 5}
";
    let web = Web::start(planes, &[routed("shared", shared), routed("nothing", nothing)]).await;
    web.reachable("shared").await;
    let counts = web.get("shared", "/").count(400).await;
    // For 400 requests at 20 %, the standard deviation is 8; the bounds are seven of them.
    assert!((24..=136).contains(&counts["web-v2"]), "{counts:?}");
    web.reachable("nothing").await;
    assert_eq!(
        web.get("nothing", "/").count(50).await,
        [("web-v2".to_owned(), 50)].into()
    );
}

async fn redirects_and_direct_responses_need_no_backend(plane: Plane) {
    let rules = "
- match: [{uri: {exact: /moved}}]
  redirect: {uri: /new, authority: new.example, redirectCode: 302}
- match: [{uri: {exact: /secure}}]
  redirect: {scheme: https, port: 8443}
- match: [{uri: {exact: /default}}]
  redirect: {authority: other.example}
- match: [{uri: {prefix: /old}}]
  redirect: {prefixRewrite: /fresh}
- match: [{uri: {exact: /derived}}]
  redirect: {authority: derived.example, derivePort: FROM_REQUEST_PORT}
- match: [{uri: {exact: /text}}]
  directResponse: {status: 418, body: {string: short and stout}}
- match: [{uri: {exact: /bytes}}]
  directResponse: {status: 200, body: {bytes: aGk=}}
- match: [{uri: {exact: /bare}}]
  directResponse: {status: 204}
- route: [{destination: {host: HOST}}]
";
    let web = Web::start(plane, &[routed("elsewhere", rules)]).await;
    web.reachable("elsewhere").await;
    let redirects = [
        ("/moved", 302, "http://new.example/new"),
        ("/secure", 301, "https://elsewhere:8443/secure"),
        ("/default", 301, "http://other.example/default"),
        ("/old/page?q=1", 301, "http://elsewhere/fresh/page?q=1"),
        ("/derived", 301, "http://derived.example:9080/derived"),
    ];
    for (path, status, location) in redirects {
        assert_eq!(
            web.get("elsewhere", path).expect(status).await.header("location"),
            location,
            "{path}"
        );
    }
    assert_eq!(
        web.get("elsewhere", "/text").expect(418).await.text(),
        "short and stout"
    );
    assert_eq!(web.get("elsewhere", "/bytes").expect(200).await.text(), "hi");
    assert_eq!(web.get("elsewhere", "/bare").expect(204).await.text(), "");
    let served = [&web.v1, &web.v2].map(|app| app.backend().seen());
    assert!(
        served.iter().flatten().all(|seen| seen.path == "/reachable"),
        "{served:?}"
    );
}

async fn rewrites_change_the_path_and_the_authority(planes: Planes) {
    let rules = "
- match: [{uri: {prefix: /api/}}]
  rewrite: {uri: /, authority: inner.example}
  route: [{destination: {host: HOST}}]
- match: [{uri: {exact: /one}}]
  rewrite: {uri: /two}
  route: [{destination: {host: HOST}}]
- match: [{uri: {prefix: /re/}}]
  rewrite: {uriRegexRewrite: {match: '/re/([^/]+)/(.*)', rewrite: '/\\2/of/\\1'}}
  route: [{destination: {host: HOST}}]
- route: [{destination: {host: HOST}}]
";
    let web = Web::start(planes, &[routed("rewritten", rules)]).await;
    web.reachable("rewritten").await;
    let seen = web.get("rewritten", "/api/users?q=1").expect(200).await.seen();
    assert_eq!(
        (seen.path.as_str(), seen.authority.as_str()),
        ("/users?q=1", "inner.example")
    );
    assert_eq!(web.get("rewritten", "/one").expect(200).await.seen().path, "/two");
    assert_eq!(web.get("rewritten", "/re/a/b").expect(200).await.seen().path, "/b/of/a");
    let seen = web.get("rewritten", "/else").expect(200).await.seen();
    assert_eq!((seen.path.as_str(), seen.authority.as_str()), ("/else", "rewritten"));
}

async fn request_and_response_headers_are_set_added_and_removed(planes: Planes) {
    let rules = "
- headers:
    request: {set: {x-set: route, host: set.example}, add: {x-add: more}, remove: [x-gone]}
    response: {set: {x-answer: route}, remove: [x-backend]}
  route:
  - destination: {host: HOST, subset: v1}
    weight: 1
    headers:
      request: {set: {x-destination: v1}}
      response: {add: {x-answer-too: v1}}
  - destination: {host: HOST, subset: v2}
    weight: 1
    headers:
      request: {set: {x-destination: v2}}
      response: {add: {x-answer-too: v2}}
";
    let web = Web::start(planes, &[routed("headed", rules)]).await;
    web.reachable("headed").await;
    for _ in 0..20 {
        let call = web
            .get("headed", "/")
            .header("x-set", "client")
            .header("x-add", "some")
            .header("x-gone", "1");
        let answer = call.expect(200).await;
        let seen = answer.seen();
        let version = seen.backend.strip_prefix("web-").unwrap();
        assert_eq!(
            (seen.headers["x-set"].as_str(), seen.authority.as_str()),
            ("route", "set.example")
        );
        assert!(
            seen.headers["x-add"].contains("some") && seen.headers["x-add"].contains("more"),
            "{seen:?}"
        );
        assert!(!seen.headers.contains_key("x-gone"), "{seen:?}");
        assert_eq!(seen.headers["x-destination"], version);
        assert_eq!(
            (answer.header("x-answer"), answer.header("x-answer-too")),
            ("route", version)
        );
        assert_eq!(answer.header("x-backend"), "");
    }
}

async fn slow_requests_end_with_the_route_timeout(planes: Planes) {
    let limited = "
- timeout: 0.2s
  route: [{destination: {host: HOST}}]
";
    let unlimited = "
- route: [{destination: {host: HOST}}]
";
    let web = Web::start(planes, &[routed("limited", limited), routed("unlimited", unlimited)]).await;
    web.reachable("limited").await;
    web.reachable("unlimited").await;
    web.get("limited", "/").header("x-echo-delay", "5000").expect(504).await;
    web.get("limited", "/").header("x-echo-delay", "10").expect(200).await;
    web.get("unlimited", "/")
        .header("x-echo-delay", "400")
        .expect(200)
        .await;
}

async fn requests_are_retried_as_configured(planes: Planes) {
    let to_v1 = "
  route: [{destination: {host: HOST, subset: v1}}]
";
    let rules = |retries: &str| format!("- retries: {{{retries}}}{to_v1}");
    let documents = [
        routed("twice", &rules("attempts: 2, retryOn: 5xx, backoff: 1ms")),
        routed("never", &rules("attempts: 0")),
        routed("by-code", &rules("attempts: 1, retryOn: '503'")),
        routed("each-try", &rules("attempts: 1, retryOn: 5xx, perTryTimeout: 0.1s")),
        routed("default", &format!("- name: plain{to_v1}")),
    ];
    let web = Web::start(planes, &documents).await;
    for host in ["twice", "never", "by-code", "each-try", "default"] {
        web.reachable(host).await;
    }
    let backend = web.v1.backend();
    for (host, failures, status) in [
        ("twice", 2, 200),
        ("twice", 3, 503),
        ("never", 1, 503),
        ("by-code", 1, 200),
        ("default", 1, 503),
    ] {
        backend.fail_next(failures);
        web.get(host, "/").expect(status).await;
        backend.fail_next(0);
    }
    let before = backend.seen().len();
    web.get("each-try", "/")
        .header("x-echo-delay", "1000")
        .expect(504)
        .await;
    eventually("both attempts reach the backend", async || {
        match backend.seen().len() - before {
            2 => Ok(()),
            other => Err(format!("{other}")),
        }
    })
    .await;
}

async fn faults_delay_and_abort(planes: Planes) {
    let rules = "
- match: [{uri: {prefix: /slow}}]
  fault: {delay: {fixedDelay: 0.3s, percentage: {value: 100}}}
  route: [{destination: {host: HOST}}]
- match: [{uri: {prefix: /abort}}]
  fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
  route: [{destination: {host: HOST}}]
- match: [{uri: {prefix: /grpc}}]
  fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
  route: [{destination: {host: HOST}}]
- match: [{uri: {prefix: /half}}]
  fault: {abort: {httpStatus: 500, percentage: {value: 50}}}
  route: [{destination: {host: HOST}}]
- match: [{uri: {prefix: /never}}]
  fault: {abort: {httpStatus: 500}}
  route: [{destination: {host: HOST}}]
- route: [{destination: {host: HOST}}]
";
    let web = Web::start(planes, &[routed("faulty", rules)]).await;
    web.reachable("faulty").await;
    let start = Instant::now();
    web.get("faulty", "/slow").expect(200).await;
    // Envoy's timers have a resolution of a millisecond and may fire a little early.
    assert!(start.elapsed() >= Duration::from_millis(290));
    web.get("faulty", "/abort").expect(418).await;
    web.get("faulty", "/never").expect(200).await;
    let grpc = web
        .get("faulty", "/grpc")
        .header("content-type", "application/grpc")
        .expect(200)
        .await;
    assert_eq!(grpc.header("grpc-status"), "14");
    let mut aborted = 0;
    for _ in 0..100 {
        aborted += usize::from(web.get("faulty", "/half").send().await.unwrap().status == 500);
    }
    assert!((15..=85).contains(&aborted), "{aborted}");
}

async fn mirrors_receive_copies_and_their_responses_are_ignored(planes: Planes) {
    let mirrored = "
- mirror: {host: HOST, subset: v2}
  route: [{destination: {host: HOST, subset: v1}}]
";
    let partly = "
- mirrors:
  - destination: {host: HOST, subset: v2}
    percentage: {value: 0}
  route: [{destination: {host: HOST, subset: v1}}]
";
    let web = Web::start(planes, &[routed("mirrored", mirrored), routed("partly", partly)]).await;
    web.reachable("mirrored").await;
    web.reachable("partly").await;
    let paths = |path: &str| web.v2.backend().seen().iter().filter(|seen| seen.path == path).count();
    let call = web
        .get("mirrored", "/copy")
        .method(Method::POST)
        .body("text")
        .header("x-echo-status", "201");
    assert_eq!(call.expect(201).await.seen().backend, "web-v1");
    eventually("the mirrored request arrives", async || {
        if paths("/copy") == 1 {
            Ok(())
        } else {
            Err("no copy".to_owned())
        }
    })
    .await;
    let copy = web
        .v2
        .backend()
        .seen()
        .into_iter()
        .find(|seen| seen.path == "/copy")
        .unwrap();
    assert_eq!(
        (copy.body.as_str(), copy.method.as_str(), copy.authority.as_str()),
        ("text", "POST", "mirrored")
    );
    for _ in 0..20 {
        web.get("partly", "/none").expect(200).await;
    }
    web.get("mirrored", "/after").expect(200).await;
    eventually("the next mirrored request arrives", async || {
        if paths("/after") == 1 {
            Ok(())
        } else {
            Err("no copy".to_owned())
        }
    })
    .await;
    assert_eq!(paths("/none"), 0);
}

async fn cors_preflights_are_answered_by_the_sidecar(planes: Planes) {
    let rules = "
- corsPolicy:
    allowOrigins: [{exact: 'https://a.example'}, {regex: 'https://[a-z]+\\.b\\.example'}]
    allowMethods: [GET, PUT]
    allowHeaders: [x-one, x-two]
    exposeHeaders: [x-three]
    maxAge: 60s
    allowCredentials: true
  route: [{destination: {host: HOST}}]
";
    let web = Web::start(planes, &[routed("shared", rules)]).await;
    web.reachable("shared").await;
    let preflight = |origin: &str| {
        let call = web
            .get("shared", "/preflight")
            .method(Method::OPTIONS)
            .header("origin", origin);
        call.header("access-control-request-method", "PUT")
    };
    for origin in ["https://a.example", "https://x.b.example"] {
        let answer = preflight(origin).expect(200).await;
        let expected = [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET,PUT"),
            ("access-control-allow-headers", "x-one,x-two"),
            ("access-control-max-age", "60"),
            ("access-control-allow-credentials", "true"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), value, "{name} for {origin}");
        }
        assert_eq!(answer.header("x-backend"), "", "the preflight was forwarded");
    }
    let foreign = preflight("https://c.example").expect(200).await;
    assert_eq!(foreign.header("access-control-allow-origin"), "");
    assert_ne!(
        foreign.header("x-backend"),
        "",
        "a preflight from another origin is forwarded"
    );
    let answer = web
        .get("shared", "/")
        .header("origin", "https://a.example")
        .expect(200)
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(answer.header("access-control-expose-headers"), "x-three");
}
