//! Clients that behave unlike Envoy: they are served according to the protocol, and other clients are not
//! affected.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::client::{CDS, Client, EDS, LDS, RDS, SDS, Versions, names};
use super::control_plane::{Home, eventually, service_entry};

#[tokio::test]
async fn clients_that_never_ack_delay_only_themselves() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let server = home.serve().await;
    let mut silent = Client::join(&home, &server, "silent.default").await;
    silent.subscribe(CDS, &[], &Versions::new());
    silent.subscribe(LDS, &[], &Versions::new());
    assert!(names(&silent.next().await.unwrap()).contains(&"outbound|80||a.example.com"));
    let mut other = Client::join(&home, &server, "other.default").await;
    other.subscribe(CDS, &[], &Versions::new());
    other.take(CDS).await;
    for port in 81..86 {
        home.write("a.yaml", &service_entry("a", port));
        let clusters = other.take(CDS).await;
        assert_eq!(names(&clusters), [format!("outbound|{port}||a.example.com")]);
    }
    assert!(
        silent.is_quiet().await,
        "one response of a type is on its way at a time"
    );
}

#[tokio::test]
async fn stale_nonces_are_ignored() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(CDS, &[], &Versions::new());
    let clusters = client.next().await.unwrap();
    for nonce in ["999", "0", "-1", "18446744073709551616", "nonsense"] {
        let mut stale = clusters.clone();
        stale.nonce = nonce.to_owned();
        client.ack(&stale);
        client.nack(
            &stale,
            "Error adding/updating cluster(s) outbound|80||a.example.com: why",
        );
    }
    home.write("a.yaml", &service_entry("a", 81));
    assert!(client.is_quiet().await);
    client.ack(&clusters);
    assert_eq!(names(&client.take(CDS).await), ["outbound|81||a.example.com"]);
    assert!(
        !server.diagnostics().iter().any(|line| line.contains("TS0016")),
        "{:?}",
        server.diagnostics()
    );
}

#[tokio::test]
async fn rejected_resources_are_sent_once() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80)), ("b.yaml", &service_entry("b", 81))]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(CDS, &[], &Versions::new());
    client.subscribe(RDS, &["80", "81", "unknown"], &Versions::new());
    let mut told = 0;
    while !client
        .is_quiet_or(|client, response| {
            told += 1;
            client.nack(response, "no");
        })
        .await
    {
        assert!(told < 30, "it goes on and on");
    }
    let mut other = Client::join(&home, &server, "other.default").await;
    other.subscribe(CDS, &[], &Versions::new());
    assert!(names(&other.take(CDS).await).contains(&"outbound|80||a.example.com"));
}

#[tokio::test]
async fn every_subscribed_name_is_answered() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    let unknown: Vec<String> = (0..20_000)
        .map(|n| format!("outbound|80||unknown-{n}.example.com"))
        .collect();
    let unknown: Vec<&str> = unknown
        .iter()
        .map(String::as_str)
        .chain(["outbound|80||a.example.com"; 3])
        .collect();
    // Endpoints are requested before clusters.
    client.subscribe(EDS, &unknown, &Versions::new());
    let mut answered = 0;
    while answered < 20_001 {
        answered += client.take(EDS).await.resources.len();
    }
    assert_eq!(answered, 20_001);
    client.subscribe(RDS, &["unknown"], &Versions::new());
    assert_eq!(names(&client.take(RDS).await), ["unknown"]);
}

#[tokio::test]
async fn the_wildcard_still_covers_unsubscribed_names() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80)), ("b.yaml", &service_entry("b", 80))]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    let (a, b) = ("outbound|80||a.example.com", "outbound|80||b.example.com");
    client.subscribe(CDS, &["*", a], &Versions::new());
    assert!(names(&client.take(CDS).await).contains(&b));
    // The client may have dropped the resource, so its state is sent again.
    client.unsubscribe(CDS, &[a]);
    assert_eq!(names(&client.take(CDS).await), [a]);
    home.remove("a.yaml");
    assert_eq!(client.take(CDS).await.removed_resources, [a]);
}

#[tokio::test]
async fn named_resources_remain_after_unsubscribing_the_wildcard() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80)), ("b.yaml", &service_entry("b", 80))]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(CDS, &["*", "outbound|80||a.example.com"], &Versions::new());
    client.take(CDS).await;
    client.unsubscribe(CDS, &["*"]);
    home.write("b.yaml", &service_entry("b", 81));
    assert!(client.is_quiet().await);
    home.write("a.yaml", &service_entry("a", 81));
    assert_eq!(client.take(CDS).await.removed_resources, ["outbound|80||a.example.com"]);
}

#[tokio::test]
async fn requests_without_a_node_are_rejected() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = Client::open_with(
        &home,
        &server,
        DeltaDiscoveryRequest::default(),
        Some(&home.token("a.default")),
    )
    .await
    .unwrap();
    let refusal = client.next().await.unwrap_err();
    assert!(refusal.message().contains("node"), "{}", refusal.message());
}

#[tokio::test]
async fn invented_versions_do_not_issue_certificates() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(SDS, &["default"], &Versions::new());
    client.take(SDS).await;
    for n in 0..20 {
        client.send(DeltaDiscoveryRequest {
            type_url: SDS.to_owned(),
            initial_resource_versions: [("default".to_owned(), n.to_string())].into(),
            resource_names_subscribe: vec!["default".to_owned()],
            ..Default::default()
        });
    }
    // The request is answered, with the certificate issued before.
    let first = client.take(SDS).await;
    while !client
        .is_quiet_or(|client, again| {
            assert_eq!(again.resources, first.resources);
            client.ack(again);
        })
        .await
    {}
}

#[tokio::test]
async fn streams_of_the_same_node_are_independent() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80))]);
    let server = home.serve().await;
    let mut one = Client::join(&home, &server, "a.default").await;
    let mut two = Client::join(&home, &server, "a.default").await;
    for client in [&mut one, &mut two] {
        client.subscribe(CDS, &[], &Versions::new());
        client.take(CDS).await;
    }
    drop(one);
    home.write("a.yaml", &service_entry("a", 81));
    assert_eq!(names(&two.take(CDS).await), ["outbound|81||a.example.com"]);
    drop(two);
    eventually("both are forgotten", || {
        server.running.roster.status(std::time::SystemTime::now()).is_empty()
    })
    .await;
}
