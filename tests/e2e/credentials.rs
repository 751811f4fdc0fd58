//! Certificates and join tokens that expire while the data planes are running.

use std::time::Duration;

use crate::harness::{Load, Mesh, Plane, Planes, eventually, run};
use crate::restart::{NOT_LET_IN, STREAM_CLOSED, counter, serials};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    no_request_is_lost_while_certificates_are_renewed,
}

on_each_plane! {
    an_expired_join_token_is_reported_and_replacing_it_lets_the_proxy_reconnect,
}

/// Every request has its own connection, so that each handshake uses the current certificates.
const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web}, spec: {host: web,
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, connectionPool: {http: {maxRequestsPerConnection: 1}}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
";

async fn no_request_is_lost_while_certificates_are_renewed(planes: Planes) {
    let mut mesh = Mesh::new(planes, &[("services.yaml", SERVICES)]);
    // Certificates are renewed at the next check after half of their lifetime.
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
    // Twice, so that the first certificate has expired at the end.
    for _ in 0..2 {
        for app in [&web, &client] {
            let before = serials(app).await;
            eventually("the certificate is renewed", async || match serials(app).await {
                now if now == before => Err(format!("{now:?}")),
                _ => Ok(()),
            })
            .await;
        }
    }
    load.stop().await.assert_lossless();
}

/// Whether the token of the client's xDS stream has expired; an error if the client has no stream.
async fn expired(mesh: &Mesh) -> Result<bool, String> {
    let proxies = mesh.server.api("/api/v1/proxies").await;
    let mut all = proxies.as_array().unwrap().iter();
    let client = all.find(|proxy| proxy["workload"] == "client.default");
    let client = client.ok_or_else(|| proxies.to_string())?;
    Ok(client["token_expired"] == true)
}

async fn an_expired_join_token_is_reported_and_replacing_it_lets_the_proxy_reconnect(plane: Plane) {
    let mut mesh = Mesh::start(plane, &[("services.yaml", SERVICES)]).await;
    let mut web = mesh.app("web", "v1").await;
    mesh.bootstrap_flag("--ttl=15s");
    let mut client = mesh.client().await;
    for app in [&mut web, &mut client] {
        app.sidecar.allow_log(STREAM_CLOSED);
        app.sidecar.allow_log(NOT_LET_IN);
    }
    let load = Load::start(client.get("web", "/load"), 20);
    eventually("the expired token is reported", async || {
        let reported = mesh.server.log().contains("join token has expired");
        (expired(&mesh).await? && reported)
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
    eventually("the proxy with a valid token reconnects", async || {
        match counter(&web, "control_plane.connected_state").await {
            1 => Ok(()),
            state => Err(state.to_string()),
        }
    })
    .await;
    eventually("the proxy with the expired token is rejected", async || {
        let log = mesh.server.log();
        let reported = log.contains("rejected a proxy: invalid join token: the token for client.default expired at");
        reported.then_some(()).ok_or(log)
    })
    .await;
    let streams = expired(&mesh).await;
    assert!(streams.is_err(), "it has a stream: {streams:?}");
    let rejections = || mesh.server.log().matches("rejected a proxy: ").count();
    let before = rejections();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let more = rejections() - before;
    // The bootstrap's pauses grow to a second, half of which is their mean.
    assert!(more <= 16, "{more} attempts in 4 s");

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
    eventually("it reconnects with its new token", async || {
        match expired(&mesh).await? {
            false => Ok(()),
            true => Err("still the old token".to_owned()),
        }
    })
    .await;
    load.stop().await.assert_lossless();
}
