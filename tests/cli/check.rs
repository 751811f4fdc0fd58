//! `topsail check`.

use std::fs;

use serde_json::Value;

use crate::run::{fails, path, run, stdout, text};
use crate::serve::Server;

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
";

const RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
";

const ROUTE: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v2}
";

/// A directory with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[tokio::test]
async fn state_directories_and_tokens_are_ignored_by_all_commands() {
    let folder = folder(&[("config/a.yaml", SERVICE)]);
    let config = path(&folder, "config");
    let [state, other] = ["config/state", "config/of-another-server"].map(|name| path(&folder, name));
    let bootstrap = |state: &str, more: &[&str]| {
        let arguments = ["bootstrap", "--workload", "a", "--state", state];
        stdout(&[&arguments, more].concat())
    };
    let document = bootstrap(&state, &[]);
    fs::write(folder.path().join("config/state/envoy.yaml"), document).unwrap();
    bootstrap(&other, &["--token-file", &path(&folder, "config/a.token")]);

    let (code, findings, summary) = check(&[&config]);
    assert_eq!((code, findings), (0, vec![]), "{summary}");
    assert!(summary.ends_with("in 1 file\n"), "{summary}");
    let rendered = run(&["render", "--config", &config, "--workload", "a", "--ip", "127.0.0.1"]);
    assert_eq!(text(&rendered.stderr), "");
    let server = Server::start(&folder, &["--state", &state]);
    server.ready().await;
    assert_eq!(server.get("/api/v1/diagnostics").await, (200, "[]".to_owned()));
}

#[test]
fn a_state_directory_given_explicitly_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let state = path(&folder, "state");
    let document = stdout(&["bootstrap", "--workload", "a", "--state", &state]);
    fs::write(folder.path().join("state/envoy.yaml"), document).unwrap();
    let (code, findings, _) = check(&[&state]);
    assert_eq!((code, findings.len()), (1, 1), "{findings:?}");
}

/// Exit code, diagnostics as JSON, and the summary.
fn check(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let output = run(&[&["check", "-o", "json"], arguments].concat());
    let findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), findings, text(&output.stderr).to_owned())
}

