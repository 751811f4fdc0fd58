//! Authentication of clients.

use tonic::Code;

use super::client::{CDS, Client, SDS, Versions, names};
use super::control_plane::Home;

#[tokio::test]
async fn streams_require_a_credential() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = Client::open(&home, &server, "a.default", None).await.unwrap();
    let refusal = client.next().await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert!(
        refusal.message().contains("topsail token create"),
        "{}",
        refusal.message()
    );
}

#[tokio::test]
async fn forged_tokens_are_rejected() {
    let (home, other) = (Home::with(&[]), Home::with(&[]));
    let server = home.serve().await;
    let token = other.token("a.default");
    let mut client = Client::open(&home, &server, "a.default", Some(&token)).await.unwrap();
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn tokens_are_bound_to_a_workload() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let token = home.token("a.default");
    let mut client = Client::open(&home, &server, "b.default", Some(&token)).await.unwrap();
    let refusal = client.next().await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert!(refusal.message().contains("a.default"), "{}", refusal.message());
}

#[tokio::test]
async fn a_member_gets_clusters_and_its_own_certificate() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let token = home.token("a.default");
    let mut client = Client::open(&home, &server, "a.default", Some(&token)).await.unwrap();
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = client.take(CDS).await;
    assert!(names(&clusters).contains(&"BlackHoleCluster"), "{:?}", names(&clusters));
    client.subscribe(SDS, &["default", "ROOTCA", "somebody-elses"], &Versions::new());
    let secrets = client.take(SDS).await;
    assert_eq!(names(&secrets), ["ROOTCA", "default"]);
}
