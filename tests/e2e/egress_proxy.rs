//! An egress proxy: where calls go that no service of the mesh claims.

use crate::harness::{Mesh, Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    calls_that_no_service_claims_go_to_the_egress_proxy,
}

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: gate}, spec: {selector: {app: gate}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews}, spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: gate}, spec: {host: gate,
  subsets: [{name: v2, labels: {version: v2}}]}}
";

async fn calls_that_no_service_claims_go_to_the_egress_proxy(plane: Plane) {
    let mesh = Mesh::start(plane, &[("services.yaml", SERVICES)]).await;
    let (_old, _gate) = (mesh.app("gate", "v1").await, mesh.app("gate", "v2").await);
    let _reviews = mesh.app("reviews", "v1").await;
    let client = mesh.client().await;
    let unclaimed = client.get("unknown.example", "/far");
    unclaimed.expect(502).await;

    let policy = |host: &str| {
        format!(
            "  outboundTrafficPolicy: {{mode: ALLOW_ANY, egressProxy: {{host: {host}, subset: v2, port: {{number: 9080}}}}}}\n"
        )
    };
    let existing = policy("gate.default.svc.cluster.local");
    mesh.edit("workload-client.yaml", "  egress:\n", &format!("{existing}  egress:\n"));
    eventually("an unclaimed call is answered", async || {
        let answer = unclaimed.send().await?;
        match answer.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    for _ in 0..10 {
        let seen = unclaimed.expect(200).await.seen();
        assert_eq!((&*seen.backend, &*seen.path), ("gate-v2", "/far"), "the subset named");
        assert_eq!(seen.authority, "unknown.example", "the proxy learns what was meant");
        let caller = &seen.headers["x-forwarded-client-cert"];
        assert!(caller.contains("URI=spiffe://cluster.local/ns/default/sa/"), "{caller}");
    }
    let seen = client.get("reviews", "/").expect(200).await.seen();
    assert_eq!(seen.backend, "reviews-v1", "what a service claims goes there");

    mesh.edit(
        "workload-client.yaml",
        &existing,
        &policy("gone.default.svc.cluster.local"),
    );
    eventually("an egress proxy that does not exist is answered for", async || {
        let answer = unclaimed.send().await?;
        match answer.status.as_u16() {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    eventually("a diagnostic that says so", async || {
        let found = mesh.diagnostics().await;
        match found.iter().any(|problem| problem["code"] == "IST0101") {
            true => Ok(()),
            false => Err(format!("{found:#?}")),
        }
    })
    .await;
}