#[test]
fn unresolved_references_are_reported_with_their_line() {
    let folder = folder(&[("mesh/a.yaml", SERVICE), ("mesh/b.yaml", RULE), ("mesh/c.yaml", ROUTE)]);
    let output = run(&["check", &path(&folder, "mesh")]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(
        shown.contains(&format!("{}:8:", path(&folder, "mesh/c.yaml"))),
        "{shown}"
    );
    assert!(
        shown.contains("error[IST0101]") && shown.contains("subset: v2"),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let summary = text(&output.stderr);
    assert!(
        summary.starts_with("1 error, 1 warning in 3 files") || summary.starts_with("1 error in 3 files"),
        "{summary}"
    );

    fs::write(folder.path().join("mesh/c.yaml"), ROUTE.replace("v2", "v1")).unwrap();
    let (code, findings, _) = check(&[&path(&folder, "mesh")]);
    assert!(
        code == 0 && findings.iter().all(|finding| finding["severity"] != "error"),
        "{findings:?}"
    );
}

#[test]
fn all_problems_of_all_files_are_reported() {
    let broken = "a: [\n";
    let typo = ROUTE.replace("subset: v2", "subst: v2");
    let folder = folder(&[
        ("a.yaml", SERVICE),
        ("b.yaml", broken),
        ("c.yaml", &typo),
        ("d.yaml", SERVICE),
        ("e.yaml", "\u{0}"),
    ]);
    let (code, findings, _) = check(&[folder.path().to_str().unwrap()]);
    assert_eq!(code, 1);
    for (code, file) in [("TS0001", "b.yaml"), ("TS0002", "c.yaml"), ("TS0008", "d.yaml")] {
        let is = |finding: &&Value| finding["code"] == code && finding["file"].as_str().unwrap().ends_with(file);
        assert!(findings.iter().any(|finding| is(&finding)), "{code}: {findings:#?}");
    }
    let (code, lenient, _) = check(&["--lenient", &path(&folder, "a.yaml"), &path(&folder, "c.yaml")]);
    assert_eq!(code, 0, "{lenient:#?}");
    assert!(
        lenient
            .iter()
            .any(|finding| finding["code"] == "TS0002" && finding["severity"] == "warning"),
        "{lenient:#?}"
    );
    let (code, ..) = check(&[
        "--fail-on",
        "warning",
        "--lenient",
        &path(&folder, "a.yaml"),
        &path(&folder, "c.yaml"),
    ]);
    assert_eq!(code, 1);
}

#[test]
fn unresolved_references_of_single_files_are_info() {
    let folder = folder(&[("mesh/a.yaml", SERVICE), ("mesh/b.yaml", RULE), ("new/c.yaml", ROUTE)]);
    let (new, mesh) = (path(&folder, "new/c.yaml"), path(&folder, "mesh"));
    let (code, findings, _) = check(&[&new]);
    let unresolved: Vec<_> = findings.iter().filter(|finding| finding["code"] == "IST0101").collect();
    assert!(code == 0 && !unresolved.is_empty(), "{findings:?}");
    assert!(
        unresolved.iter().all(|finding| finding["severity"] == "info"),
        "{findings:?}"
    );

    let (code, findings, summary) = check(&[&new, "--config", &mesh]);
    assert_eq!(code, 1, "{findings:?}");
    assert!(summary.ends_with("in 1 file\n"), "{summary}");
    fs::write(&new, ROUTE.replace("v2", "v1")).unwrap();
    assert_eq!(check(&[&new, "--config", &mesh]).0, 0);
}

#[test]
fn files_replace_those_with_the_same_objects() {
    let folder = folder(&[
        ("mesh/a.yaml", SERVICE),
        ("mesh/b.yaml", RULE),
        ("mesh/c.yaml", ROUTE),
        ("new/b.yaml", &RULE.replace("name: v1", "name: v2")),
    ]);
    let mesh = path(&folder, "mesh");
    assert_eq!(check(&[&mesh]).0, 1);
    let (code, findings, _) = check(&[&path(&folder, "new/b.yaml"), "--config", &mesh]);
    assert!(
        code == 0 && findings.iter().all(|finding| finding["code"] != "TS0008"),
        "{findings:?}"
    );
}

#[test]
fn mesh_config_is_checked() {
    let folder = folder(&[
        ("mesh/a.yaml", SERVICE),
        ("mesh.yaml", "outboundTrafficPolicy: {mode: REGISTRY_ONY}\n"),
    ]);
    let (code, findings, _) = check(&[&path(&folder, "mesh"), "--mesh-config", &path(&folder, "mesh.yaml")]);
    let file = path(&folder, "mesh.yaml");
    assert!(
        code == 1 && findings.iter().any(|finding| finding["file"] == file.as_str()),
        "{findings:?}"
    );
}

#[test]
fn sarif_has_a_run_with_results() {
    let folder = folder(&[("mesh/c.yaml", ROUTE)]);
    let output = run(&["check", "-o", "sarif", &path(&folder, "mesh")]);
    let sarif: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&sarif["version"], &sarif["runs"][0]["results"][0]["ruleId"]),
        (&"2.1.0".into(), &"IST0101".into())
    );
}

#[test]
fn unreadable_paths_are_usage_errors() {
    let folder = folder(&[("a.yaml", SERVICE)]);
    let (here, missing) = (path(&folder, "a.yaml"), path(&folder, "missing"));
    for arguments in [
        &["check", &missing][..],
        &["check", &here, "--config", &missing],
        &["check", &here, "--mesh-config", &missing],
    ] {
        let stderr = fails(2, arguments);
        assert!(stderr.contains(&missing), "{stderr}");
    }
    let stderr = fails(2, &["check", "/dev/null"]);
    assert!(
        stderr.contains("/dev/null: not a regular file or directory"),
        "{stderr}"
    );
}

#[test]
fn bookinfo_has_no_findings() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bookinfo/config");
    assert_eq!(stdout(&["check", config, "--fail-on", "warning"]), "");
}
