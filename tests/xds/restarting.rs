//! Server restarts: unchanged resources are not sent again, and deleted ones are removed.

use super::client::{CDS, Client, LDS, SDS, Versions, names, versions};
use super::control_plane::{Home, service_entry};

/// Everything a new client receives of the wildcard types, and its secrets.
async fn everything(client: &mut Client) -> [Versions; 3] {
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = versions(&client.take(CDS).await);
    client.subscribe(SDS, &["default", "ROOTCA"], &Versions::new());
    let secrets = versions(&client.take(SDS).await);
    client.subscribe(LDS, &[], &Versions::new());
    [clusters, secrets, versions(&client.take(LDS).await)]
}

#[tokio::test]
async fn unchanged_resources_and_certificates_are_not_sent_again() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let token = home.token("a.default");
    let server = home.serve().await;
    let mut client = Client::open(&home, &server, "a.default", Some(&token)).await.unwrap();
    let [clusters, secrets, listeners] = everything(&mut client).await;
    drop(client);
    server.stop().await;

    let server = home.serve().await;
    let mut client = Client::open(&home, &server, "a.default", Some(&token)).await.unwrap();
    client.subscribe(CDS, &[], &clusters);
    client.subscribe(SDS, &["default", "ROOTCA"], &secrets);
    client.subscribe(LDS, &[], &listeners);
    assert!(client.is_quiet().await);
}

#[tokio::test]
async fn resources_deleted_in_the_meantime_are_removed() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80)), ("b.yaml", &service_entry("b", 80))]);
    let token = home.token("a.default");
    let server = home.serve().await;
    let mut client = Client::open(&home, &server, "a.default", Some(&token)).await.unwrap();
    let [clusters, ..] = everything(&mut client).await;
    drop(client);
    server.stop().await;
    home.remove("b.yaml");

    let server = home.serve().await;
    let mut client = Client::open(&home, &server, "a.default", Some(&token)).await.unwrap();
    client.subscribe(CDS, &[], &clusters);
    let response = client.take(CDS).await;
    assert!(names(&response).is_empty(), "{:?}", names(&response));
    assert_eq!(response.removed_resources, ["outbound|80||b.example.com"]);
}

#[tokio::test]
async fn a_restart_on_a_broken_directory_serves_the_last_good_generation() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80)), ("b.yaml", &service_entry("b", 80))]);
    home.serve().await.stop().await;
    home.write(
        "a.yaml",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: [\n",
    );
    home.write("b.yaml", "");

    let server = home.serve().await;
    let problems = server.diagnostics();
    assert!(
        problems
            .iter()
            .any(|line| line.contains("a.yaml:") && line.contains("TS0001")),
        "{problems:?}"
    );
    assert!(
        problems
            .iter()
            .any(|line| line.contains("b.yaml:") && line.contains("TS0010")),
        "{problems:?}"
    );
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = client.take(CDS).await;
    for name in ["outbound|80||a.example.com", "outbound|80||b.example.com"] {
        assert!(names(&clusters).contains(&name), "{:?}", names(&clusters));
    }
}
