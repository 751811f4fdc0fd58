//! The server dies and comes back; the data planes go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::harness::{App, Load, Plane, Planes, eventually};
use crate::web::{Web, routed};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    killed_and_restarted_under_load_nothing_is_lost_and_nothing_is_sent_twice,
}

on_each_plane! {
    a_server_that_starts_on_a_broken_directory_serves_the_last_good_generation,
}

fn to(host: &str, version: &str) -> String {
    routed(
        host,
        &format!("- route: [{{destination: {{host: HOST, subset: {version}}}}}]"),
    )
}

/// A counter of the sidecar, 0 if it has not counted anything.
pub async fn counter(app: &App, name: &str) -> u64 {
    app.sidecar.stats(name).await.get(name).copied().unwrap_or(0)
}

/// What Envoy says when its server is killed.
pub const STREAM_CLOSED: &str = "gRPC config stream to xds-grpc closed";

/// What the bundled proxy says when its server does not let it in.
pub const NOT_LET_IN: &str = "there is no stream to the control plane";

/// All sidecars of the test have to do with a killed server.
fn allow_closed_streams(web: &mut Web) {
    for app in [&mut web.client, &mut web.v1, &mut web.v2] {
        app.sidecar.allow_log(STREAM_CLOSED);
    }
}

/// How many responses of each type the sidecar took.
async fn updates(app: &App) -> BTreeMap<String, u64> {
    app.sidecar.stats("update_success$").await
}

/// The serial numbers of the certificates that the sidecar has, the CA's included.
pub async fn serials(app: &App) -> BTreeSet<String> {
    let text = app.sidecar.admin("/certs").await;
    let rows = text.lines().filter(|line| line.contains("serial_number"));
    rows.map(|line| line.trim().to_owned()).collect()
}

async fn connected(app: &App) {
    eventually("the stream is back", async || {
        match counter(app, "control_plane.connected_state").await {
            1 => Ok(()),
            state => Err(format!("{state}")),
        }
    })
    .await;
}

async fn killed_and_restarted_under_load_nothing_is_lost_and_nothing_is_sent_twice(planes: Planes) {
    let mut web = Web::start(planes, &[to("web", "v1")]).await;
    allow_closed_streams(&mut web);
    web.mesh.write("doomed.yaml", &to("doomed", "v1"));
    web.reachable("web").await;
    web.reachable("doomed").await;
    let root = fs::read(web.mesh.server.state().join("ca/root-cert.pem")).unwrap();
    let serials_before = serials(&web.client).await;
    let load = Load::start(web.get("web", "/load"), 200);

    let before = updates(&web.client).await;
    web.mesh.server.kill().await;
    eventually("the stream is gone", async || {
        match counter(&web.client, "control_plane.connected_state").await {
            0 => Ok(()),
            state => Err(format!("{state}")),
        }
    })
    .await;
    web.mesh.server.start().await;
    connected(&web.client).await;
    assert_eq!(updates(&web.client).await, before, "something unchanged was sent again");
    assert_eq!(
        serials(&web.client).await,
        serials_before,
        "the certificate was issued again"
    );

    web.mesh.server.kill().await;
    web.mesh.remove("doomed.yaml");
    web.mesh.server.start().await;
    connected(&web.client).await;
    eventually("what was deleted is gone", async || {
        match web.get("doomed", "/").send().await?.status.as_u16() {
            200 => Err("still served".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    load.stop().await.assert_lossless();
    assert_eq!(
        fs::read(web.mesh.server.state().join("ca/root-cert.pem")).unwrap(),
        root
    );
}

async fn a_server_that_starts_on_a_broken_directory_serves_the_last_good_generation(plane: Plane) {
    let mut web = Web::start(plane, &[to("web", "v1")]).await;
    allow_closed_streams(&mut web);
    web.reachable("web").await;
    web.mesh.server.kill().await;
    web.mesh.write("web.yaml", "kind: [this is no document");
    web.mesh.server.start().await;
    let late = web.mesh.app("late", "v1").await;
    drop(late);
    assert_eq!(web.get("web", "/").count(5).await, [("web-v1".to_owned(), 5)].into());
    assert!(!web.mesh.diagnostics().await.is_empty());
    web.mesh.write("web.yaml", &to("web", "v2"));
    eventually("the repair counts", async || {
        let seen = web.get("web", "/").send().await?.seen();
        if seen.backend == "web-v2" {
            Ok(())
        } else {
            Err(seen.backend)
        }
    })
    .await;
}
