//! Every match condition of the HTTP routes of a VirtualService, on live traffic.

use crate::harness::{Call, Plane, Planes};
use crate::web::{Web, routed};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    each_condition_matches_only_the_requests_it_describes,
}

on_each_plane! {
    match_entries_are_alternatives_and_the_first_matching_route_applies,
}

/// A path and headers; `:method` and `:authority` set the method and the host of the request.
type Sent = (&'static str, &'static [(&'static str, &'static str)]);

/// A match condition, requests that match it, and requests that do not.
struct Row {
    condition: &'static str,
    matching: &'static [Sent],
    other: &'static [Sent],
}

const ROWS: &[Row] = &[
    Row {
        condition: "uri: {exact: /a}",
        matching: &[("/a", &[]), ("/a?q=1", &[])],
        other: &[("/a/b", &[]), ("/A", &[])],
    },
    Row {
        condition: "uri: {prefix: /a}",
        matching: &[("/a", &[]), ("/ab", &[]), ("/a/b", &[])],
        other: &[("/b", &[])],
    },
    Row {
        condition: "uri: {regex: '/a/[0-9]+'}",
        matching: &[("/a/17", &[])],
        other: &[("/a/x", &[]), ("/a/17/b", &[]), ("/z/a/17", &[])],
    },
    Row {
        condition: "{uri: {prefix: /Ab}, ignoreUriCase: true}",
        matching: &[("/aBc", &[])],
        other: &[("/b", &[])],
    },
    Row {
        condition: "scheme: {exact: http}",
        matching: &[("/", &[])],
        other: &[],
    },
    Row {
        condition: "scheme: {exact: https}",
        matching: &[],
        other: &[("/", &[])],
    },
    Row {
        condition: "method: {exact: PUT}",
        matching: &[("/", &[(":method", "PUT")])],
        other: &[("/", &[])],
    },
    Row {
        condition: "authority: {prefix: HOST.default}",
        matching: &[
            ("/", &[(":authority", "HOST.default")]),
            ("/", &[(":authority", "HOST.default.svc:9080")]),
        ],
        other: &[("/", &[])],
    },
    Row {
        condition: "headers: {x-a: {exact: one}}",
        matching: &[("/", &[("x-a", "one")])],
        other: &[("/", &[]), ("/", &[("x-a", "One")]), ("/", &[("x-a", "one!")])],
    },
    Row {
        condition: "headers: {x-a: {prefix: on}}",
        matching: &[("/", &[("x-a", "one")])],
        other: &[("/", &[("x-a", "no")])],
    },
    Row {
        condition: "headers: {x-a: {regex: 'o.*e'}, x-b: {exact: b}}",
        matching: &[("/", &[("x-a", "one"), ("x-b", "b")])],
        other: &[("/", &[("x-a", "one")]), ("/", &[("x-a", "ones"), ("x-b", "b")])],
    },
    Row {
        condition: "headers: {x-a: {}}",
        matching: &[("/", &[("x-a", "")]), ("/", &[("x-a", "y")])],
        other: &[("/", &[])],
    },
    Row {
        condition: "withoutHeaders: {x-a: {exact: one}}",
        matching: &[("/", &[]), ("/", &[("x-a", "two")])],
        other: &[("/", &[("x-a", "one")])],
    },
    Row {
        condition: "queryParams: {q: {exact: '1'}}",
        matching: &[("/?q=1", &[]), ("/?p=0&q=1", &[])],
        other: &[("/", &[]), ("/?q=11", &[])],
    },
    Row {
        condition: "queryParams: {q: {regex: '[0-9]+'}}",
        matching: &[("/?q=12", &[])],
        other: &[("/?q=a", &[]), ("/?q=", &[])],
    },
    Row {
        condition: "queryParams: {q: {prefix: ab}}",
        matching: &[("/?q=abc", &[])],
        other: &[("/?q=b", &[])],
    },
    Row {
        condition: "port: 9080",
        matching: &[("/", &[])],
        other: &[],
    },
    Row {
        condition: "port: 9081",
        matching: &[],
        other: &[("/", &[])],
    },
    Row {
        condition: "sourceLabels: {app: client}",
        matching: &[("/", &[])],
        other: &[],
    },
    Row {
        condition: "sourceLabels: {app: other}",
        matching: &[],
        other: &[("/", &[])],
    },
    Row {
        condition: "sourceNamespace: default",
        matching: &[("/", &[])],
        other: &[],
    },
    Row {
        condition: "sourceNamespace: other",
        matching: &[],
        other: &[("/", &[])],
    },
    Row {
        condition: "gateways: [mesh]",
        matching: &[("/", &[])],
        other: &[],
    },
    Row {
        condition: "{uri: {prefix: /a}, method: {exact: POST}, headers: {x-a: {exact: one}}}",
        matching: &[("/a", &[(":method", "POST"), ("x-a", "one")])],
        other: &[
            ("/a", &[("x-a", "one")]),
            ("/a", &[(":method", "POST")]),
            ("/b", &[(":method", "POST"), ("x-a", "one")]),
        ],
    },
];

fn call(web: &Web, host: &str, (path, headers): &Sent) -> Call {
    let authority = headers
        .iter()
        .find(|(name, _)| *name == ":authority")
        .map(|(_, value)| value.replace("HOST", host));
    let call = web.get(authority.as_deref().unwrap_or(host), path);
    headers.iter().fold(call, |call, (name, value)| match *name {
        ":authority" => call,
        ":method" => call.method(value.parse().unwrap()),
        _ => call.header(name, value),
    })
}

async fn each_condition_matches_only_the_requests_it_describes(planes: Planes) {
    let name = |number: usize| format!("match-{number}");
    let documents = ROWS.iter().enumerate().map(|(number, row)| {
        let condition = if row.condition.starts_with('{') {
            row.condition.to_owned()
        } else {
            format!("{{{}}}", row.condition)
        };
        let rules = "
- match: [CONDITION]
  route: [{destination: {host: HOST, subset: v2}}]
- route: [{destination: {host: HOST, subset: v1}}]
";
        routed(&name(number), &rules.replace("CONDITION", &condition))
    });
    let web = Web::start(planes, &documents.collect::<Vec<_>>()).await;
    for (number, row) in ROWS.iter().enumerate() {
        let host = name(number);
        web.reachable(&host).await;
        for (requests, backend) in [(row.matching, "web-v2"), (row.other, "web-v1")] {
            for request in requests {
                let seen = call(&web, &host, request).expect(200).await.seen();
                assert_eq!(seen.backend, backend, "{}: {request:?}", row.condition);
            }
        }
    }
}

async fn match_entries_are_alternatives_and_the_first_matching_route_applies(plane: Plane) {
    let alternatives = "
- match: [{uri: {prefix: /a}}, {headers: {x-a: {exact: one}}}]
  route: [{destination: {host: HOST, subset: v2}}]
- match: [{uri: {prefix: /a}}, {uri: {prefix: /reachable}}]
  route: [{destination: {host: HOST, subset: v1}}]
";
    let web = Web::start(plane, &[routed("alternatives", alternatives)]).await;
    web.reachable("alternatives").await;
    assert_eq!(web.get("alternatives", "/a").expect(200).await.seen().backend, "web-v2");
    assert_eq!(
        web.get("alternatives", "/x")
            .header("x-a", "one")
            .expect(200)
            .await
            .seen()
            .backend,
        "web-v2"
    );
    web.get("alternatives", "/x").expect(404).await;
}
