//! Workload registration: replicas of a group that share a token and differ only in their addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{App, Backend, Load, Mesh, Plane, Sidecar, eventually, run};
use crate::on_each_plane;
use crate::restart::{NOT_LET_IN, STREAM_CLOSED};

on_each_plane! {
    replicas_share_a_token_and_a_killed_replica_gets_no_more_traffic,
    registered_replicas_survive_a_restart_of_the_server_under_load,
    an_expired_token_rejects_new_replicas_and_keeps_connected_ones,
}

/// Each replica has an address of its own, with the sidecar on port 9080 and the application on port 8080.
const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 9080}]}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  ingress:
  - {port: {number: 9080, protocol: HTTP, name: http}, captureMode: NONE, defaultEndpoint: \"0.0.0.0:8080\"}
  egress:
  - hosts: [\"~/*\"]
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
";

const GROUP: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web}
spec: {metadata: {labels: {app: web}}, template: {serviceAccount: web}}
";

/// A mesh with a group of workloads.
struct Group {
    mesh: Mesh,
    token: PathBuf,
}

/// A replica.
struct Replica {
    name: String,
    sidecar: Sidecar,
    _backend: Backend,
}

impl Group {
    /// The labels and service account of the replicas come from the token, or from a WorkloadGroup.
    async fn start(plane: Plane, unregister_after: &str, workload_group: Option<&str>) -> Self {
        let mut mesh = Mesh::new(plane, &[("mesh.yaml", MESH)]);
        if let Some(text) = workload_group {
            mesh.write("group.yaml", text);
        }
        mesh.server.flag(&format!("--unregister-after={unregister_after}"));
        mesh.server.start().await;
        let token = mesh.server.config().join("web.token");
        let group = Self { mesh, token };
        match workload_group {
            None => {
                group
                    .make_token(&["--service-account", "web", "--label", "app=web"])
                    .await
            }
            Some(_) => group.make_token(&[]).await,
        }
        group
    }

    /// Creates or replaces the token of the group.
    async fn make_token(&self, more: &[&str]) {
        let (state, out) = (self.mesh.server.state(), self.token.to_str().unwrap());
        let create = ["token", "create", "--group", "web.default", "--out", out];
        let made = run(&[&create[..], &["--state", state.to_str().unwrap()], more].concat()).await;
        assert!(made.status.success(), "{made:?}");
    }

    /// Starts a replica, for which there is no document in the configuration.
    async fn replica(&self) -> Replica {
        let (ip, server) = (self.mesh.address(), self.mesh.server.xds().to_string());
        let ca = self.mesh.server.state().join("ca/root-cert.pem");
        let bootstrap = [
            "bootstrap",
            "--group",
            "web.default",
            "--mode",
            "NONE",
            "--server",
            &server,
        ];
        let (ca, token, address) = (ca.to_str().unwrap(), self.token.to_str().unwrap(), ip.to_string());
        let more = ["--ca", ca, "--token-file", token, "--ip", &address];
        let made = run(&[&bootstrap[..], &more].concat()).await;
        assert!(made.status.success(), "{made:?}");
        let name = format!("web-{}", address.replace('.', "-"));
        let backend = Backend::http_at(SocketAddr::new(ip, 8080), &name).await;
        let bootstrap = String::from_utf8(made.stdout).unwrap();
        let mut sidecar = self.mesh.sidecar_on(&name, ip, &bootstrap).await;
        for text in [STREAM_CLOSED, NOT_LET_IN] {
            sidecar.allow_log(text);
        }
        Replica {
            name,
            sidecar,
            _backend: backend,
        }
    }

    /// Waits until exactly these replicas are registered, all with this readiness.
    async fn registered(&self, expected: &[&Replica], ready: bool) {
        let expected: BTreeSet<String> = expected
            .iter()
            .map(|replica| format!("{}.default", replica.name))
            .collect();
        eventually("the expected replicas are registered", async || {
            let answer = self.mesh.server.api("/api/v1/registered").await;
            let all: Vec<&Value> = answer.as_array().unwrap().iter().collect();
            let names = all.iter().map(|row| row["workload"].as_str().unwrap().to_owned());
            let as_expected = names.collect::<BTreeSet<_>>() == expected;
            match as_expected && all.iter().all(|row| row["ready"] == ready) {
                true => Ok(()),
                false => Err(answer.to_string()),
            }
        })
        .await;
    }

    /// Waits until the client's requests reach exactly these replicas.
    async fn reached(&self, client: &App, expected: &[&Replica]) {
        let expected: BTreeSet<String> = expected.iter().map(|replica| replica.name.clone()).collect();
        eventually("all replicas get traffic", async || {
            let mut seen = BTreeSet::new();
            for _ in 0..20 {
                let answer = client.get("web", "/").send().await?;
                if answer.status != 200 {
                    return Err(format!("{}: {}", answer.status, answer.text()));
                }
                seen.insert(answer.seen().backend);
            }
            match seen == expected {
                true => Ok(()),
                false => Err(format!("{seen:?}")),
            }
        })
        .await;
    }
}

async fn replicas_share_a_token_and_a_killed_replica_gets_no_more_traffic(plane: Plane) {
    let group = Group::start(plane, "1s", None).await;
    let client = group.mesh.client().await;
    let (a, b, mut c) = (group.replica().await, group.replica().await, group.replica().await);
    group.registered(&[&a, &b, &c], true).await;
    group.reached(&client, &[&a, &b, &c]).await;

    c.sidecar.kill().await;
    let counts = client.get("web", "/").count(60).await;
    assert!(!counts.contains_key(&c.name), "{counts:?}");
    group.registered(&[&a, &b], true).await;
    group.reached(&client, &[&a, &b]).await;
    let log = group.mesh.server.log();
    for message in [
        "registered a workload",
        "is ready",
        "closed its connection",
        "unregistered a workload",
    ] {
        assert!(log.contains(message), "{message}: {log}");
    }

    c.sidecar.start_again();
    group.registered(&[&a, &b, &c], true).await;
    group.reached(&client, &[&a, &b, &c]).await;
}

async fn registered_replicas_survive_a_restart_of_the_server_under_load(plane: Plane) {
    let mut group = Group::start(plane, "60s", Some(GROUP)).await;
    let mut client = group.mesh.client().await;
    for text in [STREAM_CLOSED, NOT_LET_IN] {
        client.sidecar.allow_log(text);
    }
    let (a, b) = (group.replica().await, group.replica().await);
    group.registered(&[&a, &b], true).await;
    group.reached(&client, &[&a, &b]).await;
    let load = Load::start(client.get("web", "/load"), 100);
    let objects = async |group: &Group| group.mesh.server.api("/api/v1/generation").await["objects"].clone();
    let before = objects(&group).await;
    group.mesh.server.kill().await;
    group.mesh.server.start().await;
    assert_eq!(
        objects(&group).await,
        before,
        "registered replicas are endpoints from the start"
    );
    group.registered(&[&a, &b], true).await;
    eventually("the replicas reconnect", async || {
        let answer = group.mesh.server.api("/api/v1/registered").await;
        match answer.as_array().unwrap().iter().all(|row| row["connected"] == true) {
            true => Ok(()),
            false => Err(answer.to_string()),
        }
    })
    .await;
    group.reached(&client, &[&a, &b]).await;
    load.stop().await.assert_lossless();
}

async fn an_expired_token_rejects_new_replicas_and_keeps_connected_ones(plane: Plane) {
    let group = Group::start(plane, "1s", Some(GROUP)).await;
    let client = group.mesh.client().await;
    let (a, mut b) = (group.replica().await, group.replica().await);
    group.registered(&[&a, &b], true).await;

    b.sidecar.kill().await;
    group.make_token(&["--ttl=1s"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    b.sidecar.start_again();
    eventually("the replica logs why it is rejected", async || {
        // Envoy logs the percent-encoded `grpc-message`.
        let log = b.sidecar.log().replace("%20", " ");
        if log.contains("the token for the members of the group ") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    group.registered(&[&a], true).await;
    group.reached(&client, &[&a]).await;

    group.make_token(&[]).await;
    b.sidecar.ready().await;
    group.registered(&[&a, &b], true).await;
    group.reached(&client, &[&a, &b]).await;
}
