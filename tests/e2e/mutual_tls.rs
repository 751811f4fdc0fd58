//! Who gets in: PeerAuthentication, and the identities on both ends.

use crate::harness::{App, Identity, Mesh, Planes, eventually, get, tls};
use crate::on_each_pair_of_planes;

on_each_pair_of_planes! {
    strict_takes_the_meshs_own_identities_and_nothing_else,
    permissive_takes_both_and_disable_takes_plain_text,
    the_peers_identity_arrives_with_the_request,
    a_port_and_a_workload_can_differ_from_the_mesh,
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

struct Guarded {
    client: App,
    web: App,
    mesh: Mesh,
}

impl Guarded {
    async fn start(planes: Planes, policy: &str) -> Self {
        let policy = peer_authentication(policy);
        let mesh = Mesh::start(planes, &[("service.yaml", SERVICE), ("policy.yaml", &policy)]).await;
        let web = mesh.app("web", "v1").await;
        let client = mesh.client().await;
        let guarded = Self { client, web, mesh };
        guarded.understood().await;
        guarded
    }

    /// Waits until the sidecars talk to each other: each learns of a policy by itself, in no order.
    async fn understood(&self) {
        eventually("the sidecars talk to each other", async || {
            let answer = self.client.get("web", "/").send().await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{}: {}", answer.status, answer.text()))
            }
        })
        .await;
    }

    /// An identity by the server's own CA.
    fn insider(&self, spiffe_id: &str) -> Identity {
        Identity::issued(&self.mesh.server.state(), "cluster.local", spiffe_id)
    }

    /// A request that goes past the client's sidecar, in plain text.
    async fn plain(&self) -> Result<u16, String> {
        get(self.web.inbound(9080), "web", "/")
            .send()
            .await
            .map(|answer| answer.status.as_u16())
    }

    /// The same over TLS.
    async fn secured(&self, identity: Option<&Identity>) -> Result<u16, String> {
        let call = get(self.web.inbound(9080), "web", "/");
        tls::send(&call, identity).await.map(|answer| answer.status.as_u16())
    }
}

async fn strict_takes_the_meshs_own_identities_and_nothing_else(planes: Planes) {
    let guarded = Guarded::start(planes, "{mtls: {mode: STRICT}}").await;
    assert_eq!(guarded.secured(Some(&guarded.insider(CLIENT))).await, Ok(200));
    guarded.plain().await.unwrap_err();
    guarded.secured(None).await.unwrap_err();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = |authority, id| Identity::issued(&elsewhere.path().join(authority), authority, id);
    let foreign_domain = stranger("other.example", "spiffe://other.example/ns/default/sa/anybody");
    guarded.secured(Some(&foreign_domain)).await.unwrap_err();
    let foreign_authority = stranger("cluster.local", CLIENT);
    guarded.secured(Some(&foreign_authority)).await.unwrap_err();
    let own_authority_other_domain = guarded.insider("spiffe://other.example/ns/default/sa/anybody");
    guarded.secured(Some(&own_authority_other_domain)).await.unwrap_err();
}

async fn permissive_takes_both_and_disable_takes_plain_text(planes: Planes) {
    let guarded = Guarded::start(planes, "{mtls: {mode: PERMISSIVE}}").await;
    assert_eq!(guarded.plain().await, Ok(200));
    assert_eq!(guarded.secured(Some(&guarded.insider(CLIENT))).await, Ok(200));
    guarded.secured(None).await.unwrap_err();

    guarded
        .mesh
        .write("policy.yaml", &peer_authentication("{mtls: {mode: DISABLE}}"));
    eventually("no more TLS", async || {
        match guarded.secured(Some(&guarded.insider(CLIENT))).await {
            Err(_) => Ok(()),
            Ok(status) => Err(format!("{status}")),
        }
    })
    .await;
    assert_eq!(guarded.plain().await, Ok(200));
    guarded.understood().await;

    guarded
        .mesh
        .write("policy.yaml", &peer_authentication("{mtls: {mode: STRICT}}"));
    eventually("no more plain text", async || match guarded.plain().await {
        Err(_) => Ok(()),
        Ok(status) => Err(format!("{status}")),
    })
    .await;
    guarded.understood().await;
}

async fn the_peers_identity_arrives_with_the_request(planes: Planes) {
    let guarded = Guarded::start(planes, "{mtls: {mode: STRICT}}").await;
    let seen = guarded.client.get("web", "/").expect(200).await.seen();
    let peer = &seen.headers["x-forwarded-client-cert"];
    assert!(
        peer.contains("URI=spiffe://cluster.local/ns/default/sa/default"),
        "{peer}"
    );
    assert!(peer.contains("By=spiffe://cluster.local/ns/default/sa/web"), "{peer}");
    let forged = guarded
        .client
        .get("web", "/")
        .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/x/sa/y");
    let peer = &forged.expect(200).await.seen().headers["x-forwarded-client-cert"];
    let last = peer.rsplit(',').next().unwrap();
    assert!(
        last.contains("URI=spiffe://cluster.local/ns/default/sa/default"),
        "what the server vouches for is last: {peer}"
    );
    // What proxies before have said on lines of their own stays, all of it.
    let relayed = ["URI=spiffe://a", "URI=spiffe://b"]
        .into_iter()
        .fold(get(guarded.web.inbound(9080), "web", "/"), |call, said| {
            call.header("x-forwarded-client-cert", said)
        });
    let answer = tls::send(&relayed, Some(&guarded.insider(CLIENT))).await.unwrap();
    let peer = answer.seen().headers["x-forwarded-client-cert"].clone();
    let said: Vec<_> = peer.split(',').map(str::trim).collect();
    assert_eq!(
        (said.len(), &said[..2]),
        (3, &["URI=spiffe://a", "URI=spiffe://b"][..]),
        "{peer}"
    );
}

async fn a_port_and_a_workload_can_differ_from_the_mesh(planes: Planes) {
    let guarded = Guarded::start(planes, "{mtls: {mode: STRICT}}").await;
    let policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: web}, \
        spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {9080: {mode: PERMISSIVE}}}}";
    guarded.mesh.write("web-policy.yaml", policy);
    eventually("plain text on that port", async || guarded.plain().await.map(drop)).await;
    guarded.mesh.remove("web-policy.yaml");
    eventually("the mesh's own rule again", async || match guarded.plain().await {
        Err(_) => Ok(()),
        Ok(status) => Err(format!("{status}")),
    })
    .await;
}
