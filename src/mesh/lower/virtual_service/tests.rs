//! Istio's validation rules for VirtualServices; expected codes are marked on the lines concerned.

use std::sync::Arc;
use std::time::Duration;

use crate::mesh::lower::{Context, Form, lower};
use crate::mesh::testing::{expect_as_marked, objects};
use crate::mesh::virtual_service::{
    Destination, FaultAbort, HttpAction, HttpForward, HttpRoute, PathRewrite, RedirectPath, RedirectPort, StringMatch,
    VirtualService,
};
use crate::name::{Namespace, Percent};

/// A VirtualService with these fields besides `hosts`, and a service for its destinations.
fn with(spec: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: a}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a}}
spec:
  hosts: [a]
{spec}"
    )
}

/// An HTTP route with these fields besides `route`.
fn route(fields: &str) -> String {
    with(&format!(
        "  http:
  - route: [{{destination: {{host: a}}}}]
{fields}"
    ))
}

fn lowered(text: &str) -> Arc<VirtualService> {
    let object = objects("a.yaml", text).pop().unwrap();
    let lowered = lower(&object, &Context::default());
    match lowered.value {
        Some(Form::VirtualService(rules)) => rules,
        other => panic!("{other:?} {:?}", lowered.findings),
    }
}

fn first_route(text: &str) -> HttpRoute {
    lowered(text).http.first().unwrap().clone()
}

fn forward(route: &HttpRoute) -> &HttpForward {
    match &route.action {
        HttpAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hosts_and_gateways() {
    expect_as_marked(
        r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts:
  - "*"                    #! IST0106
  - a.b
  - "*.b"                  #! IST0106
  - a_b.c                  #! IST0106
  gateways:
  - ns/gateway             #! TS0005
  - mesh
  - ns/                    #! IST0106
  - gateway.ns.svc         #! IST0133
  exportTo:
  - .
  - default                #! IST0106
  - "*"                    #! IST0106
  - "~"                    #! IST0106
  - A_B                    #! IST0106
  http:
  - directResponse: {status: 200}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: only-gateways}
spec:
  hosts: ["*"]
  gateways: [ns/gateway]   #! TS0005
  http:
  - directResponse: {status: 200}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: delegate}
spec:                      #! TS0005
  http:
  - directResponse: {status: 200}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: empty}
spec:                      #! IST0106
  hosts: [x.y]
"#,
    );
}

#[test]
fn short_hosts_belong_to_the_rules_namespace() {
    let rules = lowered(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [Reviews, reviews.other, 10.0.0.1, reviews.shop.svc.cluster.local]
  http: [{route: [{destination: {host: ratings, port: {number: 80}, subset: v1}}]}]
",
    );
    let hosts: Vec<&str> = rules.hosts.iter().map(|host| host.as_str()).collect();
    let full = "reviews.shop.svc.cluster.local";
    assert_eq!(
        hosts,
        [full, "reviews.other", "10.0.0.1", full],
        "as in Istio, it may have both names"
    );
    let expected = Destination {
        host: "ratings.shop.svc.cluster.local".parse().unwrap(),
        subset: Some("v1".into()),
        port: Some(80),
    };
    assert_eq!(rules.destinations().collect::<Vec<_>>(), [&expected]);
}

#[test]
fn matches() {
    expect_as_marked(&with(
        r#"
  http:
  - match:
    - uri: {prefix: ""}
    - uri:
        regex: "("                         #! IST0106
    - method:
        prefix: ""                         #! IST0106
    - headers:
        x-a: {regex: ".*"}
        "a b": {exact: x}                  #! IST0106
        ":path": {exact: x}                #! IST0106
        "@request.auth.claims.sub": {exact: x} #! TS0005
        x-b: {regex: "*"}                  #! IST0106
      withoutHeaders:
        x-c: {regex: "*"}
        "": {exact: x}                     #! IST0106
    - port: 70000                          #! IST0106
    - sourceLabels: {"a b": c}             #! IST0106
    - sourceNamespace: A_B                 #! IST0106
    - sourceNamespace: x                   #! IST0133
      gateways: [mesh]
    - queryParams:
        "": {exact: x}                     #! IST0106
    directResponse: {status: 200}
"#,
    ));
}

