//! `topsail token create`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use topsail::pki::{Bearer, StateDir, TokenClaims, TokenSigner};

use crate::run::{fails, path, run, stdout, text};

/// The claims of a token, after verifying its signature.
pub fn claims(state: &str, token: &str) -> TokenClaims {
    let state = StateDir::open(state).unwrap();
    let signer = TokenSigner::load_or_create(&state, &"cluster.local".parse().unwrap()).unwrap();
    signer.verify(token, SystemTime::now()).unwrap()
}

#[test]
fn claims_are_those_requested() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    let create = [
        "token",
        "create",
        "--state",
        &state,
        "--workload",
        "reviews-v1.shop",
        "--service-account",
        "reviews",
    ];
    let more = [
        "--label",
        "app=reviews",
        "--label",
        "version=v1",
        "--ip",
        "127.0.0.5",
        "--ip",
        "::1",
        "--ttl",
        "12h",
    ];
    let output = run(&[&create[..], &more].concat());
    assert_eq!(text(&output.stderr), "", "notes are for terminals");
    let claims = claims(&state, text(&output.stdout));
    assert_eq!(
        claims.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/reviews"
    );
    let addresses = ["127.0.0.5", "::1"].map(|ip| ip.parse().unwrap()).into();
    let name = "reviews-v1.shop".parse().unwrap();
    assert_eq!(claims.grant.bearer, Bearer::Workload { name, addresses });
    assert_eq!(claims.grant.labels.len(), 2);
    assert_eq!(
        claims.expires_at.duration_since(claims.issued_at).unwrap(),
        Duration::from_secs(12 * 3600)
    );
}

#[test]
fn group_tokens_have_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    let create = ["token", "create", "--state", &state, "--group", "reviews-v1.shop"];
    let claims = claims(&state, &stdout(&create));
    assert_eq!(claims.grant.bearer, Bearer::Group("reviews-v1.shop".parse().unwrap()));
    assert_eq!(
        claims.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/default"
    );
    let stderr = fails(2, &[&create[..], &["--ip", "10.0.0.7"]].concat());
    assert!(stderr.contains("connects from"), "{stderr}");
    fails(2, &[&create[..], &["--workload", "a"]].concat());
    fails(2, &["token", "create", "--state", &state]);
}

#[test]
fn a_token_file_is_private_and_replaced_by_rename() {
    let folder = tempfile::tempdir().unwrap();
    let (state, out) = (path(&folder, "state"), path(&folder, "token"));
    let create = ["token", "create", "--state", &state, "--workload", "a", "--out", &out];
    assert_eq!(stdout(&create), "");
    let old = fs::File::open(&out).unwrap();
    let first = fs::read_to_string(&out).unwrap();
    assert_eq!(stdout(&create), "");
    let second = fs::read_to_string(&out).unwrap();
    assert_ne!(claims(&state, &first).id, claims(&state, &second).id);
    assert_eq!(std::io::read_to_string(old).unwrap(), first);
    assert_eq!(Path::new(&out).metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn unusable_state_directories_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "file");
    fs::write(&file, "").unwrap();
    let stderr = fails(1, &["token", "create", "--workload", "a", "--state", &file]);
    assert!(stderr.contains(&file) && stderr.contains("--state"), "{stderr}");
    let stderr = fails(
        1,
        &[
            "token",
            "create",
            "--workload",
            "a",
            "--state",
            &path(&folder, "s"),
            "--ttl",
            "9999d",
        ],
    );
    assert!(stderr.contains("3650 days"), "{stderr}");
}
