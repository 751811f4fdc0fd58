//! REDIRECT: applications call virtual IP addresses and each other, and traffic is redirected through the
//! sidecars.

use std::net::SocketAddr;

use crate::harness::{Answer, Call, Plane, eventually, get};
use crate::hosts::Family;
use crate::interception::Rules;
use crate::on_each_plane;
use crate::stage::{Machine, Stage};

on_each_plane! {
    requests_to_a_virtual_address_pass_both_sidecars,
    tcp_to_a_virtual_address_passes_both_sidecars,
    routes_apply_and_edits_lose_no_requests,
    clients_without_a_sidecar_are_accepted_where_plain_text_is_allowed,
    outbound_traffic_policy_allows_or_blocks_external_hosts,
    readiness_and_metrics_are_reachable_from_other_machines,
    interception_works_over_ipv6,
}

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: 10.96.0.20, selector: {app: web}, ports: [{name: tcp, port: 5000}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: bare}, spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: shop}, spec: {hosts: [shop.example], addresses: [10.96.0.30],
  location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: web}}, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web}, spec: {host: web,
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}
";

const VIRTUAL: &str = "10.96.0.10:80";

fn mutual_tls(mode: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
         metadata: {{name: default, namespace: istio-system}}, spec: {{mtls: {{mode: {mode}}}}}}}"
    )
}

fn all_to(subset: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: web}}, spec: {{hosts: [web], http: [\
         {{match: [{{uri: {{prefix: /v2}}}}], route: [{{destination: {{host: web, subset: v2}}}}]}}, \
         {{route: [{{destination: {{host: web, subset: {subset}}}}}]}}]}}}}"
    )
}

async fn stage(plane: Plane, mode: &str) -> Stage {
    Stage::start(plane, Family::V4, Rules::redirect(), &[SERVICES, &mutual_tls(mode)]).await
}

/// A host with `web-v1` or `web-v2`.
async fn web(stage: &Stage, name: &'static str) -> Machine {
    let machine = stage.machine(name).await;
    machine.serves(9080, name).await.serves_tcp(5000, "db-v1").await
}

/// `GET <path>` of `web` at its virtual IP address.
fn call(path: &str) -> Call {
    get(VIRTUAL.parse().unwrap(), "web", path)
}

/// Fails unless the application received the request from its own sidecar, which received it over mutual TLS.
fn assert_between_sidecars(answer: &Answer) {
    assert_called_by("client", answer);
}

fn assert_called_by(account: &str, answer: &Answer) {
    let seen = answer.seen();
    assert_eq!(seen.peer, "127.0.0.6", "{seen:?}");
    let caller = &seen.headers["x-forwarded-client-cert"];
    for (field, account) in [("By", "web"), ("URI", account)] {
        let identity = format!("{field}=spiffe://cluster.local/ns/default/sa/{account}");
        assert!(caller.contains(&identity), "{caller}");
    }
}

async fn requests_to_a_virtual_address_pass_both_sidecars(plane: Plane) {
    let stage = stage(plane, "STRICT").await;
    let web = web(&stage, "web-v1").await;
    let client = stage.machine("client-v1").await;
    assert_between_sidecars(&client.reaches(&call("/")).await);
    assert_between_sidecars(&client.reaches(&call("/").http2()).await);
    let entry = get("10.96.0.30:80".parse().unwrap(), "shop.example", "/");
    assert_between_sidecars(&client.reaches(&entry).await);
    let to_endpoint = get(web.host.port(9080), "bare", "/");
    assert_between_sidecars(&client.reaches(&to_endpoint).await);

    // The proxy's connection to its own host arrives at its inbound listener.
    assert_called_by("web", &web.reaches(&call("/")).await);

    let stranger = stage.stranger();
    stranger.get(web.host.port(9080), "web").await.unwrap_err();
    stranger.tcp(web.host.port(5000)).await.unwrap_err();
}

async fn tcp_to_a_virtual_address_passes_both_sidecars(plane: Plane) {
    let stage = stage(plane, "STRICT").await;
    let _web = web(&stage, "web-v1").await;
    let client = stage.machine("client-v1").await;
    let virtual_address: SocketAddr = "10.96.0.20:5000".parse().unwrap();
    let name = eventually("TCP at a virtual address", async || client.tcp(virtual_address).await).await;
    assert_eq!(name, "db-v1");
}

