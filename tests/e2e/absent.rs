//! Services that do not exist, or no longer exist: no proxy waits for their resources.

use crate::harness::{Plane, eventually};
use crate::on_each_plane;
use crate::web::{Web, routed, service};

on_each_plane! {
    a_route_to_a_missing_service_answers_503_and_other_routes_still_work,
    removing_a_service_leaves_no_init_targets_waiting,
}

async fn a_route_to_a_missing_service_answers_503_and_other_routes_still_work(plane: Plane) {
    let rules = "
- match: [{uri: {prefix: /nowhere}}]
  route: [{destination: {host: nowhere}}]
- route: [{destination: {host: HOST, subset: v1}}]
";
    let web = Web::start(plane, &[routed("web", rules)]).await;
    web.reachable("web").await;
    web.get("web", "/nowhere").expect(503).await;
    assert_eq!(web.get("web", "/").expect(200).await.seen().backend, "web-v1");
    let waiting = web.client.sidecar.admin("/init_dump").await;
    assert!(!waiting.contains("target_names"), "{waiting}");
    web.mesh.write("nowhere.yaml", &service("nowhere"));
    eventually("the missing service is created", async || {
        match web.get("web", "/nowhere").send().await?.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

async fn removing_a_service_leaves_no_init_targets_waiting(plane: Plane) {
    let web = Web::start(plane, &[service("stays"), service("goes")]).await;
    web.reachable("stays").await;
    web.reachable("goes").await;
    web.mesh.write("web.yaml", &service("stays"));
    eventually("the service is removed", async || {
        match web.get("goes", "/").send().await?.status.as_u16() {
            200 => Err("still served".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    web.get("stays", "/").expect(200).await;
    web.mesh
        .write("web.yaml", &[service("stays"), service("goes")].join("\n---\n"));
    web.reachable("goes").await;
    let state = web.client.sidecar.admin("/ready").await;
    assert_eq!(state.trim(), "LIVE");
    let waiting = web.client.sidecar.admin("/init_dump").await;
    assert!(!waiting.contains("target_names"), "{waiting}");
}
