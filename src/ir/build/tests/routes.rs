//! Routes, from YAML.

use std::sync::Arc;
use std::time::Duration;

use super::super::fixture::{built, labels, namespace, node};
use super::{clusters_of, domains, virtual_host};
use crate::ir::NodeView;
use crate::ir::build::Built;
use crate::ir::route::{Forward, PathMatch, Route, RouteAction};
use crate::mesh::destination_rule::HashKey;
use crate::mesh::virtual_service::{PathRewrite, Redirect, RedirectPort, StringMatch};

/// The Services `a` and `b` on port 80, `b` on 81 too, and `one` on port 90 only.
const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{name: http, port: 80}, {name: http-more, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {ports: [{name: http, port: 90}]}
---
";

fn with(node: &NodeView, text: &str) -> Built {
    built(node, &format!("{SERVICES}{text}"))
}

/// A VirtualService for `a`.
fn routing(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  http:\n{http}"
    )
}

fn routes_for(node: &NodeView, http: &str) -> Vec<Route> {
    let built = with(node, &routing(http));
    virtual_host(&built, "80", "a.default.svc.cluster.local:80")
        .routes
        .clone()
}

fn routes(http: &str) -> Vec<Route> {
    routes_for(&node(), http)
}

fn forward(route: &Route) -> &Forward {
    match &route.action {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn redirect(route: &Route) -> &Redirect {
    match &route.action {
        RouteAction::Redirect(redirect) => redirect,
        other => panic!("{other:?}"),
    }
}

const B: &str = "outbound|80||b.default.svc.cluster.local";
const TO_B: &str = "    route: [{destination: {host: b, port: {number: 80}}}]";

#[test]
fn every_match_entry_becomes_a_route() {
    let routes = routes(&format!(
        "  - name: r
    match:
    - name: one
      uri: {{prefix: /x}}
      ignoreUriCase: true
      headers: {{End-User: {{exact: jason}}, x-any: {{}}}}
      withoutHeaders: {{x-not: {{prefix: a}}}}
      method: {{exact: GET}}
      queryParams: {{q: {{exact: '1'}}}}
    - {{uri: {{exact: /y}}}}
    - {{uri: {{regex: '/z.*'}}}}
{TO_B}"
    ));
    let names: Vec<&str> = routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["r.one", "r", "r"]);
    let first = &routes[0].matcher;
    assert_eq!(
        (&first.path, first.ignore_case),
        (&PathMatch::Prefix("/x".into()), true)
    );
    let headers: Vec<(&str, Option<&StringMatch>, bool)> = first
        .headers
        .iter()
        .map(|header| (&*header.name, header.value.as_ref(), header.invert))
        .collect();
    assert_eq!(
        headers,
        [
            ("end-user", Some(&StringMatch::Exact("jason".into())), false),
            ("x-any", None, false),
            ("x-not", Some(&StringMatch::Prefix("a".into())), true),
            (":method", Some(&StringMatch::Exact("GET".into())), false),
        ]
    );
    assert_eq!(first.query, [("q".into(), Some(StringMatch::Exact("1".into())))]);
    assert_eq!(routes[1].matcher.path, PathMatch::Exact("/y".into()));
    assert_eq!(routes[2].matcher.path, PathMatch::Regex("/z.*".into()));
    assert_eq!(&*routes[0].operation, "b.default.svc.cluster.local:80/x*");
    assert_eq!(&*routes[1].operation, "b.default.svc.cluster.local:80/y");
}

#[test]
fn nothing_follows_a_catch_all() {
    let all = routes(&format!(
        "  - match: [{{uri: {{prefix: /}}}}]\n{TO_B}\n  -{}",
        &TO_B[3..]
    ));
    assert_eq!(all.len(), 1);
    let not_all = routes(&format!(
        "  - match: [{{uri: {{prefix: /}}, headers: {{x: {{}}}}}}]\n{TO_B}\n  -{}",
        &TO_B[3..]
    ));
    assert_eq!(not_all.len(), 2);
}

#[test]
fn matches_for_other_proxies_are_omitted() {
    let http = format!(
        "  - match:
    - {{uri: {{prefix: /labels}}, sourceLabels: {{app: client}}}}
    - {{uri: {{prefix: /namespace}}, sourceNamespace: other}}
    - {{uri: {{prefix: /port}}, port: 81}}
    - {{uri: {{prefix: /gateway}}, gateways: [mesh, gw]}}
{TO_B}"
    );
    let paths = |node: &NodeView| -> Vec<String> {
        let built = with(
            node,
            &routing(&http).replace("hosts: [a]", "hosts: [a]\n  gateways: [mesh, gw]"),
        );
        let host = virtual_host(&built, "80", "a.default.svc.cluster.local:80");
        let paths = host.routes.iter().map(|route| match &route.matcher.path {
            PathMatch::Prefix(path) | PathMatch::Exact(path) | PathMatch::Regex(path) => path.to_string(),
        });
        paths.collect()
    };
    assert_eq!(paths(&node()), ["/labels", "/gateway"]);
    let other = NodeView {
        namespace: namespace("other"),
        labels: Arc::new(labels(&[("app", "other")])),
        ..node()
    };
    assert_eq!(paths(&other), ["/namespace", "/gateway"]);
}

#[test]
fn without_applicable_rules_the_default_route_is_used() {
    let routes = routes(&format!("  - match: [{{sourceLabels: {{app: nobody}}}}]\n{TO_B}"));
    assert_eq!(&*routes[0].name, "default");
    assert_eq!(
        &*forward(&routes[0]).clusters[0].cluster,
        "outbound|80||a.default.svc.cluster.local"
    );
}

#[test]
fn the_default_route_retries_twice_without_timeout() {
    let built = with(&node(), "");
    let host = virtual_host(&built, "80", "b.default.svc.cluster.local:80");
    let route = forward(&host.routes[0]);
    assert_eq!(clusters_of(host), [(B, 1)]);
    assert_eq!(route.timeout, None);
    assert_eq!(route.retry.as_ref().map(|retry| retry.attempts), Some(2));
    assert!(route.retry_other_hosts && host.attempt_count);
    assert_eq!(&*host.routes[0].operation, "b.default.svc.cluster.local:80/*");
}

#[test]
fn a_destination_without_port_uses_the_services_only_one() {
    let routes = routes("  - route: [{destination: {host: one}}]");
    assert_eq!(
        &*forward(&routes[0]).clusters[0].cluster,
        "outbound|90||one.default.svc.cluster.local"
    );
}

#[test]
fn destinations_of_weight_zero_get_no_traffic() {
    let http = "  - route:
    - {destination: {host: a}, weight: 10, headers: {request: {set: {x: y}}}}
    - {destination: {host: b, port: {number: 80}}, weight: 0}
    - {destination: {host: one}, weight: 30}";
    let routes = routes(http);
    let clusters = &forward(&routes[0]).clusters;
    assert_eq!(
        clusters.iter().map(|cluster| cluster.weight).collect::<Vec<_>>(),
        [10, 30]
    );
    assert_eq!(clusters[0].request_headers.set.len(), 1);
    assert!(routes[0].request_headers.set.is_empty());
    assert_eq!(
        &*routes[0].operation, "a:80/*",
        "several destinations: the VirtualService"
    );
}

#[test]
fn headers_of_a_single_destination_are_merged_into_the_route() {
    let routes = routes(
        "  - headers: {request: {set: {x: route}, remove: [gone]}}
    route: [{destination: {host: one}, headers: {request: {add: {y: own}, set: {':authority': other.com}}, response: {set: {z: own}}}}]",
    );
    let route = &routes[0];
    assert_eq!(route.request_headers.set, [("x".into(), "route".into())]);
    assert_eq!(route.request_headers.add, [("y".into(), "own".into())]);
    assert_eq!(route.request_headers.remove, ["gone".into()]);
    assert_eq!(route.response_headers.set, [("z".into(), "own".into())]);
    assert_eq!(forward(route).host_rewrite.as_deref(), Some("other.com"));
}

#[test]
fn request_settings_of_a_route_are_kept() {
    let routes = routes(
        "  - timeout: 3s
    retries: {attempts: 5, perTryTimeout: 1s, retryOn: 'reset,503'}
    rewrite: {uri: /new, authority: other}
    mirror: {host: one}
    mirrorPercentage: {value: 25}
    fault: {abort: {httpStatus: 500, percentage: {value: 100}}}
    corsPolicy: {allowOrigins: [{exact: 'https://a.com'}]}
    route: [{destination: {host: one}}]",
    );
    let route = forward(&routes[0]);
    assert_eq!(route.timeout, Some(Duration::from_secs(3)));
    let retry = route.retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, retry.per_try_timeout),
        (5, Some(Duration::from_secs(1)))
    );
    assert_eq!(route.path_rewrite, Some(PathRewrite::Prefix("/new".into())));
    assert_eq!(route.host_rewrite.as_deref(), Some("other"));
    assert_eq!(route.mirrors.len(), 1);
    assert_eq!(&*route.mirrors[0].0, "outbound|90||one.default.svc.cluster.local");
    assert!(routes[0].fault.is_some() && routes[0].cors.is_some());
}

