//! TPROXY: like REDIRECT, but the application sees the client's address.

use crate::harness::{Plane, get};
use crate::hosts::Family;
use crate::interception::Rules;
use crate::on_each_plane;
use crate::stage::Stage;

on_each_plane! {
    the_application_sees_the_client_address,
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, \
    spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}}";

async fn the_application_sees_the_client_address(plane: Plane) {
    let stage = Stage::start(plane, Family::V4, Rules::tproxy(), &[SERVICE]).await;
    let web = stage.machine("web-v1").await;
    let web = web.serves(9080, "web-v1").await.serves(9999, "odd").await;
    let client = stage.machine("client-v1").await;
    let stranger = stage.stranger();

    let seen = client
        .reaches(&get("10.96.0.10:80".parse().unwrap(), "web", "/"))
        .await
        .seen();
    assert_eq!(seen.peer, client.host.address.to_string());
    let caller = &seen.headers["x-forwarded-client-cert"];
    assert!(
        caller.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
        "{caller}"
    );

    let seen = stranger.reaches(&get(web.host.port(9080), "web", "/")).await.seen();
    assert_eq!(seen.peer, stranger.host.address.to_string());
    assert!(
        seen.headers.contains_key("x-request-id"),
        "it came through the sidecar: {seen:?}"
    );

    let odd = get(web.host.port(9999), "whatever", "/");
    for machine in [&client, &stranger] {
        let seen = machine.reaches(&odd).await.seen();
        assert_eq!(
            (seen.backend.as_str(), seen.peer),
            ("odd", machine.host.address.to_string())
        );
    }

    stage.write(
        "strict.yaml",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: all}, spec: {mtls: {mode: STRICT}}}",
    );
    stranger.is_refused(&odd).await;
    stranger.is_refused(&get(web.host.port(9080), "web", "/")).await;
    client.reaches(&get("10.96.0.10:80".parse().unwrap(), "web", "/")).await;
}
