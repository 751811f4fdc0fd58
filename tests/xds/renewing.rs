//! A sidecar's other requests with its join token: renewing it and leaving.

use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use topsail::clock::Clock;
use topsail::pki::{Bearer, Ca, IssueOptions, StateDir, TokenClaims, TokenGrant, TokenSigner, server_identity};
use topsail::tls::{SpiffeMatcher, client_config};
use topsail::xds::client::joining::{leave, renew};
use topsail::xds::client::stream::StreamError;

use super::control_plane::{ControlPlane, Home, eventually};
use super::registering::{NAME, ready_member, registered, token};

const SECOND: Duration = Duration::from_secs(1);

/// A connection to the server, with the certificate of a service account if one is given.
pub(super) async fn connect(home: &Home, server: &ControlPlane, account: Option<&str>) -> TlsStream<TcpStream> {
    let ca = Ca::load_or_create(
        &StateDir::open(home.state()).unwrap(),
        &Default::default(),
        &Clock::system(),
    )
    .unwrap();
    let certificate = account.map(|account| {
        let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
        ca.issue(&identity.parse().unwrap(), &IssueOptions::default()).unwrap()
    });
    let expected = SpiffeMatcher::from(&server_identity(&Default::default()));
    let config = client_config(ca.bundle(), expected, certificate.as_ref(), &Clock::system()).unwrap();
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

/// Code and message of a rejection.
pub(super) fn refusal<T: std::fmt::Debug>(answer: Result<T, StreamError>) -> (Code, String) {
    match answer.unwrap_err() {
        StreamError::Status(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

fn signer(home: &Home) -> TokenSigner {
    TokenSigner::load_or_create(&StateDir::open(home.state()).unwrap(), &Default::default()).unwrap()
}

/// A token issued this long ago.
fn aged(home: &Home, name: &str, age: Duration, ttl: Duration) -> String {
    let grant = TokenGrant {
        bearer: Bearer::Workload {
            name: name.parse().unwrap(),
            addresses: vec!["10.9.9.9".parse().unwrap()],
        },
        service_account: "sa".parse().unwrap(),
        labels: [("app".to_owned(), "client".to_owned())].into(),
    };
    signer(home).create(&grant, ttl, SystemTime::now() - age).unwrap()
}

#[tokio::test]
async fn tokens_are_renewed_for_their_bearer_only() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let old = aged(&home, "a.default", 30 * SECOND, 100 * SECOND);
    for account in [None, Some("sa")] {
        let new = renew(connect(&home, &server, account).await, &old).await.unwrap();
        let now = SystemTime::now();
        let (old, new) = (
            signer(&home).verify(&old, now).unwrap(),
            signer(&home).verify(&new, now).unwrap(),
        );
        assert_eq!((&new.grant, new.lifetime()), (&old.grant, 100 * SECOND));
        assert!(new.expires_at >= old.expires_at + 29 * SECOND && new.id != old.id);
    }
    let other = renew(connect(&home, &server, Some("other")).await, &old).await;
    let (code, why) = refusal(other);
    assert_eq!(code, Code::PermissionDenied);
    assert!(why.contains("sa/sa") && why.contains("sa/other"), "{why}");
}

#[tokio::test]
async fn invalid_tokens_are_not_renewed() {
    let (home, other) = (Home::with(&[]), Home::with(&[]));
    let server = home.serve().await;
    let good = home.token("a.default");
    let altered = format!("{}x{}", &good[..60], &good[61..]);
    for (token, needle) in [
        (aged(&home, "a.default", 100 * SECOND, 50 * SECOND), "expired"),
        (other.token("a.default"), "not signed by this server"),
        (altered, "token"),
        (String::new(), "token"),
    ] {
        // A valid certificate of the identity does not help.
        for account in [None, Some("sa")] {
            let (code, why) = refusal(renew(connect(&home, &server, account).await, &token).await);
            assert_eq!(code, Code::Unauthenticated, "{why}");
            assert!(why.contains(needle) && !why.contains(&good), "{why}");
        }
    }
}

#[tokio::test]
async fn leaving_members_are_removed_from_endpoints_while_connected() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let _member = ready_member(&home, &server).await;
    let own = token(&home);
    let renewed = renew(connect(&home, &server, None).await, &own).await.unwrap();
    let claims = TokenClaims::told_to_bearer(&renewed).unwrap();
    assert_eq!(
        claims.grant.bearer.to_string(),
        "the members of the group reviews.default"
    );
    leave(connect(&home, &server, None).await, &renewed).await.unwrap();
    eventually("the member is out of service", || {
        registered(&server) == [(NAME.to_owned(), false, true)]
    })
    .await;
    let (code, _) = refusal(leave(connect(&home, &server, None).await, "no token").await);
    assert_eq!(code, Code::Unauthenticated);
}
