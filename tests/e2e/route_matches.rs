//! Every match of an HTTP rule, on live traffic.

use crate::harness::{Call, Plane, Planes};
use crate::web::{Web, routed};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    each_match_takes_what_it_says_and_nothing_else,
}

on_each_plane! {
    entries_are_alternatives_rules_go_by_order_and_the_rest_is_404,
}

/// A path and headers; `:method` and `:authority` are the request's own.
type Sent = (&'static str, &'static [(&'static str, &'static str)]);

/// A match, requests that it takes, and requests that it leaves alone.
struct Row {
    condition: &'static str,
    takes: &'static [Sent],
    leaves: &'static [Sent],
}

const ROWS: &[Row] = &[
    Row {
        condition: "uri: {exact: /a}",
        takes: &[("/a", &[]), ("/a?q=1", &[])],
        leaves: &[("/a/b", &[]), ("/A", &[])],
    },
    Row {
        condition: "uri: {prefix: /a}",
        takes: &[("/a", &[]), ("/ab", &[]), ("/a/b", &[])],
        leaves: &[("/b", &[])],
    },
    Row {
        condition: "uri: {regex: '/a/[0-9]+'}",
        takes: &[("/a/17", &[])],
        leaves: &[("/a/x", &[]), ("/a/17/b", &[]), ("/z/a/17", &[])],
    },
    Row {
        condition: "{uri: {prefix: /Ab}, ignoreUriCase: true}",
        takes: &[("/aBc", &[])],
        leaves: &[("/b", &[])],
    },
    Row {
        condition: "scheme: {exact: http}",
        takes: &[("/", &[])],
        leaves: &[],
    },
    Row {
        condition: "scheme: {exact: https}",
        takes: &[],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "method: {exact: PUT}",
        takes: &[("/", &[(":method", "PUT")])],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "authority: {prefix: HOST.default}",
        takes: &[
            ("/", &[(":authority", "HOST.default")]),
            ("/", &[(":authority", "HOST.default.svc:9080")]),
        ],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "headers: {x-a: {exact: one}}",
        takes: &[("/", &[("x-a", "one")])],
        leaves: &[("/", &[]), ("/", &[("x-a", "One")]), ("/", &[("x-a", "one!")])],
    },
    Row {
        condition: "headers: {x-a: {prefix: on}}",
        takes: &[("/", &[("x-a", "one")])],
        leaves: &[("/", &[("x-a", "no")])],
    },
    Row {
        condition: "headers: {x-a: {regex: 'o.*e'}, x-b: {exact: b}}",
        takes: &[("/", &[("x-a", "one"), ("x-b", "b")])],
        leaves: &[("/", &[("x-a", "one")]), ("/", &[("x-a", "ones"), ("x-b", "b")])],
    },
    Row {
        condition: "headers: {x-a: {}}",
        takes: &[("/", &[("x-a", "")]), ("/", &[("x-a", "y")])],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "withoutHeaders: {x-a: {exact: one}}",
        takes: &[("/", &[]), ("/", &[("x-a", "two")])],
        leaves: &[("/", &[("x-a", "one")])],
    },
    Row {
        condition: "queryParams: {q: {exact: '1'}}",
        takes: &[("/?q=1", &[]), ("/?p=0&q=1", &[])],
        leaves: &[("/", &[]), ("/?q=11", &[])],
    },
    Row {
        condition: "queryParams: {q: {regex: '[0-9]+'}}",
        takes: &[("/?q=12", &[])],
        leaves: &[("/?q=a", &[]), ("/?q=", &[])],
    },
    Row {
        condition: "queryParams: {q: {prefix: ab}}",
        takes: &[("/?q=abc", &[])],
        leaves: &[("/?q=b", &[])],
    },
    Row {
        condition: "port: 9080",
        takes: &[("/", &[])],
        leaves: &[],
    },
    Row {
        condition: "port: 9081",
        takes: &[],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "sourceLabels: {app: client}",
        takes: &[("/", &[])],
        leaves: &[],
    },
    Row {
        condition: "sourceLabels: {app: other}",
        takes: &[],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "sourceNamespace: default",
        takes: &[("/", &[])],
        leaves: &[],
    },
    Row {
        condition: "sourceNamespace: other",
        takes: &[],
        leaves: &[("/", &[])],
    },
    Row {
        condition: "gateways: [mesh]",
        takes: &[("/", &[])],
        leaves: &[],
    },
    Row {
        condition: "{uri: {prefix: /a}, method: {exact: POST}, headers: {x-a: {exact: one}}}",
        takes: &[("/a", &[(":method", "POST"), ("x-a", "one")])],
        leaves: &[
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

async fn each_match_takes_what_it_says_and_nothing_else(planes: Planes) {
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
        for (requests, backend) in [(row.takes, "web-v2"), (row.leaves, "web-v1")] {
            for request in requests {
                let seen = call(&web, &host, request).expect(200).await.seen();
                assert_eq!(seen.backend, backend, "{}: {request:?}", row.condition);
            }
        }
    }
}

async fn entries_are_alternatives_rules_go_by_order_and_the_rest_is_404(plane: Plane) {
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