#[test]
fn a_match_is_lowered_field_by_field() {
    let route = first_route(&with(
        r#"
  http:
  - name: r
    match:
    - name: m
      uri: {exact: /a}
      ignoreUriCase: true
      scheme: {exact: https}
      method: {regex: GET|PUT}
      authority: {prefix: a.}
      headers: {X-B: {}, x-a: {exact: "1"}}
      withoutHeaders: {x-c: {regex: "*"}}
      queryParams: {q: {prefix: p}}
      port: 80
      statPrefix: s
      sourceLabels: {app: client}
      sourceNamespace: ns
    - uri: {}
      gateways: [ns/g]
      sourceLabels: {app: client}
    route: [{destination: {host: a}}]
"#,
    ));
    let [m, gateways] = route.matches.as_slice() else {
        panic!("{route:?}")
    };
    assert_eq!((&*route.name, &*m.name, &*m.stat_prefix), ("r", "m", "s"));
    assert_eq!(m.uri, Some(StringMatch::Exact("/a".into())));
    assert!(m.ignore_uri_case);
    assert_eq!(m.scheme, Some(StringMatch::Exact("https".into())));
    assert_eq!(m.method, Some(StringMatch::Regex("GET|PUT".into())));
    assert_eq!(m.authority, Some(StringMatch::Prefix("a.".into())));
    let one = Some(StringMatch::Exact("1".into()));
    assert_eq!(m.headers, [("x-b".into(), None), ("x-a".into(), one)]);
    assert_eq!(m.without_headers, [("x-c".into(), None)]);
    assert_eq!(m.query_params, [("q".into(), Some(StringMatch::Prefix("p".into())))]);
    assert_eq!(m.port, Some(80));
    assert_eq!(m.source.labels.len(), 1);
    assert_eq!(m.source.namespace, Some("ns".parse::<Namespace>().unwrap()));
    assert!(!m.source.gateways_only);
    assert_eq!(gateways.uri, None);
    assert!(gateways.source.gateways_only && gateways.source.labels.is_empty());
}

#[test]
fn conflicts_between_actions() {
    expect_as_marked(&with(
        r#"
  http:
  - match: [{uri: {exact: /1}}]
    redirect: {uri: /x}
    route: [{destination: {host: a}}]      #! IST0106
    fault: {abort: {httpStatus: 500, percentage: {value: 1}}} #! IST0106
    rewrite: {uri: /y}                     #! IST0106
  - match: [{uri: {exact: /6}}]
    redirect: {uri: /x}
    directResponse: {status: 200}          #! IST0106
  - match: [{uri: {exact: /2}}]
    directResponse: {status: 200}
    route: [{destination: {host: a}}]      #! IST0106
    fault: {abort: {httpStatus: 500, percentage: {value: 1}}} #! IST0106
    rewrite: {uri: /y}                     #! IST0106
  - match: [{uri: {exact: /3}}]            #! IST0106
    timeout: 1s
  - match: [{uri: {exact: /4}}]
    route: [{destination: {host: a}}]
    mirror: {host: a}
    mirrors: [{destination: {host: a}}]    #! IST0106
  - match: [{uri: {exact: /5}}]
    route:
    - destination: {host: a}
    headers: {request: {set: {Host: x}}}
    rewrite: {authority: y}                #! IST0106
"#,
    ));
}

#[test]
fn destinations_and_weights() {
    expect_as_marked(&with(
        r#"
  http:
  - match: [{uri: {exact: /1}}]
    route:                                 #! IST0106
    - destination: {host: a}
    - destination: {host: a}
  - match: [{uri: {exact: /2}}]
    route:
    - destination: {host: a}
      weight: -1                           #! IST0106
    - weight: 1                            #! IST0106
  - match: [{uri: {exact: /3}}]
    route:
    - destination: {host: "*"}             #! IST0106
  - match: [{uri: {exact: /4}}]
    route:
    - destination:
        host: a_b                          #! IST0106
        subset: "v 1"                      #! IST0106
        port: {number: 0}                  #! IST0106
  - match: [{uri: {exact: /5}}]
    route:
    - destination: {host: a}
      headers:
        request:
          remove: [":path"]                #! IST0106
"#,
    ));
}

