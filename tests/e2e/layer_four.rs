//! TCP connections, and TLS connections that the sidecar does not terminate.

use crate::harness::{App, Backend, Mesh, Planes, Workload, answering, eventually, tls};
use crate::on_each_pair_of_planes;

on_each_pair_of_planes! {
    tcp_routes_select_a_subset,
    tls_routes_select_a_subset_by_server_name,
}

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {selector: {app: db}, ports: [{name: tcp, port: 5000}, {name: tls, port: 5443}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: db}, spec: {host: db,
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}
";

async fn db(mesh: &Mesh, version: &str) -> App {
    let name = format!("db-{version}");
    let workload = Workload::new(&name)
        .label("app", "db")
        .label("version", version)
        .account("db");
    let tcp = Backend::tcp(&name).await;
    let tls = Backend::tls(&name).await;
    mesh.run(workload.serves(5000, "TCP", tcp).serves(5443, "TLS", tls))
        .await
}

async fn client(mesh: &Mesh) -> App {
    mesh.run(
        Workload::new("client")
            .label("app", "client")
            .calls(5000, "TCP")
            .calls(5443, "TLS"),
    )
    .await
}

async fn over_tcp(client: &App) -> Result<String, String> {
    answering(
        tokio::net::TcpStream::connect(client.outbound(5000))
            .await
            .map_err(|error| error.to_string())?,
    )
    .await
}

async fn over_tls(client: &App, sni: &str) -> Result<String, String> {
    answering(tls::connect(client.outbound(5443), sni, None, &[]).await?).await
}

/// Waits until ten connections in a row reach `wanted`: for a moment the old and the new listener share their socket.
async fn becomes(what: &str, wanted: &str, mut probe: impl AsyncFnMut() -> Result<String, String>) {
    eventually(&format!("{what} goes to {wanted}"), async || {
        for _ in 0..10 {
            let name = probe().await?;
            if name != wanted {
                return Err(name);
            }
        }
        Ok(())
    })
    .await;
}

async fn tcp_routes_select_a_subset(planes: Planes) {
    let mesh = Mesh::start(planes, &[("services.yaml", SERVICES)]).await;
    let (_v1, _v2) = (db(&mesh, "v1").await, db(&mesh, "v2").await);
    let client = client(&mesh).await;
    let route = |subset: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: db}}, spec: {{hosts: [db], \
             tcp: [{{match: [{{port: 5000}}], route: [{{destination: {{host: db, subset: {subset}, port: {{number: 5000}}}}}}]}}]}}}}"
        )
    };
    mesh.write("route.yaml", &route("v1"));
    becomes("TCP", "db-v1", async || over_tcp(&client).await).await;
    mesh.write("route.yaml", &route("v2"));
    becomes("TCP", "db-v2", async || over_tcp(&client).await).await;
}

async fn tls_routes_select_a_subset_by_server_name(planes: Planes) {
    let mesh = Mesh::start(planes, &[("services.yaml", SERVICES)]).await;
    let (_v1, _v2) = (db(&mesh, "v1").await, db(&mesh, "v2").await);
    let client = client(&mesh).await;
    let route = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db.default.svc.cluster.local, other.example]
  tls:
  - match: [{port: 5443, sniHosts: [db.default.svc.cluster.local]}]
    route: [{destination: {host: db, subset: v1, port: {number: 5443}}}]
  - match: [{port: 5443, sniHosts: [other.example]}]
    route: [{destination: {host: db, subset: v2, port: {number: 5443}}}]
";
    mesh.write("route.yaml", route);
    becomes("the service's server name", "db-v1", async || {
        over_tls(&client, "db.default.svc.cluster.local").await
    })
    .await;
    becomes("the other server name", "db-v2", async || {
        over_tls(&client, "other.example").await
    })
    .await;
}
