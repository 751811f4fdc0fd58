//! The commands as users meet them: the built binary, its output and its exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use topsail::envoy::{Finder, validate};
use topsail::pki::{StateDir, TokenClaims, TokenSigner, TrustBundle};

fn topsail(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topsail"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOPSAIL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("COLUMNS").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    topsail(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs a command that has to be fine: its standard output.
fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Runs a command that has to end with `code` and to say why: its standard error.
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{arguments:?}: {stderr}");
    stderr
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn help_teaches() {
    for command in ["", "bootstrap", "token create"] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        insta::assert_snapshot!(format!("help {command}").trim().replace(' ', "_"), stdout(&arguments));
    }
}

#[test]
fn the_version_is_the_crates() {
    assert_eq!(
        stdout(&["--version"]),
        format!("topsail {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_calls_end_with_2_and_name_the_argument() {
    assert_eq!(run(&[]).status.code(), Some(2));
    let needs: [(&[&str], &str); 8] = [
        (&["sreve"], "sreve"),
        (&["bootstrap"], "--workload"),
        (&["bootstrap", "--workload", "a_b"], "a_b"),
        (&["bootstrap", "--workload", "a", "--server", "nowhere"], "HOST:PORT"),
        (&["bootstrap", "--workload", "a", "--ca", "ca.pem"], "--token-file"),
        (&["bootstrap", "--workload", "a", "--token-file", "token"], "--ca"),
        (&["token", "create", "--workload", "a", "--ttl", "1"], "12h"),
        (&["token", "create", "--workload", "a", "--label", "app"], "KEY=VALUE"),
    ];
    for (arguments, needle) in needs {
        let stderr = fails(2, arguments);
        assert!(stderr.contains(needle), "{arguments:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
    }
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    for arguments in [
        vec!["--help"],
        vec!["token", "create", "--workload", "a", "--state", &state],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = topsail(&arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = topsail(&["token", "create", "--workload", "a", "--state", &path(&folder, "state")])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: "), "{}", text(&output.stderr));
}

fn claims(state: &str, token: &str) -> TokenClaims {
    let state = StateDir::open(state).unwrap();
    let signer = TokenSigner::load_or_create(&state, &"cluster.local".parse().unwrap()).unwrap();
    signer.verify(token, SystemTime::now()).unwrap()
}

#[test]
fn a_token_says_what_was_asked_for() {
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
    assert_eq!(claims.grant.workload.to_string(), "reviews-v1.shop");
    assert_eq!(claims.grant.labels.len(), 2);
    assert_eq!(claims.grant.addresses.len(), 2);
    assert_eq!(
        claims.expires_at.duration_since(claims.issued_at).unwrap(),
        Duration::from_secs(12 * 3600)
    );
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
fn a_state_directory_that_cannot_be_is_named() {
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

#[test]
fn a_bootstrap_on_the_servers_host_makes_its_token() {
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
    assert_eq!(claims.grant.addresses[0].to_string(), "127.0.0.5");
    assert!(!document.to_string().contains(&token), "the bootstrap holds no secret");
    assert!(
        document
            .to_string()
            .contains("spiffe://cluster.local/ns/topsail-system/sa/topsail")
    );
    let pointer = fs::read_to_string(folder.path().join("state/tokens/reviews-v1.shop.token.envoy.json")).unwrap();
    assert!(pointer.contains(token_file.to_str().unwrap()), "{pointer}");
}

#[test]
fn a_bootstrap_elsewhere_is_made_of_files() {
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
    assert!(document.contains(&format!("{token}.envoy.json")));
}

#[tokio::test]
async fn envoy_takes_every_kind_of_bootstrap() {
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
