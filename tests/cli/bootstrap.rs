//! `topsail bootstrap`.

use std::fs;

use serde_json::Value;
use topsail::envoy::{Finder, validate};
use topsail::pki::{Bearer, TrustBundle};

use crate::run::{fails, path, run, stdout, text};
use crate::token::claims;

#[test]
fn on_the_servers_host_a_token_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    let bootstrap = [
        "bootstrap",
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
        "--mode",
        "none",
        "--ip",
        "127.0.0.5",
        "--locality",
        "eu/a",
        "-o",
        "json",
    ];
    let document: Value = serde_json::from_str(&stdout(&[&bootstrap[..], &more].concat())).unwrap();

    let node = &document["node"];
    assert_eq!(node["id"], "sidecar~127.0.0.5~reviews-v1.shop~shop.svc.cluster.local");
    assert_eq!(node["cluster"], "reviews.shop");
    assert_eq!(node["metadata"]["INTERCEPTION_MODE"], "NONE");
    assert_eq!(node["locality"]["zone"], "a");
    assert_eq!(document["admin"]["address"]["socket_address"]["address"], "127.0.0.5");

    let token_file = folder.path().join("state/tokens/reviews-v1.shop.token");
    let token = fs::read_to_string(&token_file).unwrap();
    let claims = claims(&state, &token);
    assert_eq!(claims.grant.labels["app"], "reviews");
    let (name, addresses) = ("reviews-v1.shop".parse().unwrap(), vec!["127.0.0.5".parse().unwrap()]);
    assert_eq!(claims.grant.bearer, Bearer::Workload { name, addresses });
    assert!(!document.to_string().contains(&token), "the bootstrap holds no secret");
    assert!(
        document
            .to_string()
            .contains("spiffe://cluster.local/ns/topsail-system/sa/topsail")
    );
    let pointer = fs::read_to_string(folder.path().join("state/tokens/.reviews-v1.shop.token.envoy.json")).unwrap();
    assert!(pointer.contains(token_file.to_str().unwrap()), "{pointer}");
}

#[test]
fn group_members_are_named_after_their_address() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    let bootstrap = ["bootstrap", "--state", &state, "--group", "reviews-v1.shop"];
    let more = ["--label", "version=v1", "--ip", "127.0.0.5", "-o", "json"];
    let document: Value = serde_json::from_str(&stdout(&[&bootstrap[..], &more].concat())).unwrap();
    let node = &document["node"];
    assert_eq!(
        node["id"],
        "sidecar~127.0.0.5~reviews-v1-127-0-0-5.shop~shop.svc.cluster.local"
    );
    assert_eq!(node["cluster"], "reviews-v1.shop");
    assert_eq!(node["metadata"]["AUTO_REGISTER_GROUP"], "reviews-v1");
    assert_eq!(
        node["metadata"]["SERVICE_ACCOUNT"],
        Value::Null,
        "a WorkloadGroup may say another"
    );
    let source = &document["static_resources"]["clusters"][0]["upstream_bind_config"]["source_address"];
    assert_eq!(source["address"], "127.0.0.5");
    let token = fs::read_to_string(folder.path().join("state/tokens/groups/reviews-v1.shop.token")).unwrap();
    let group = "reviews-v1.shop".parse().unwrap();
    assert_eq!(claims(&state, &token).grant.bearer, Bearer::Group(group));
}

#[test]
fn elsewhere_ca_and_token_are_files() {
    let folder = tempfile::tempdir().unwrap();
    let (state, ca, token) = (
        path(&folder, "state"),
        path(&folder, "root.pem"),
        path(&folder, "token"),
    );
    stdout(&["token", "create", "--state", &state, "--workload", "a"]);
    let bootstrap = ["bootstrap", "--workload", "a", "--ca", &ca, "--token-file", &token];
    let stderr = fails(1, &bootstrap);
    assert!(stderr.contains(&ca), "{stderr}");
    fs::write(&ca, "no certificate").unwrap();
    let stderr = fails(1, &bootstrap);
    assert!(stderr.contains(&ca) && stderr.contains("no certificate"), "{stderr}");

    stdout(&["bootstrap", "--state", &state, "--workload", "b"]);
    let root = fs::read(folder.path().join("state/ca/root-cert.pem")).unwrap();
    fs::write(&ca, &root).unwrap();
    let output = run(&bootstrap);
    assert!(
        text(&output.stderr).contains("does not exist yet"),
        "{}",
        text(&output.stderr)
    );
    fs::write(&token, "x").unwrap();
    let document = stdout(&bootstrap);
    assert!(document.contains(TrustBundle::from_pem(&root).unwrap().pem().lines().nth(1).unwrap()));
    assert!(document.contains("/.token.envoy.json"));
}

#[tokio::test]
async fn envoy_accepts_all_bootstraps() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    let finder = Finder::from_env();
    let progress = |text: &str| eprintln!("{text}");
    let binaries = [
        finder.find(&progress).unwrap(),
        finder.release("1.36.2", &progress).unwrap(),
    ];
    let kinds: [&[&str]; 5] = [
        &[],
        &[
            "--mode",
            "NONE",
            "--ip",
            "127.0.0.9",
            "--xds",
            "sotw",
            "--locality",
            "eu/a/b",
        ],
        &["--mode", "TPROXY", "--server", "mesh.example:15012", "-o", "json"],
        &["--ip", "fd00::7", "--server", "[::1]:15012"],
        &["--type", "router", "--label", "on=1e3", "--label", "n=null"],
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let document = stdout(&[&["bootstrap", "--state", &state, "--workload", "a.b"], kind].concat());
        let file = folder.path().join(format!("{number}.yaml"));
        fs::write(&file, document).unwrap();
        for binary in &binaries {
            validate(binary, &file)
                .await
                .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        }
    }
}
