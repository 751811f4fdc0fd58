//! `topsail init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use topsail::pki::{Bearer, StateDir, TokenGrant, TokenSigner};

use crate::run::{fails, path, run, stdout, text};
use crate::token::claims;

const MESH: &str = "\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client}
spec: {address: 10.0.0.2, serviceAccount: client, labels: {app: client}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: outside}
spec: {address: 10.0.0.3}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: reviews, namespace: shop}
spec: {template: {serviceAccount: reviewer, labels: {app: reviews}}}
";

/// A directory with this configuration in `mesh`, and the `topsail init` command line for it.
fn home(mesh: &str) -> (tempfile::TempDir, [String; 7]) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("mesh")).unwrap();
    fs::write(folder.path().join("mesh/a.yaml"), mesh).unwrap();
    let [mesh, state, join] = ["mesh", "state", "join"].map(|name| path(&folder, name));
    let call = ["init", "--config", &mesh, "--state", &state, "--join", &join].map(str::to_owned);
    (folder, call)
}

fn call<'a>(home: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    home.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn read(folder: &tempfile::TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

#[test]
fn every_workload_and_group_gets_a_join_directory() {
    let (folder, init) = home(MESH);
    let said = stdout(&call(&init, &[]));
    assert_eq!(said.lines().count(), 2, "{said}");
    let join = folder.path().join("join");
    for name in ["client", "reviews.shop"] {
        assert_eq!(mode(&join.join(name)), 0o700);
        assert_eq!(mode(&join.join(name).join("token")), 0o600);
        let roots = fs::read(join.join(name).join("root-cert.pem")).unwrap();
        assert_eq!(roots, fs::read(folder.path().join("state/ca/root-cert.pem")).unwrap());
    }
    assert!(!join.join("outside").exists(), "it has no identity");
    let state = path(&folder, "state");
    let client = claims(&state, &read(&folder, "join/client/token"));
    assert_eq!(
        client.identity().to_string(),
        "spiffe://cluster.local/ns/default/sa/client"
    );
    let reviews = claims(&state, &read(&folder, "join/reviews.shop/token")).grant;
    assert_eq!(reviews.bearer, Bearer::Group("reviews.shop".parse().unwrap()));
    assert_eq!(&*reviews.service_account.to_string(), "reviewer");
}

#[test]
fn a_second_run_changes_nothing() {
    let (folder, init) = home(MESH);
    stdout(&call(&init, &[]));
    // The volume may contain other files.
    fs::write(folder.path().join("join/client/other"), "stays").unwrap();
    let token = read(&folder, "join/client/token");
    let answer: Value = serde_json::from_str(&stdout(&call(&init, &["-o", "json"]))).unwrap();
    assert_eq!(answer[0]["name"], "client");
    assert_eq!(answer[1]["namespace"], "shop");
    assert_eq!(
        (&answer[0]["kind"], &answer[1]["kind"]),
        (&"workload".into(), &"group".into())
    );
    for made in answer.as_array().unwrap() {
        assert_eq!(made["token"], "kept", "{made}");
        assert!(!made.to_string().contains(&token), "no secret is printed");
    }
    assert_eq!(read(&folder, "join/client/token"), token);
    assert_eq!(read(&folder, "join/client/other"), "stays");
}

#[test]
fn old_and_foreign_tokens_are_replaced() {
    let (folder, init) = home(MESH);
    stdout(&call(&init, &["--only", "client"]));
    assert!(!folder.path().join("join/reviews.shop").exists());
    let (day, now) = (Duration::from_secs(24 * 3600), SystemTime::now());
    let signer = |state: &str| {
        let state = StateDir::open(folder.path().join(state)).unwrap();
        TokenSigner::load_or_create(&state, &"cluster.local".parse().unwrap()).unwrap()
    };
    let grant = |name: &str| TokenGrant {
        bearer: Bearer::Workload {
            name: name.parse().unwrap(),
            addresses: vec![],
        },
        service_account: "client".parse().unwrap(),
        labels: Default::default(),
    };
    let (ours, theirs) = (signer("state"), signer("other-state"));
    let young = ours.create(&grant("client"), day * 30, now - day * 14).unwrap();
    for (token, why) in [
        (String::new(), "empty"),
        (young[..40].to_owned(), "cut off"),
        (
            ours.create(&grant("client"), day * 30, now - day * 16).unwrap(),
            "half over",
        ),
        (ours.create(&grant("client"), day, now - day * 2).unwrap(), "expired"),
        (
            ours.create(&grant("else"), day * 30, now).unwrap(),
            "another workload's",
        ),
        (
            theirs.create(&grant("client"), day * 30, now).unwrap(),
            "another server's",
        ),
    ] {
        fs::write(folder.path().join("join/client/token"), &token).unwrap();
        let said = stdout(&call(&init, &["--only", "client", "--ttl", "12h"]));
        assert!(said.contains("token made"), "{why}: {said}");
        let made = claims(&path(&folder, "state"), &read(&folder, "join/client/token"));
        assert_eq!(made.lifetime(), day / 2, "{why}");
    }
    fs::write(folder.path().join("join/client/token"), &young).unwrap();
    fs::write(folder.path().join("join/client/root-cert.pem"), "another CA's").unwrap();
    assert!(stdout(&call(&init, &["--only", "client"])).contains("token kept"));
    assert!(read(&folder, "join/client/root-cert.pem").contains("BEGIN CERTIFICATE"));
}

#[test]
fn invalid_workloads_are_reported_and_the_others_provisioned() {
    let broken = "---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: ratings}
spec: {template: {serviceAcount: ratings}}
";
    let (folder, init) = home(&format!("{MESH}{broken}"));
    let output = run(&call(&init, &[]));
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(
        why.contains("a.yaml:19:19: error") && why.contains("serviceAccount"),
        "{why}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    // An error in a route does not affect workloads.
    let route = "---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hots: [a]}}
";
    fs::write(folder.path().join("mesh/a.yaml"), format!("{MESH}{route}")).unwrap();
    let output = run(&call(&init, &[]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("a.yaml:16:88: error"),
        "{}",
        text(&output.stderr)
    );
    fs::write(folder.path().join("mesh/a.yaml"), "kind: [").unwrap();
    assert_eq!(run(&call(&init, &[])).status.code(), Some(1));
}

#[test]
fn usage_errors_name_the_reason() {
    let (folder, init) = home(MESH);
    for name in ["nobody", "reviews", "outside"] {
        let why = fails(1, &call(&init, &["--only", name]));
        assert!(why.contains(&format!("{name}.default")), "{why}");
    }
    let why = fails(2, &["init", "--config", &path(&folder, "nowhere"), "--join", "j"]);
    assert!(why.contains("nowhere"), "{why}");
    fails(2, &call(&init, &["--owner", "root"]));
    fails(2, &["init", "--config", &path(&folder, "mesh")]);
    let twice = MESH.replace("{name: reviews, namespace: shop}", "{name: client}");
    fs::write(folder.path().join("mesh/a.yaml"), twice).unwrap();
    let why = fails(1, &call(&init, &[]));
    assert!(why.contains("client.default") && why.contains("WorkloadGroup"), "{why}");
    fs::write(folder.path().join("mesh/a.yaml"), MESH).unwrap();
    let (mesh, state, file) = (
        path(&folder, "mesh"),
        path(&folder, "state"),
        path(&folder, "mesh/a.yaml"),
    );
    let why = fails(1, &["init", "--config", &mesh, "--state", &state, "--join", &file]);
    assert!(
        why.contains("cannot create the directory") && why.contains(&file),
        "{why}"
    );
}
