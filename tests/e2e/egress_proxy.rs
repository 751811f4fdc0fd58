//! The egress proxy of a Sidecar resource: the destination of requests to hosts that no service of the mesh has.

use crate::harness::{Mesh, Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    requests_to_unknown_hosts_go_to_the_egress_proxy,
}

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: gate}, spec: {selector: {app: gate}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews}, spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: gate}, spec: {host: gate,
  subsets: [{name: v2, labels: {version: v2}}]}}
";

async fn requests_to_unknown_hosts_go_to_the_egress_proxy(plane: Plane) {
    let mesh = Mesh::start(plane, &[("services.yaml", SERVICES)]).await;
    let (_old, _gate) = (mesh.app("gate", "v1").await, mesh.app("gate", "v2").await);
    let _reviews = mesh.app("reviews", "v1").await;
    let client = mesh.client().await;
    let unknown = client.get("unknown.example", "/far");
    unknown.expect(502).await;

    let policy = |host: &str| {
        format!(
            "  outboundTrafficPolicy: {{mode: ALLOW_ANY, egressProxy: {{host: {host}, subset: v2, port: {{number: 9080}}}}}}\n"
        )
    };
    let existing = policy("gate.default.svc.cluster.local");
    mesh.edit("workload-client.yaml", "  egress:\n", &format!("{existing}  egress:\n"));
    eventually("a request to an unknown host is answered", async || {
        let answer = unknown.send().await?;
        match answer.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    for _ in 0..10 {
        let seen = unknown.expect(200).await.seen();
        assert_eq!(
            (&*seen.backend, &*seen.path),
            ("gate-v2", "/far"),
            "the request goes to the configured subset"
        );
        assert_eq!(
            seen.authority, "unknown.example",
            "the egress proxy gets the original authority"
        );
        let caller = &seen.headers["x-forwarded-client-cert"];
        assert!(caller.contains("URI=spiffe://cluster.local/ns/default/sa/"), "{caller}");
    }
    let seen = client.get("reviews", "/").expect(200).await.seen();
    assert_eq!(seen.backend, "reviews-v1", "requests to a service are not affected");

    mesh.edit(
        "workload-client.yaml",
        &existing,
        &policy("gone.default.svc.cluster.local"),
    );
    eventually("a missing egress proxy is answered with 503", async || {
        let answer = unknown.send().await?;
        match answer.status.as_u16() {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    eventually("the missing egress proxy is reported", async || {
        let found = mesh.diagnostics().await;
        match found.iter().any(|problem| problem["code"] == "IST0101") {
            true => Ok(()),
            false => Err(format!("{found:#?}")),
        }
    })
    .await;
}
