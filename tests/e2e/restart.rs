//! The server is killed and restarted while the data planes keep running.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::harness::{App, Load, Plane, Planes, eventually};
use crate::web::{Web, routed};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    restarting_the_server_under_load_loses_no_requests_and_resends_nothing,
}

on_each_plane! {
    a_server_started_with_invalid_configuration_serves_the_last_valid_one,
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

/// Envoy's log message when its server is killed.
pub const STREAM_CLOSED: &str = "gRPC config stream to xds-grpc closed";

/// The bundled proxy's log message when its server rejects it.
pub const NOT_LET_IN: &str = "no stream to the control plane";

/// Allows all sidecars of the test to log that their server is gone.
fn allow_closed_streams(web: &mut Web) {
    for app in [&mut web.client, &mut web.v1, &mut web.v2] {
        app.sidecar.allow_log(STREAM_CLOSED);
    }
}

/// How many updates of each kind the sidecar accepted.
async fn updates(app: &App) -> BTreeMap<String, u64> {
    app.sidecar.stats("update_success$").await
}

/// The serial numbers of the sidecar's certificates, including that of the CA.
pub async fn serials(app: &App) -> BTreeSet<String> {
    let text = app.sidecar.admin("/certs").await;
    let rows = text.lines().filter(|line| line.contains("serial_number"));
    rows.map(|line| line.trim().to_owned()).collect()
}

async fn connected(app: &App) {
    eventually("the stream is re-established", async || {
        match counter(app, "control_plane.connected_state").await {
            1 => Ok(()),
            state => Err(format!("{state}")),
        }
    })
    .await;
}

async fn restarting_the_server_under_load_loses_no_requests_and_resends_nothing(planes: Planes) {
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
    eventually("the stream is closed", async || {
        match counter(&web.client, "control_plane.connected_state").await {
            0 => Ok(()),
            state => Err(format!("{state}")),
        }
    })
    .await;
    web.mesh.server.start().await;
    connected(&web.client).await;
    assert_eq!(
        updates(&web.client).await,
        before,
        "unchanged resources were sent again"
    );
    assert_eq!(
        serials(&web.client).await,
        serials_before,
        "the certificate was issued again"
    );

    web.mesh.server.kill().await;
    web.mesh.remove("doomed.yaml");
    web.mesh.server.start().await;
    connected(&web.client).await;
    eventually("the deleted service is removed", async || {
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

async fn a_server_started_with_invalid_configuration_serves_the_last_valid_one(plane: Plane) {
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
    eventually("the repaired file is applied", async || {
        let seen = web.get("web", "/").send().await?.seen();
        if seen.backend == "web-v2" {
            Ok(())
        } else {
            Err(seen.backend)
        }
    })
    .await;
}
