//! Members that say themselves when their application is ready.

use tonic::Code;
use topsail::pki::Bearer;
use topsail::xds::client::joining::{leave, ready};

use super::client::{SDS, Versions};
use super::control_plane::{ControlPlane, Home};
use super::registering::{NAME, becomes, configure, member_of_run, registered, token};
use super::renewing::{connect, refusal};

async fn say(home: &Home, server: &ControlPlane, run: u64, is_ready: bool) {
    let connection = connect(home, server, None).await;
    ready(connection, &token(home), run, is_ready).await.unwrap();
}

#[tokio::test]
async fn a_member_is_registered_when_its_application_is_ready_too() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = member_of_run(&home, &server, 7).await;
    configure(&mut client).await;
    // An answer comes after the ACKs have been taken in.
    client.subscribe(SDS, &["default"], &Versions::new());
    client.take(SDS).await;
    becomes(&server, &[(NAME, false, true)]).await;
    say(&home, &server, 8, true).await;
    assert_eq!(registered(&server), [(NAME.to_owned(), false, true)], "another run");
    say(&home, &server, 7, true).await;
    becomes(&server, &[(NAME, true, true)]).await;
    say(&home, &server, 7, false).await;
    becomes(&server, &[(NAME, false, true)]).await;
    say(&home, &server, 7, true).await;
    becomes(&server, &[(NAME, true, true)]).await;
    leave(connect(&home, &server, None).await, &token(&home)).await.unwrap();
    becomes(&server, &[(NAME, false, true)]).await;
}

#[tokio::test]
async fn what_is_said_before_the_ack_counts_after_it() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let mut client = member_of_run(&home, &server, 7).await;
    becomes(&server, &[(NAME, false, true)]).await;
    say(&home, &server, 7, true).await;
    assert_eq!(registered(&server), [(NAME.to_owned(), false, true)]);
    configure(&mut client).await;
    becomes(&server, &[(NAME, true, true)]).await;
}

#[tokio::test]
async fn nobody_says_it_for_another() {
    let home = Home::with(&[]);
    let server = home.serve().await;
    let said = ready(connect(&home, &server, None).await, &token(&home), 7, true).await;
    let (code, why) = refusal(said);
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
        let said = ready(connect(&home, &server, account).await, &token, 7, true).await;
        let (code, why) = refusal(said);
        assert_eq!(code, expected, "{why}");
    }
    assert_eq!(registered(&server), [(NAME.to_owned(), false, true)]);
    say(&home, &server, 7, true).await;
    becomes(&server, &[(NAME, true, true)]).await;
}
