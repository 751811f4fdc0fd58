//! All proxies reconnect at once, as they do after a server outage.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::client::{CDS, Client, Versions, names, versions};
use super::control_plane::{Home, service_entry};
use super::memory::Server;

const PROXIES: usize = 300;
/// KiB per reconnecting client. Release builds need a fifth of it.
const BOUND: u64 = 250;

/// Connects and subscribes to clusters, some of which the client has.
async fn join(home: &Home, server: &Server, node: &str, has: &Versions) -> Client {
    let client = Client::join_at(home, server.xds(), node).await;
    client.subscribe(CDS, &[], has);
    client
}

/// Waits until a client receives a cluster.
async fn received(client: &mut Client, cluster: &str) {
    while !names(&client.take(CDS).await).contains(&cluster) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_served_and_connected_clients_receive_edits_meanwhile() {
    let home = Arc::new(Home::with(&[("a.yaml", &service_entry("a", 80))]));
    let server = Server::start(&home).await;
    let mut first = join(&home, &server, "first.default", &Versions::new()).await;
    let has = versions(&first.take(CDS).await);
    let mut connected = Vec::new();
    for number in 0..PROXIES {
        connected.push(join(&home, &server, &format!("p{number}.default"), &has).await);
    }
    let server = Arc::new(server.restart(&home).await);
    drop(connected);
    let mut first = join(&home, &server, "first.default", &has).await;
    home.write("b.yaml", &service_entry("b", 80));
    received(&mut first, "outbound|80||b.example.com").await;
    let base = server.memory();
    let mut storm = JoinSet::new();
    for number in 0..PROXIES {
        let (home, server, has) = (home.clone(), server.clone(), has.clone());
        storm.spawn(async move {
            let mut client = join(&home, &server, &format!("p{number}.default"), &has).await;
            received(&mut client, "outbound|80||b.example.com").await;
            client
        });
    }
    for port in 81..86 {
        home.write("a.yaml", &service_entry("a", port));
        received(&mut first, &format!("outbound|{port}||a.example.com")).await;
    }
    let mut all = storm.join_all().await;
    assert_eq!(all.len(), PROXIES);
    let each = server.memory().saturating_sub(base) / PROXIES as u64;
    assert!(each < BOUND, "{each} KiB for each");
    home.write("c.yaml", &service_entry("c", 80));
    for client in &mut all {
        received(client, "outbound|80||c.example.com").await;
    }
}