#[test]
fn weights_and_headers_of_destinations() {
    let route = first_route(&with(
        "
  http:
  - route:
    - destination: {host: a}
      weight: 10
      headers:
        request: {set: {x-a: '1', ':authority': b.c}, add: {x-b: '2'}, remove: [x-c]}
        response: {add: {x-d: '3'}}
    - destination: {host: a}
    headers: {request: {set: {x-e: '4'}}}
    timeout: 2s
",
    ));
    let forward = forward(&route);
    assert_eq!(forward.timeout, Some(Duration::from_secs(2)));
    assert_eq!(
        forward.destinations.iter().map(|d| d.weight).collect::<Vec<_>>(),
        [10, 0]
    );
    let headers = &forward.destinations[0].headers;
    assert_eq!(headers.request.set, [("x-a".into(), "1".into())]);
    assert_eq!(headers.request.add, [("x-b".into(), "2".into())]);
    assert_eq!(headers.request.remove, ["x-c".into()]);
    assert_eq!(headers.response.add, [("x-d".into(), "3".into())]);
    assert_eq!(headers.authority, Some("b.c".into()));
    assert_eq!(route.headers.request.set, [("x-e".into(), "4".into())]);
}

#[test]
fn header_changes() {
    expect_as_marked(&route(
        r#"
    headers:
      request:
        set:
          x-a: "100%"                      #! IST0106
          ":path": /                       #! IST0106
          ":authority": a
        add:
          Host: b                          #! IST0106
          "x y": z                         #! IST0106
        remove:
        - Host                             #! IST0106
        - x-b
      response:
        set:
          Host: b                          #! IST0106
          x-c: "%PROTOCOL%"
          x-d: "%NOSUCH%"                  #! IST0106
"#,
    ));
}

#[test]
fn redirects() {
    expect_as_marked(&with(
        r#"
  http:
  - match: [{uri: {exact: /1}}]
    redirect: {}                           #! IST0106
  - match: [{uri: {exact: /2}}]
    redirect:
      uri: /x
      prefixRewrite: /y                    #! IST0106 IST0106
      scheme: ftp                          #! IST0106
      redirectCode: 304                    #! IST0106
  - match: [{uri: {exact: /3}}]
    redirect:
      redirectCode: 200                    #! IST0106
      port: 70000                          #! IST0106
  - match: [{uri: {exact: /4}}]
    redirect:
      port: 80
      derivePort: FROM_REQUEST_PORT        #! IST0106
"#,
    ));
    let route = first_route(&with(
        "
  http:
  - match: [{uri: {prefix: /a}}]
    redirect: {prefixRewrite: /b, authority: c.d, derivePort: FROM_REQUEST_PORT, scheme: https, redirectCode: 308}
",
    ));
    let HttpAction::Redirect(redirect) = route.action else {
        panic!()
    };
    assert_eq!(redirect.path, Some(RedirectPath::Prefix("/b".into())));
    assert_eq!(redirect.authority.as_deref(), Some("c.d"));
    assert_eq!(redirect.port, RedirectPort::RequestPort);
    assert_eq!(redirect.scheme.as_deref(), Some("https"));
    assert_eq!(redirect.code, 308);
}

#[test]
fn direct_responses() {
    let large = "x".repeat(1024 * 1024 + 1);
    let big = "x".repeat(100 * 1024 + 1);
    expect_as_marked(&with(&format!(
        r#"
  http:
  - match: [{{uri: {{exact: /1}}}}]
    directResponse:
      status: 600                          #! IST0106
  - match: [{{uri: {{exact: /2}}}}]
    directResponse:
      status: 199                          #! IST0106
  - match: [{{uri: {{exact: /3}}}}]
    directResponse:
      status: 200
      body:                                #! IST0106
        string: {large}
  - match: [{{uri: {{exact: /4}}}}]
    directResponse:
      status: 200
      body:                                #! IST0133
        string: {big}
"#
    )));
}

