//! Certificates and join tokens that end while the data planes go on.

use crate::harness::{Load, Mesh, Plane, Planes, eventually, run};
use crate::restart::{NOT_LET_IN, STREAM_CLOSED, counter, serials};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    certificates_are_renewed_under_load_and_no_request_is_lost,
}

on_each_plane! {
    a_proxy_whose_token_has_expired_is_reported_and_joins_again_with_another,
}

/// Every request is a handshake of its own, so that each certificate in force is looked at.
const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web}, spec: {host: web,
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, connectionPool: {http: {maxRequestsPerConnection: 1}}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
";

async fn certificates_are_renewed_under_load_and_no_request_is_lost(planes: Planes) {
    let mut mesh = Mesh::new(planes, &[("services.yaml", SERVICES)]);
    // Renewed after half of it, at the next look that the server takes.
    mesh.server.flag("--certificate-ttl=14s");
    mesh.server.start().await;
    let (web, client) = (mesh.app("web", "v1").await, mesh.client().await);
    eventually("an answer", async || {
        match client.get("web", "/").send().await?.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let load = Load::start(client.get("web", "/load"), 10);
    // Twice: in the end the first certificate has long expired.
    for _ in 0..2 {
        for app in [&web, &client] {
            let before = serials(app).await;
            eventually("another certificate", async || match serials(app).await {
                now if now == before => Err(format!("{now:?}")),
                _ => Ok(()),
            })
            .await;
        }
    }
    load.stop().await.assert_lossless();
}

/// Whether the client's stream is one whose token has expired; an error while it has none.
async fn expired(mesh: &Mesh) -> Result<bool, String> {
    let proxies = mesh.server.api("/api/v1/proxies").await;
    let mut all = proxies.as_array().unwrap().iter();
    let client = all.find(|proxy| proxy["workload"] == "client.default");
    let client = client.ok_or_else(|| proxies.to_string())?;
    Ok(client["token_expired"] == true)
}

async fn a_proxy_whose_token_has_expired_is_reported_and_joins_again_with_another(plane: Plane) {
    let mut mesh = Mesh::start(plane, &[("services.yaml", SERVICES)]).await;
    let mut web = mesh.app("web", "v1").await;
    mesh.bootstrap_flag("--ttl=15s");
    let mut client = mesh.client().await;
    for app in [&mut web, &mut client] {
        app.sidecar.allow_log(STREAM_CLOSED);
        app.sidecar.allow_log(NOT_LET_IN);
    }
    let load = Load::start(client.get("web", "/load"), 20);
    eventually("the end of the token is told", async || {
        let told = mesh.server.log().contains("join token has expired");
        (expired(&mesh).await? && told)
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let status = run(&["status", "--admin", &mesh.server.admin().to_string()]).await;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("client.default: its join token has expired"),
        "{status}"
    );
    assert_eq!(
        counter(&client, "control_plane.connected_state").await,
        1,
        "it stays connected"
    );

    mesh.server.kill().await;
    mesh.server.start().await;
    eventually("the other is back", async || {
        match counter(&web, "control_plane.connected_state").await {
            1 => Ok(()),
            state => Err(state.to_string()),
        }
    })
    .await;
    eventually("this one is not let in", async || {
        let log = mesh.server.log();
        let told = log.contains("rejected a proxy: invalid join token: the token for client.default expired at");
        told.then_some(()).ok_or(log)
    })
    .await;
    let streams = expired(&mesh).await;
    assert!(streams.is_err(), "it has a stream: {streams:?}");

    let state = mesh.server.state();
    let file = state.join("tokens/client.default.token");
    let renewed = run(&[
        "token",
        "create",
        "--workload",
        "client.default",
        "--service-account",
        "default",
        "--state",
        state.to_str().unwrap(),
        "--out",
        file.to_str().unwrap(),
    ])
    .await;
    assert!(renewed.status.success(), "{renewed:?}");
    eventually("it joins with its new token", async || match expired(&mesh).await? {
        false => Ok(()),
        true => Err("the old one".to_owned()),
    })
    .await;
    load.stop().await.assert_lossless();
}
