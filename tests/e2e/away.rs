//! The bundled proxy starts from its saved configuration while the control plane is unavailable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use http::Method;

use crate::harness::{Plane, Sidecar, eventually, get};
use crate::web::{Web, routed};

/// Disables mutual TLS between sidecars.
const PLAIN: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
    metadata: {name: mesh, namespace: istio-system}, spec: {mtls: {mode: DISABLE}}}";

fn to(version: &str) -> String {
    routed(
        "web",
        &format!("- route: [{{destination: {{host: HOST, subset: {version}}}}}]"),
    )
}

/// The file where a proxy saves the configuration that it last accepted.
fn last(sidecar: &Sidecar) -> PathBuf {
    let mut name = sidecar.bootstrap().as_os_str().to_owned();
    name.push(".last");
    name.into()
}

/// Waits until the saved configuration of a proxy contains these texts.
async fn kept(sidecar: &Sidecar, texts: &[&str]) -> Vec<u8> {
    eventually("the accepted configuration is saved", async || {
        let bytes = fs::read(last(sidecar)).map_err(|error| error.to_string())?;
        let holds = |text: &&str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        match texts.iter().find(|text| !holds(text)) {
            None => Ok(bytes),
            Some(missing) => Err(format!("no `{missing}`")),
        }
    })
    .await
}

async fn answered_by(web: &Web, backend: &str) {
    eventually(&format!("{backend} answers"), async || {
        let answer = web.get("web", "/").send().await?;
        match answer.header("x-backend") == backend {
            true => Ok(()),
            false => Err(format!("{}: {}", answer.status, answer.text())),
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_restarted_without_its_control_plane_serves_its_saved_configuration() {
    let mut web = Web::start(Plane::Topsail, &[to("v1"), PLAIN.to_owned()]).await;
    answered_by(&web, "web-v1").await;
    let v1 = "outbound|9080|v1|web.default.svc.cluster.local";
    kept(
        &web.client.sidecar,
        &[v1, "RouteConfiguration", "ClusterLoadAssignment"],
    )
    .await;
    for sidecar in [&web.client.sidecar, &web.v1.sidecar] {
        kept(sidecar, &["config.listener.v3.Listener"]).await;
    }

    web.mesh.server.kill().await;
    web.client.sidecar.kill().await;
    web.v1.sidecar.kill().await;
    web.client.sidecar.start_again();
    web.v1.sidecar.start_again();
    web.client.sidecar.ready().await;
    web.v1.sidecar.ready().await;
    assert_eq!(web.get("web", "/").count(20).await, [("web-v1".to_owned(), 20)].into());

    web.mesh
        .write("web.yaml", &[to("v2"), PLAIN.to_owned()].join("\n---\n"));
    web.mesh.server.start().await;
    answered_by(&web, "web-v2").await;
}

#[tokio::test]
async fn private_keys_are_not_saved_and_clusters_waiting_for_them_are_reported() {
    let mut web = Web::start(Plane::Topsail, &[to("v1")]).await;
    answered_by(&web, "web-v1").await;
    let kept = kept(&web.client.sidecar, &["outbound|9080|v1|web", "RouteConfiguration"]).await;
    // Neither as PEM nor as DER, where PKCS #8 starts a P-256 key with this algorithm identifier.
    let key = [&b"PRIVATE KEY"[..], b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"];
    for key in key {
        assert!(!kept.windows(key.len()).any(|part| part == key));
    }
    let mode = fs::metadata(last(&web.client.sidecar)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    web.mesh.server.kill().await;
    web.client.sidecar.kill().await;
    web.client.sidecar.start_again();
    let admin = web.client.sidecar.admin_address();
    eventually("the cluster waits for its certificate", async || {
        let (_, waiting) = topsail::envoy::get(admin, "/init_dump")
            .await
            .map_err(|error| error.to_string())?;
        let waiting = String::from_utf8_lossy(&waiting).into_owned();
        let wanted = [
            "init manager Cluster outbound|9080|v1|web",
            "SdsApi default",
            "SdsApi ROOTCA",
        ];
        match wanted.iter().all(|text| waiting.contains(text)) {
            true => Ok(()),
            false => Err(waiting),
        }
    })
    .await;
    get(admin, "admin", "/logging?level=info")
        .method(Method::POST)
        .expect(200)
        .await;
    eventually("the log names the resources that are waited for", async || {
        let log = web.client.sidecar.log();
        match log.contains("CDS outbound|9080|v1|web.default.svc.cluster.local: SDS default, SDS ROOTCA") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;

    web.mesh.server.start().await;
    web.client.sidecar.ready().await;
    answered_by(&web, "web-v1").await;
}

#[tokio::test]
async fn a_corrupt_saved_configuration_is_reported_and_ignored() {
    let mut web = Web::start(Plane::Topsail, &[to("v1"), PLAIN.to_owned()]).await;
    answered_by(&web, "web-v1").await;
    let good = kept(&web.client.sidecar, &["outbound|9080|v1|web", "RouteConfiguration"]).await;
    let others = kept(&web.v1.sidecar, &["config.listener.v3.Listener"]).await;
    let sidecar = &mut web.client.sidecar;
    let (damaged, unreadable) = (
        "it is corrupt or belongs to another proxy",
        "failed to read the saved configuration",
    );
    sidecar.allow_log(damaged);
    sidecar.allow_log(unreadable);
    sidecar.allow_log("failed to save the configuration for the next start");
    let mut bent = good.clone();
    bent[good.len() / 2] ^= 1;
    let files = [
        ("nothing", Vec::new()),
        ("half", good[..good.len() / 2].to_vec()),
        ("bent", bent),
        ("zeros", vec![0; good.len()]),
        ("text", b"static_resources: {}\n".to_vec()),
        ("another's", others),
    ];
    let path = last(sidecar);
    for (said, (what, bytes)) in files.iter().enumerate() {
        sidecar.kill().await;
        fs::write(&path, bytes).unwrap();
        sidecar.start_again();
        sidecar.ready().await;
        assert_eq!(sidecar.log().matches(damaged).count(), said + 1, "{what}");
    }
    sidecar.kill().await;
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    sidecar.start_again();
    sidecar.ready().await;
    assert!(sidecar.log().contains(unreadable));
    answered_by(&web, "web-v1").await;
}
