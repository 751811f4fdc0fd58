//! `topsail render`.

use std::fs;

use serde_json::Value;

use crate::run::{fails, path, run, stdout, text};

const BOOKINFO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bookinfo/config");

fn render(arguments: &[&str]) -> Value {
    let all = ["render", "--config", BOOKINFO, "--mode", "NONE", "-o", "json"];
    serde_json::from_str(&stdout(&[&all[..], arguments].concat())).unwrap()
}

fn names<'a>(resources: &'a Value, field: &str) -> Vec<&'a str> {
    let resources = resources.as_array().unwrap();
    resources
        .iter()
        .map(|resource| resource[field].as_str().unwrap())
        .collect()
}

#[test]
fn all_resources_of_a_proxy_are_printed() {
    let all = render(&["--workload", "productpage-v1"]);
    let parts: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(parts, ["listeners", "routes", "clusters", "endpoints", "secrets"]);
    assert!(names(&all["clusters"], "name").contains(&"outbound|9080|v3|reviews.default.svc.cluster.local"));
    assert!(names(&all["endpoints"], "cluster_name").contains(&"outbound|9080|v3|reviews.default.svc.cluster.local"));
    assert_eq!(names(&all["secrets"], "name"), ["ROOTCA", "default"]);
    for (kind, part) in ["lds", "rds", "cds", "eds", "sds"].into_iter().zip(parts) {
        assert_eq!(
            render(&["--workload", "productpage-v1.default", "--type", kind]),
            all[part],
            "{kind}"
        );
    }
}

#[test]
fn output_is_deterministic() {
    let arguments = [
        "render",
        "--config",
        BOOKINFO,
        "--workload",
        "reviews-v2.default",
        "--mode",
        "NONE",
    ];
    assert_eq!(stdout(&arguments), stdout(&arguments));
    let yaml: Value = serde_saphyr::from_str(&stdout(&arguments)).unwrap();
    assert_eq!(yaml, render(&["--workload", "reviews-v2.default"]));
}

#[test]
fn flags_describe_workloads_without_an_entry() {
    let render = [
        "render",
        "--config",
        BOOKINFO,
        "--workload",
        "client.default",
        "--type",
        "lds",
    ];
    let output = run(&render);
    assert!(
        output.status.success() && text(&output.stderr).contains("no WorkloadEntry client.default"),
        "{output:?}"
    );
    let output = run(&[&render[..], &["--label", "app=client", "--ip", "127.0.9.9"]].concat());
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).contains("virtualOutbound"), "{output:?}");
}

#[test]
fn errors_in_the_directory_are_mentioned() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), "a: [").unwrap();
    let output = run(&[
        "render",
        "--config",
        folder.path().to_str().unwrap(),
        "--workload",
        "a",
        "--ip",
        "::1",
    ]);
    assert!(
        output.status.success() && text(&output.stderr).contains("topsail check"),
        "{output:?}"
    );
    let missing = path(&folder, "missing");
    let stderr = fails(2, &["render", "--config", &missing, "--workload", "a"]);
    assert!(stderr.contains(&missing), "{stderr}");
}
