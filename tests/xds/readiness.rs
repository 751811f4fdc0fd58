//! Group members that report their application's readiness.

use std::time::Duration;

use tonic::Code;
use topsail::pki::Bearer;
use topsail::xds::client::joining::{leave, ready};
use topsail::xds::joining::{Header, HttpGet, Probe};

use super::client::{SDS, Versions};
use super::control_plane::{ControlPlane, Home};
use super::registering::{NAME, becomes, configure, member_of_run, registered, token};
use super::renewing::{connect, refusal};

async fn report(home: &Home, server: &ControlPlane, run: u64, is_ready: bool) -> Option<Probe> {
    let connection = connect(home, server, None).await;
    ready(connection, &token(home), run, is_ready).await.unwrap()
}

#[tokio::test]
async fn members_are_ready_once_their_application_is() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = member_of_run(&home, &server, 7).await;
    configure(&mut client).await;
    // This response is sent after the ACKs have been processed.
    client.subscribe(SDS, &["default"], &Versions::new());
    client.take(SDS).await;
    becomes(&server, &[(NAME, false, true)]).await;
    report(&home, &server, 8, true).await;
    assert_eq!(registered(&server), [(NAME.to_owned(), false, true)], "another run");
    report(&home, &server, 7, true).await;
    becomes(&server, &[(NAME, true, true)]).await;
    report(&home, &server, 7, false).await;
    becomes(&server, &[(NAME, false, true)]).await;
    report(&home, &server, 7, true).await;
    becomes(&server, &[(NAME, true, true)]).await;
    leave(connect(&home, &server, None).await, &token(&home)).await.unwrap();
    becomes(&server, &[(NAME, false, true)]).await;
}

#[tokio::test]
async fn reports_before_the_ack_take_effect_after_it() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = member_of_run(&home, &server, 7).await;
    becomes(&server, &[(NAME, false, true)]).await;
    report(&home, &server, 7, true).await;
    assert_eq!(registered(&server), [(NAME.to_owned(), false, true)]);
    configure(&mut client).await;
    becomes(&server, &[(NAME, true, true)]).await;
}

#[tokio::test]
async fn readiness_cannot_be_reported_for_others() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let result = ready(connect(&home, &server, None).await, &token(&home), 7, true).await;
    let (code, why) = refusal(result);
    assert_eq!(code, Code::FailedPrecondition, "{why}");
    let mut client = member_of_run(&home, &server, 7).await;
    configure(&mut client).await;
    becomes(&server, &[(NAME, false, true)]).await;
    let other = home.token_for(Bearer::Group("ratings.default".parse().unwrap()));
    for (account, token, expected) in [
        (Some("other"), token(&home), Code::PermissionDenied),
        (None, other, Code::FailedPrecondition),
        (None, "no token".to_owned(), Code::Unauthenticated),
    ] {
        let result = ready(connect(&home, &server, account).await, &token, 7, true).await;
        let (code, why) = refusal(result);
        assert_eq!(code, expected, "{why}");
    }
    assert_eq!(registered(&server), [(NAME.to_owned(), false, true)]);
    report(&home, &server, 7, true).await;
    becomes(&server, &[(NAME, true, true)]).await;
}

const GROUP: &str =
    "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: reviews}, spec: {template: {}";

#[tokio::test]
async fn responses_contain_the_groups_probe() {
    let group = |probe: &str| format!("{GROUP}{probe}}}}}\n");
    let home = Home::with(&[("group.yaml", &group(""))]);
    let server = home.serve().await;
    assert_eq!(report(&home, &server, 7, false).await, None);
    home.write(
        "group.yaml",
        &group(", probe: {periodSeconds: 5, tcpSocket: {port: 9080}}"),
    );
    let expected = Probe {
        initial_delay: 0,
        timeout: 1,
        period: 5,
        successes: 1,
        failures: 3,
        host: String::new(),
        port: 9080,
        http_get: None,
    };
    receives(&home, &server, Some(expected)).await;
    let get = "httpGet: {path: /health, host: a.example, port: 443, scheme: HTTPS, httpHeaders: [{name: a, value: b}]}";
    let numbers =
        "initialDelaySeconds: 1, timeoutSeconds: 2, periodSeconds: 3, successThreshold: 4, failureThreshold: 5";
    home.write("group.yaml", &group(&format!(", probe: {{{numbers}, {get}}}")));
    let expected = Probe {
        initial_delay: 1,
        timeout: 2,
        period: 3,
        successes: 4,
        failures: 5,
        host: "a.example".to_owned(),
        port: 443,
        http_get: Some(HttpGet {
            path: "/health".to_owned(),
            tls: true,
            headers: vec![Header {
                name: "a".to_owned(),
                value: "b".to_owned(),
            }],
        }),
    };
    receives(&home, &server, Some(expected)).await;
    home.remove("group.yaml");
    receives(&home, &server, None).await;
}

async fn receives(home: &Home, server: &ControlPlane, expected: Option<Probe>) {
    let mut received = None;
    for _ in 0..500 {
        received = report(home, server, 7, false).await;
        if received == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{received:?} instead of {expected:?}");
}