#[test]
fn rewrites_timeouts_and_retries() {
    expect_as_marked(&with(
        r#"
  http:
  - match: [{uri: {exact: /1}}]
    route: [{destination: {host: a}}]
    rewrite: {}                            #! IST0106
    timeout: 0s                            #! IST0106
  - match: [{uri: {exact: /2}}]
    route: [{destination: {host: a}}]
    rewrite:
      uri: /x
      uriRegexRewrite:                     #! IST0106
        match: "("                         #! IST0106
        rewrite: ""                        #! IST0106
    timeout: 1500us                        #! IST0106
  - match: [{uri: {exact: /3}}]
    route: [{destination: {host: a}}]
    retries:
      attempts: -1                         #! IST0106
      perTryTimeout: 0.1ms                 #! IST0106
  - match: [{uri: {exact: /4}}]
    route: [{destination: {host: a}}]
    retries:
      attempts: 0
      perTryTimeout: 1s                    #! IST0106
      retryOn: 5xx                         #! IST0106
      retryRemoteLocalities: true          #! IST0106
      backoff: 1s                          #! IST0106
  - match: [{uri: {exact: /5}}]
    route: [{destination: {host: a}}]
    retries:
      attempts: 1
      retryOn: 5xx,gateway-errors,503,799  #! IST0106 IST0106
"#,
    ));
    let route = first_route(&route(
        "
    rewrite: {uriRegexRewrite: {match: '/a/(.*)', rewrite: '/b/\\1'}, authority: x.y}
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx, 503', retryRemoteLocalities: true, backoff: 10ms}
",
    ));
    let forward = forward(&route);
    let rewrite = forward.rewrite.as_ref().unwrap();
    assert_eq!(
        rewrite.path,
        Some(PathRewrite::Regex("/a/(.*)".into(), "/b/\\1".into()))
    );
    assert_eq!(rewrite.authority.as_deref(), Some("x.y"));
    let retries = forward.retries.as_ref().unwrap();
    assert_eq!(retries.retry_on, ["5xx".into(), "retriable-status-codes".into()]);
    assert_eq!((retries.attempts, &retries.status_codes[..]), (3, &[503][..]));
    assert!(retries.remote_localities);
    assert_eq!(retries.backoff, Some(Duration::from_millis(10)));
}

#[test]
fn faults() {
    expect_as_marked(&with(
        r#"
  http:
  - match: [{uri: {exact: /1}}]
    route: [{destination: {host: a}}]
    fault: {}                              #! IST0106
  - match: [{uri: {exact: /2}}]
    route: [{destination: {host: a}}]
    fault:
      delay:                               #! IST0133
        exponentialDelay: 1s               #! IST0106
      abort:                               #! IST0133 IST0133
        http2Error: X                      #! IST0106
        percentage: {value: 101}           #! IST0106
  - match: [{uri: {exact: /3}}]
    route: [{destination: {host: a}}]
    fault:
      delay:                               #! IST0133
        fixedDelay: 0s                     #! IST0106
        percent: 101                       #! IST0106
      abort:                               #! IST0133
        percentage: {value: 0.00001}       #! IST0106
        httpStatus: 600                    #! IST0106
  - match: [{uri: {exact: /4}}]
    route: [{destination: {host: a}}]
    fault:
      abort:
        percentage: {value: 50}
        grpcStatus: UNAVAILBLE             #! IST0106
        httpStatus: 500                    #!
"#,
    ));
    let both = first_route(&route(
        "
    fault:
      delay: {fixedDelay: 5s, percent: 10}
      abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.1}}
",
    ));
    let fault = both.fault.unwrap();
    assert_eq!(fault.delay, Some((Duration::from_secs(5), Percent::new(10.0).unwrap())));
    assert_eq!(fault.abort, Some((FaultAbort::Grpc(14), Percent::new(0.1).unwrap())));
}