#[test]
fn retries_can_be_turned_off() {
    let routes = routes("  - retries: {attempts: 0}\n    route: [{destination: {host: one}}]");
    assert_eq!(forward(&routes[0]).retry, None);
    assert!(!forward(&routes[0]).retry_other_hosts);
}

#[test]
fn redirects_and_direct_responses() {
    let answers = routes(
        "  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, scheme: https, derivePort: FROM_REQUEST_PORT}
  - match: [{uri: {exact: /same}}]
    redirect: {uri: /new, derivePort: FROM_REQUEST_PORT}
  - directResponse: {status: 418}",
    );
    assert_eq!(redirect(&answers[0]).port, RedirectPort::Number(80));
    assert_eq!(
        redirect(&answers[1]).port,
        RedirectPort::ProtocolDefault,
        "the scheme's own"
    );
    assert!(matches!(&answers[2].action, RouteAction::Direct(response) if response.status == 418));
    assert_eq!(&*answers[2].operation, "a:80/*");
}

#[test]
fn the_hash_policy_comes_from_the_destination() {
    let rule = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: one}
spec:
  host: one
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}}
";
    let text = format!(
        "{}{rule}",
        routing("  - route: [{destination: {host: one, subset: v1}}]")
    );
    let built = with(&node(), &text);
    let host = virtual_host(&built, "80", "a.default.svc.cluster.local:80");
    assert_eq!(forward(&host.routes[0]).hash, Some(HashKey::Header("x".into())));
    let plain = virtual_host(&built, "90", "one.default.svc.cluster.local:90");
    assert_eq!(forward(&plain.routes[0]).hash, None, "the subset's alone");
}

