//! PeerAuthentication, and the identities of both peers.

use crate::harness::{App, Identity, Mesh, Planes, eventually, get, tls};
use crate::on_each_pair_of_planes;

on_each_pair_of_planes! {
    strict_accepts_only_identities_of_the_mesh,
    permissive_accepts_mtls_and_plain_text_and_disable_only_plain_text,
    x_forwarded_client_cert_carries_the_identity_of_the_peer,
    workload_and_port_policies_override_the_mesh_policy,
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, \
    spec: {selector: {app: web}, ports: [{name: http, port: 9080}]}}";

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/anybody";

fn peer_authentication(spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
         metadata: {{name: mesh, namespace: istio-system}}, spec: {spec}}}"
    )
}

struct Setup {
    client: App,
    web: App,
    mesh: Mesh,
}

impl Setup {
    async fn start(planes: Planes, policy: &str) -> Self {
        let policy = peer_authentication(policy);
        let mesh = Mesh::start(planes, &[("service.yaml", SERVICE), ("policy.yaml", &policy)]).await;
        let web = mesh.app("web", "v1").await;
        let client = mesh.client().await;
        let setup = Self { client, web, mesh };
        setup.connected().await;
        setup
    }

    /// Waits until requests pass between the sidecars: each gets a new policy at its own time.
    async fn connected(&self) {
        eventually("requests pass between the sidecars", async || {
            let answer = self.client.get("web", "/").send().await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{}: {}", answer.status, answer.text()))
            }
        })
        .await;
    }

    /// An identity issued by the CA of the mesh.
    fn insider(&self, spiffe_id: &str) -> Identity {
        Identity::issued(&self.mesh.server.state(), "cluster.local", spiffe_id)
    }

    /// Sends a plain-text request directly to the server's sidecar.
    async fn plain(&self) -> Result<u16, String> {
        get(self.web.inbound(9080), "web", "/")
            .send()
            .await
            .map(|answer| answer.status.as_u16())
    }

    /// Sends a request over TLS directly to the server's sidecar.
    async fn secured(&self, identity: Option<&Identity>) -> Result<u16, String> {
        let call = get(self.web.inbound(9080), "web", "/");
        tls::send(&call, identity).await.map(|answer| answer.status.as_u16())
    }
}

async fn strict_accepts_only_identities_of_the_mesh(planes: Planes) {
    let setup = Setup::start(planes, "{mtls: {mode: STRICT}}").await;
    assert_eq!(setup.secured(Some(&setup.insider(CLIENT))).await, Ok(200));
    setup.plain().await.unwrap_err();
    setup.secured(None).await.unwrap_err();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = |authority, id| Identity::issued(&elsewhere.path().join(authority), authority, id);
    let foreign_domain = stranger("other.example", "spiffe://other.example/ns/default/sa/anybody");
    setup.secured(Some(&foreign_domain)).await.unwrap_err();
    let foreign_authority = stranger("cluster.local", CLIENT);
    setup.secured(Some(&foreign_authority)).await.unwrap_err();
    let own_authority_other_domain = setup.insider("spiffe://other.example/ns/default/sa/anybody");
    setup.secured(Some(&own_authority_other_domain)).await.unwrap_err();
}

async fn permissive_accepts_mtls_and_plain_text_and_disable_only_plain_text(planes: Planes) {
    let setup = Setup::start(planes, "{mtls: {mode: PERMISSIVE}}").await;
    assert_eq!(setup.plain().await, Ok(200));
    assert_eq!(setup.secured(Some(&setup.insider(CLIENT))).await, Ok(200));
    setup.secured(None).await.unwrap_err();

    setup
        .mesh
        .write("policy.yaml", &peer_authentication("{mtls: {mode: DISABLE}}"));
    eventually("mutual TLS is rejected", async || {
        match setup.secured(Some(&setup.insider(CLIENT))).await {
            Err(_) => Ok(()),
            Ok(status) => Err(format!("{status}")),
        }
    })
    .await;
    assert_eq!(setup.plain().await, Ok(200));
    setup.connected().await;

    setup
        .mesh
        .write("policy.yaml", &peer_authentication("{mtls: {mode: STRICT}}"));
    eventually("plain text is rejected", async || match setup.plain().await {
        Err(_) => Ok(()),
        Ok(status) => Err(format!("{status}")),
    })
    .await;
    setup.connected().await;
}

async fn x_forwarded_client_cert_carries_the_identity_of_the_peer(planes: Planes) {
    let setup = Setup::start(planes, "{mtls: {mode: STRICT}}").await;
    let seen = setup.client.get("web", "/").expect(200).await.seen();
    let peer = &seen.headers["x-forwarded-client-cert"];
    assert!(
        peer.contains("URI=spiffe://cluster.local/ns/default/sa/default"),
        "{peer}"
    );
    assert!(peer.contains("By=spiffe://cluster.local/ns/default/sa/web"), "{peer}");
    let forged = setup
        .client
        .get("web", "/")
        .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/x/sa/y");
    let peer = &forged.expect(200).await.seen().headers["x-forwarded-client-cert"];
    let last = peer.rsplit(',').next().unwrap();
    assert!(
        last.contains("URI=spiffe://cluster.local/ns/default/sa/default"),
        "the verified identity comes last: {peer}"
    );
    // All earlier header lines are kept.
    let relayed = ["URI=spiffe://a", "URI=spiffe://b"]
        .into_iter()
        .fold(get(setup.web.inbound(9080), "web", "/"), |call, said| {
            call.header("x-forwarded-client-cert", said)
        });
    let answer = tls::send(&relayed, Some(&setup.insider(CLIENT))).await.unwrap();
    let peer = answer.seen().headers["x-forwarded-client-cert"].clone();
    let said: Vec<_> = peer.split(',').map(str::trim).collect();
    assert_eq!(
        (said.len(), &said[..2]),
        (3, &["URI=spiffe://a", "URI=spiffe://b"][..]),
        "{peer}"
    );
}

async fn workload_and_port_policies_override_the_mesh_policy(planes: Planes) {
    let setup = Setup::start(planes, "{mtls: {mode: STRICT}}").await;
    let policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: web}, \
        spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {9080: {mode: PERMISSIVE}}}}";
    setup.mesh.write("web-policy.yaml", policy);
    eventually("plain text is accepted on this port", async || {
        setup.plain().await.map(drop)
    })
    .await;
    setup.mesh.remove("web-policy.yaml");
    eventually("the policy of the mesh applies again", async || {
        match setup.plain().await {
            Err(_) => Ok(()),
            Ok(status) => Err(format!("{status}")),
        }
    })
    .await;
}