async fn routes_apply_and_edits_lose_no_requests(plane: Plane) {
    let stage = stage(plane, "STRICT").await;
    stage.write("route.yaml", &all_to("v1"));
    let (_v1, _v2) = (web(&stage, "web-v1").await, web(&stage, "web-v2").await);
    let client = stage.machine("client-v1").await;
    let goes = async |path: &str, backend: &str| {
        eventually(&format!("{path} goes to {backend}"), async || {
            for _ in 0..10 {
                let answer = client.send(&call(path)).await?;
                if answer.header("x-backend") != backend {
                    return Err(answer.text());
                }
            }
            Ok(())
        })
        .await;
    };
    goes("/", "web-v1").await;
    goes("/v2", "web-v2").await;

    let load = client.load(call("/load"), 100).await;
    stage.write("route.yaml", &all_to("v2"));
    goes("/", "web-v2").await;
    stage.write("route.yaml", &all_to("v1"));
    goes("/", "web-v1").await;
    let report = load.stop().await;
    report.assert_lossless();
    assert!(report.answered["web-v2"] > 0, "{report:?}");
}

async fn clients_without_a_sidecar_are_accepted_where_plain_text_is_allowed(plane: Plane) {
    let stage = stage(plane, "PERMISSIVE").await;
    let web = web(&stage, "web-v1").await.serves(9999, "odd").await;
    let stranger = stage.stranger();
    let to_web = get(web.host.port(9080), "web", "/");
    let seen = stranger.reaches(&to_web).await.seen();
    assert_eq!(seen.peer, "127.0.0.6", "its own sidecar hands it over");
    assert!(!seen.headers.contains_key("x-forwarded-client-cert"), "{seen:?}");
    assert_eq!(stranger.tcp(web.host.port(5000)).await.unwrap(), "db-v1");

    // A port that no service declares.
    let odd = get(web.host.port(9999), "whatever", "/");
    let seen = stranger.reaches(&odd).await.seen();
    assert_eq!((seen.backend.as_str(), seen.peer.as_str()), ("odd", "127.0.0.6"));
    let client = stage.machine("client-v1").await;
    assert_eq!(client.reaches(&odd).await.seen().backend, "odd");
    assert_between_sidecars(&client.reaches(&call("/")).await);

    // Traffic of the host to itself does not pass the sidecar.
    let itself = web.reaches(&get(web.host.port(9999), "whatever", "/")).await.seen();
    assert_eq!(itself.peer, web.host.address.to_string());

    stage.write(
        "strict.yaml",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: all}, spec: {mtls: {mode: STRICT}}}",
    );
    for plain in [&to_web, &odd] {
        stranger.is_refused(plain).await;
    }
    stranger.tcp(web.host.port(5000)).await.unwrap_err();
    assert_between_sidecars(&client.reaches(&call("/")).await);
}

async fn outbound_traffic_policy_allows_or_blocks_external_hosts(plane: Plane) {
    let stage = stage(plane, "STRICT").await;
    let outside = stage
        .stranger()
        .serves(7777, "outside")
        .await
        .serves_tcp(7778, "out-1")
        .await;
    let client = stage.machine("client-v1").await;
    let to_outside = get(outside.host.port(7777), "elsewhere.example", "/");
    let seen = client.reaches(&to_outside).await.seen();
    assert_eq!(seen.peer, client.host.address.to_string(), "the client's sidecar dials");
    assert_eq!(client.tcp(outside.host.port(7778)).await.unwrap(), "out-1");

    let closed = "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: default}, \
        spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}";
    stage.write("policy.yaml", closed);
    client.is_refused(&to_outside).await;
    client.tcp(outside.host.port(7778)).await.unwrap_err();

    stage.write("policy.yaml", &closed.replace("REGISTRY_ONLY", "ALLOW_ANY"));
    client.reaches(&to_outside).await;
}

async fn readiness_and_metrics_are_reachable_from_other_machines(plane: Plane) {
    let stage = stage(plane, "STRICT").await;
    let client = stage.machine("client-v1").await;
    let stranger = stage.stranger();
    for (port, path) in [(15021, "/healthz/ready"), (15090, "/stats/prometheus")] {
        stranger.reaches(&get(client.host.port(port), "probe", path)).await;
    }
    // The interception ports cannot be used to bypass it.
    for port in [15001, 15006] {
        stranger.get(client.host.port(port), "web").await.unwrap_err();
    }
}

async fn interception_works_over_ipv6(plane: Plane) {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web}, \
        spec: {clusterIP: \"fd96::10\", selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}}";
    let stage = Stage::start(plane, Family::V6, Rules::redirect(), &[service, &mutual_tls("STRICT")]).await;
    let web = stage.machine("web-v1").await.serves(9080, "web-v1").await;
    let client = stage.machine("client-v1").await;
    let seen = client
        .reaches(&get("[fd96::10]:80".parse().unwrap(), "web", "/"))
        .await
        .seen();
    assert_eq!(seen.peer, "::6");
    assert!(
        seen.headers["x-forwarded-client-cert"].contains("/sa/client"),
        "{seen:?}"
    );
    stage.stranger().get(web.host.port(9080), "web").await.unwrap_err();
}
