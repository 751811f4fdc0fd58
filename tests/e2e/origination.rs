//! TLS origination by the sidecar (DestinationRule `tls`) to hosts outside of the mesh.

use std::fs;

use serde_json::json;

use crate::harness::tls::Authority;
use crate::harness::{Backend, Mesh, Plane, eventually};
use crate::on_each_plane;

on_each_plane! {
    tls_settings_of_destination_rules_originate_tls,
}

/// A ServiceEntry for a host at this port, and a DestinationRule with its TLS settings.
fn outside(name: &str, port: u16, tls: &serde_json::Value) -> String {
    let entry = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name},
        "spec": {
            "hosts": [format!("{name}.example")],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": 9080, "protocol": "HTTP", "name": "http"}],
            "endpoints": [{"address": "127.0.0.1", "ports": {"http": port}}],
        },
    });
    let rule = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name},
        "spec": {"host": format!("{name}.example"), "trafficPolicy": {"tls": tls}},
    });
    format!("{entry}\n---\n{rule}")
}

async fn tls_settings_of_destination_rules_originate_tls(which: Plane) {
    let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new("outside"));
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = authority.issue("client.example", 2100);
    for (name, text) in [
        ("ca.pem", &authority.pem),
        ("cert.pem", &certificate),
        ("key.pem", &key),
    ] {
        fs::write(path(name), text).unwrap();
    }
    let (open, closed) = (
        Backend::https("open1", &authority, "web.example", false).await,
        Backend::https("shut1", &authority, "web.example", true).await,
    );
    let simple = |san: &str| json!({"mode": "SIMPLE", "caCertificates": path("ca.pem"), "sni": "web.example", "subjectAltNames": [san]});
    let mut mutual = simple("web.example");
    mutual["mode"] = json!("MUTUAL");
    mutual["clientCertificate"] = json!(path("cert.pem"));
    mutual["privateKey"] = json!(path("key.pem"));
    let documents = [
        outside("simple", open.address().port(), &simple("web.example")),
        outside("mutual", closed.address().port(), &mutual),
        outside("mistaken", open.address().port(), &simple("other.example")),
        outside("nameless", closed.address().port(), &simple("web.example")),
    ];
    let mesh = Mesh::start(which, &[("outside.yaml", &documents.join("\n---\n"))]).await;
    let client = mesh.client().await;
    for (name, backend) in [("simple", "open1"), ("mutual", "shut1")] {
        let seen = eventually(name, async || {
            let answer = client.get(&format!("{name}.example"), "/").send().await?;
            match answer.status.as_u16() {
                200 => Ok(answer.seen()),
                status => Err(format!("{status}: {}", answer.text())),
            }
        })
        .await;
        assert_eq!(
            (seen.backend.as_str(), seen.authority),
            (backend, format!("{name}.example"))
        );
    }
    // A certificate with the wrong name, and a host that requires a client certificate.
    for name in ["mistaken", "nameless"] {
        client.get(&format!("{name}.example"), "/").expect(503).await;
    }
}
