//! The ways in which a data plane may ask: state of the world, delta, secrets on a stream of their own.

use crate::harness::{Mesh, Plane, eventually};
use crate::on_each_plane;
use crate::web::service;

on_each_plane! {
    delta,
    state_of_the_world,
}

/// The same little mesh over one transport: it works, takes an edit, and a removal.
async fn serves(mesh: Mesh) {
    mesh.write("web.yaml", &service("web"));
    let _app = mesh.app("web", "v1").await;
    let client = mesh.client().await;
    let status = async |host: &str| client.get(host, "/").send().await.map(|answer| answer.status.as_u16());
    let becomes = async |host: &str, wanted: u16| {
        eventually(&format!("{wanted} for {host}"), async || match status(host).await? {
            status if status == wanted => Ok(()),
            status => Err(status.to_string()),
        })
        .await;
    };
    becomes("web", 200).await;
    mesh.write("more.yaml", &service("more"));
    becomes("more", 200).await;
    mesh.remove("more.yaml");
    eventually("it is gone", async || match status("more").await? {
        200 => Err("still served".into()),
        _ => Ok(()),
    })
    .await;
    becomes("web", 200).await;
}

async fn delta(plane: Plane) {
    serves(Mesh::start(plane, &[]).await).await;
}

async fn state_of_the_world(plane: Plane) {
    let mut mesh = Mesh::start(plane, &[]).await;
    mesh.bootstrap_flag("--xds=sotw");
    serves(mesh).await;
}

#[tokio::test]
async fn delta_to_an_older_envoy() {
    serves(Mesh::start(Plane::EnvoyRelease("1.36.4"), &[]).await).await;
}
