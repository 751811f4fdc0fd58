//! Names that do not exist, or not any more: nothing waits for them.

use crate::harness::{Plane, eventually};
use crate::on_each_plane;
use crate::web::{Web, routed, service};

on_each_plane! {
    a_route_to_what_does_not_exist_is_503_and_all_else_goes_on,
    a_service_that_goes_away_leaves_no_one_waiting,
}

async fn a_route_to_what_does_not_exist_is_503_and_all_else_goes_on(plane: Plane) {
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
    eventually("the missing service is there", async || {
        match web.get("web", "/nowhere").send().await?.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

async fn a_service_that_goes_away_leaves_no_one_waiting(plane: Plane) {
    let web = Web::start(plane, &[service("stays"), service("goes")]).await;
    web.reachable("stays").await;
    web.reachable("goes").await;
    web.mesh.write("web.yaml", &service("stays"));
    eventually("it is gone", async || {
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