#[test]
fn mirrors() {
    expect_as_marked(&with(
        r#"
  http:
  - match: [{uri: {exact: /1}}]
    route: [{destination: {host: a}}]
    mirror: {host: "*"}                    #! IST0106
    mirrorPercent: 200                     #! IST0106 IST0133
  - match: [{uri: {exact: /2}}]
    route: [{destination: {host: a}}]
    mirror: {host: a}
    mirrorPercentage: {value: -1}          #! IST0106
  - match: [{uri: {exact: /3}}]
    route: [{destination: {host: a}}]
    mirrors:
    - percentage: {value: 10}              #! IST0106
    - destination: {host: a}
      percentage: {value: 101}             #! IST0106
"#,
    ));
    let several = first_route(&route(
        "
    mirrors:
    - {destination: {host: a}}
    - {destination: {host: b}, percentage: {value: 25}}
    - {destination: {host: c}, percentage: {value: 0}}
",
    ));
    let shares: Vec<u32> = forward(&several)
        .mirrors
        .iter()
        .map(|m| m.percent.per_million())
        .collect();
    assert_eq!(shares, [1_000_000, 250_000]);
    let deprecated = first_route(&route("    mirror: {host: a}\n    mirrorPercent: 50\n"));
    assert_eq!(forward(&deprecated).mirrors[0].percent, Percent::new(50.0).unwrap());
}

#[test]
fn cors() {
    expect_as_marked(&route(
        r#"
    corsPolicy:
      allowOrigin: [a]                     #! IST0133
      allowOrigins:
      - exact: ""                          #! IST0106
      - regex: "("                         #! IST0106
      - {}                                 #! IST0106
      allowMethods: [GET, get]             #! IST0106
      allowHeaders: ["x a", "*"]           #! IST0106
      exposeHeaders: [":a"]                #! IST0106
      maxAge: 1.5s                         #! IST0106
"#,
    ));
    let route = first_route(&route(
        "
    corsPolicy:
      allowOrigins: [{prefix: 'https://'}]
      allowMethods: [GET, '*']
      allowHeaders: [x-a]
      exposeHeaders: [x-b]
      maxAge: 60s
      allowCredentials: true
      unmatchedPreflights: IGNORE
",
    ));
    let cors = route.cors.unwrap();
    assert_eq!(cors.allow_origins, [StringMatch::Prefix("https://".into())]);
    assert_eq!(cors.allow_methods, ["GET".into(), "*".into()]);
    assert_eq!(
        (cors.max_age, cors.allow_credentials),
        (Some(Duration::from_secs(60)), Some(true))
    );
    assert!(!cors.forward_unmatched_preflights);
}

#[test]
fn tls_and_tcp() {
    expect_as_marked(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.b]
  ports: [{name: tls, number: 443, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a.b, "*.c"]
  tls:
  - route: [{destination: {host: a.b}}]    #! IST0106
  - match:
    - port: 443                            #! IST0106
    - sniHosts:
      - a.b
      - x.c
      - x.y                                #! IST0106
      - 10.0.0.1                           #! IST0133
    - sniHosts: [a.b]
      destinationSubnets: [10.0.0.0/40]    #! IST0106
    route: []                              #! IST0106
  - match:                                 #! IST0106
    - sniHosts: [y.c]
  tcp:
  - match:
    - destinationSubnets: [a]              #! IST0106
      port: 99999                          #! IST0106
      sourceSubnet: 10.0.0.0/8             #! IST0133
      sourceLabels: {a: "b c"}             #! IST0106
    route: [{destination: {host: a.b}}]
  - match: [{port: 443}]                   #! IST0106
"#,
    );
}

#[test]
fn what_never_applies() {
    expect_as_marked(&with(
        r#"
  http:
  - match:
    - uri: {prefix: /a}
      headers: {x: {exact: "1"}}
    - uri: {prefix: /a/b}
      headers: {x: {exact: "1"}, y: {}}    #!
    route: [{destination: {host: a}}]
  - match:
    - uri: {prefix: /a/c}                  #! IST0131
      headers: {x: {exact: "1"}}
    - uri: {exact: /z}
    route: [{destination: {host: a}}]
  - match:                                 #! IST0130
    - uri: {exact: /z}
    route: [{destination: {host: a}}]
  - match:
    - uri: {regex: .*}
      port: 81                           #! IST0133
    route: [{destination: {host: a}}]
  - route: [{destination: {host: a}}]
  - match: [{uri: {prefix: /q}}]           #! IST0130
    route: [{destination: {host: a}}]
  - route: [{destination: {host: a}}]      #! IST0130
"#,
    ));
}
