//! A server that comes back: what proxies have is not sent again, what is gone is taken away.

use super::client::{CDS, Client, LDS, SDS, Versions, names, versions};
use super::control_plane::{Home, service_entry};

/// Everything a new client is told of the types that it asks for without names, and its secrets.
async fn everything(client: &mut Client) -> [Versions; 3] {
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = versions(&client.take(CDS).await);
    client.subscribe(SDS, &["default", "ROOTCA"], &Versions::new());
    let secrets = versions(&client.take(SDS).await);
    client.subscribe(LDS, &[], &Versions::new());
    [clusters, secrets, versions(&client.take(LDS).await)]
}

#[tokio::test]
async fn nothing_unchanged_is_sent_again_and_no_certificate_is_issued_anew() {
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
async fn what_was_deleted_meanwhile_is_taken_away() {
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
async fn a_server_that_starts_on_a_broken_directory_serves_what_was_last_good() {
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
