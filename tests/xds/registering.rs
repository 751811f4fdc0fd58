//! Auto-registration of workloads, and its authorization.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use tonic::Code;
use topsail::pki::Bearer;

use super::client::{CDS, Client, LDS, SDS, Versions};
use super::control_plane::{ControlPlane, Home, eventually};

/// Source address of all connections.
const HERE: &str = "127.0.0.1";
/// Name of the member with this address.
pub const NAME: &str = "reviews-127-0-0-1.default";

fn hello(workload: &str, address: &str, group: &str) -> DeltaDiscoveryRequest {
    hello_with(workload, address, &[("AUTO_REGISTER_GROUP", group)])
}

fn hello_with(workload: &str, address: &str, metadata: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let text = |value: &str| Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value)));
    let node = Node {
        id: format!("sidecar~{address}~{workload}~default.svc.cluster.local"),
        metadata: Some(Struct {
            fields: fields.collect(),
        }),
        ..Default::default()
    };
    DeltaDiscoveryRequest {
        node: Some(node),
        type_url: "hello".to_owned(),
        ..Default::default()
    }
}

/// The token of all members.
pub fn token(home: &Home) -> String {
    home.token_for(Bearer::Group("reviews.default".parse().unwrap()))
}

/// The registered workloads with their ready and connected state.
pub fn registered(server: &ControlPlane) -> Vec<(String, bool, bool)> {
    let state = server.running.published.state();
    let rows = state.registered.iter();
    rows.map(|row| (row.workload.clone(), row.ready, row.connected))
        .collect()
}

/// Waits until exactly these workloads are registered, with this ready and connected state.
pub async fn becomes(server: &ControlPlane, expected: &[(&str, bool, bool)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, ready, connected)| ((*name).to_owned(), *ready, *connected))
        .collect();
    eventually(&format!("{expected:?}"), || registered(server) == expected).await;
}

async fn member(home: &Home, server: &ControlPlane) -> Client {
    let hello = hello(NAME, HERE, "reviews");
    Client::open_with(home, server, hello, Some(&token(home)))
        .await
        .unwrap()
}

#[tokio::test]
async fn members_are_ready_with_their_listeners_and_unregistered_when_gone() {
    let mut home = Home::with(&[]);
    home.unregister_after = Duration::from_millis(100);
    let server = home.serve().await;
    let mut client = member(&home, &server).await;
    becomes(&server, &[(NAME, false, true)]).await;
    for kind in [CDS, LDS] {
        client.subscribe(kind, &[], &Versions::new());
        let response = client.take(kind).await;
        assert!(!registered(&server)[0].1, "{kind} is not ACKed");
        client.ack(&response);
    }
    client.subscribe(SDS, &["default"], &Versions::new());
    let certificate = client.take(SDS).await;
    client.ack(&certificate);
    becomes(&server, &[(NAME, true, true)]).await;
    drop(client);
    becomes(&server, &[]).await;
}

/// A member that receives traffic.
pub async fn ready_member(home: &Home, server: &ControlPlane) -> Client {
    let mut client = member(home, server).await;
    configure(&mut client).await;
    becomes(server, &[(NAME, true, true)]).await;
    client
}

/// A member whose sidecar reports application readiness.
pub async fn member_of_run(home: &Home, server: &ControlPlane, run: u64) -> Client {
    let run = run.to_string();
    let hello = hello_with(
        NAME,
        HERE,
        &[("AUTO_REGISTER_GROUP", "reviews"), ("TOPSAIL_READINESS_RUN", &run)],
    );
    Client::open_with(home, server, hello, Some(&token(home)))
        .await
        .unwrap()
}

/// ACKs clusters and listeners.
pub async fn configure(client: &mut Client) {
    for kind in [CDS, LDS] {
        client.subscribe(kind, &[], &Versions::new());
        let response = client.take(kind).await;
        client.ack(&response);
    }
}

#[tokio::test]
async fn members_whose_process_exits_become_unready() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let client = ready_member(&home, &server).await;
    drop(client);
    becomes(&server, &[(NAME, false, false)]).await;
    let _again = member(&home, &server).await;
    becomes(&server, &[(NAME, false, true)]).await;
}

#[tokio::test]
async fn members_must_match_their_token_and_address() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    for (workload, address, group, why) in [
        (
            "reviews-10-0-0-7.default",
            "10.0.0.7",
            "reviews",
            "connects from 127.0.0.1",
        ),
        (
            "ratings-127-0-0-1.default",
            HERE,
            "ratings",
            "a member of ratings.default",
        ),
        ("reviews-v1.default", HERE, "reviews", "is reviews-127-0-0-1.default"),
    ] {
        let hello = hello(workload, address, group);
        let mut client = Client::open_with(&home, &server, hello, Some(&token(&home)))
            .await
            .unwrap();
        let refusal = client.next().await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert!(refusal.message().contains(why), "{}", refusal.message());
    }
    assert_eq!(registered(&server), []);
}