#[test]
fn hosts_without_a_service_are_routed_on_port_80_and_on_ports_of_services() {
    let text = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one}
spec:
  hosts: [one, beside.example.com]
  http: [{route: [{destination: {host: one}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: alone}
spec:
  hosts: [alone.example.com]
  http: [{route: [{destination: {host: one}}]}]
";
    let built = with(&node(), text);
    let names = |routes: &str| -> Vec<&str> {
        built
            .routes(routes)
            .virtual_hosts
            .iter()
            .map(|host| &*host.name)
            .collect()
    };
    assert_eq!(
        names("80"),
        [
            "a.default.svc.cluster.local:80",
            "alone.example.com:80",
            "b.default.svc.cluster.local:80",
            "beside.example.com:80",
            "allow_any"
        ]
    );
    assert_eq!(
        names("90"),
        ["beside.example.com:90", "one.default.svc.cluster.local:90", "allow_any"]
    );
    assert_eq!(
        domains(virtual_host(&built, "90", "beside.example.com:90")),
        ["beside.example.com"]
    );
}

#[test]
fn short_names_are_limited_to_the_namespace() {
    let other = NodeView {
        namespace: namespace("other"),
        ..node()
    };
    let built = with(&other, "");
    assert_eq!(
        domains(virtual_host(&built, "80", "a.default.svc.cluster.local:80")),
        [
            "a.default.svc.cluster.local",
            "a.default.svc.cluster.local.",
            "a.default.svc",
            "a.default"
        ]
    );
}

#[test]
fn a_host_takes_precedence_over_an_equal_short_name() {
    let entry = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: short}
spec:
  hosts: [a.default]
  resolution: DNS
  location: MESH_EXTERNAL
  ports: [{name: http, number: 80, protocol: HTTP}]
";
    let built = with(&node(), entry);
    assert!(!domains(virtual_host(&built, "80", "a.default.svc.cluster.local:80")).contains(&"a.default"));
    assert!(domains(virtual_host(&built, "80", "a.default:80")).contains(&"a.default"));
}

#[test]
fn the_most_specific_host_wins_then_the_oldest() {
    let rule = |name: &str, host: &str, status: u16| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{hosts: ['{host}'], http: [{{directResponse: {{status: {status}}}}}]}}\n---\n"
        )
    };
    let text = [
        rule("wide", "*.default.svc.cluster.local", 201),
        rule("exact", "a", 202),
    ]
    .concat();
    let built = with(&node(), &text);
    let status = |name: &str| match &virtual_host(&built, "80", name).routes[0].action {
        RouteAction::Direct(response) => response.status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status("a.default.svc.cluster.local:80"), 202);
    assert_eq!(status("b.default.svc.cluster.local:80"), 201);
}

#[test]
fn unknown_hosts_are_rejected_with_registry_only() {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}
";
    let built = with(&node(), text);
    let host = virtual_host(&built, "80", "block_all");
    assert!(matches!(&host.routes[0].action, RouteAction::Direct(response) if response.status == 502));
    assert_eq!(
        built
            .listener("0.0.0.0_80")
            .default_chain
            .as_ref()
            .map(|chain| &chain.network),
        Some(&crate::ir::listener::NetworkFilter::Tcp(
            super::super::chain::to_cluster("BlackHoleCluster")
        ))
    );
}
