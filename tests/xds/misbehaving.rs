//! Clients that do not do what Envoy does: they get what the protocol says, and nobody else notices.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::client::{CDS, Client, EDS, LDS, RDS, SDS, Versions, names};
use super::control_plane::{Home, eventually, service_entry};

#[tokio::test]
async fn one_that_never_acks_holds_up_itself_only() {
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
async fn an_answer_to_another_nonce_means_nothing() {
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
async fn one_that_refuses_everything_is_told_each_thing_once() {
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
async fn every_name_that_is_asked_for_is_answered_however_many() {
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
    // Endpoints before clusters.
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
async fn what_is_named_no_more_beside_everything_is_still_wanted() {
    let home = Home::with(&[("a.yaml", &service_entry("a", 80)), ("b.yaml", &service_entry("b", 80))]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    let (a, b) = ("outbound|80||a.example.com", "outbound|80||b.example.com");
    client.subscribe(CDS, &["*", a], &Versions::new());
    assert!(names(&client.take(CDS).await).contains(&b));
    // The client may have dropped it, so it is told whether it still is.
    client.unsubscribe(CDS, &[a]);
    assert_eq!(names(&client.take(CDS).await), [a]);
    home.remove("a.yaml");
    assert_eq!(client.take(CDS).await.removed_resources, [a]);
}

#[tokio::test]
async fn one_that_wants_everything_no_more_is_told_of_what_it_names() {
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
async fn one_without_a_node_is_told_so() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = Client::open_saying(
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
async fn versions_that_are_made_up_do_not_make_certificates() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = Client::join(&home, &server, "a.default").await;
    client.subscribe(SDS, &["default"], &Versions::new());
    client.take(SDS).await;
    for n in 0..20 {
        client.say(DeltaDiscoveryRequest {
            type_url: SDS.to_owned(),
            initial_resource_versions: [("default".to_owned(), n.to_string())].into(),
            resource_names_subscribe: vec!["default".to_owned()],
            ..Default::default()
        });
    }
    // It asks, so it is answered; with the certificate that it has.
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
async fn streams_of_one_node_do_not_disturb_each_other() {
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
