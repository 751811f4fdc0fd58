//! Envoy takes every resource that the encoders make, in silence; and what it would refuse, our own rules
//! refuse before.
//!
//! `--mode validate` over a bootstrap with the resources in it gives the verdict that they would get over
//! xDS, and prints every warning.

#![cfg(test)]

mod clusters;
mod listeners;
mod meshes;
mod routes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use topsail::envoy::Finder;
use topsail::xds::json::Printer;
use topsail::xds::{Resource, ResourceType, rules};

/// The oldest Envoy that is supported.
const OLDEST: &str = "1.36.2";

#[test]
fn clusters_are_accepted() {
    accepted(&clusters::all());
}

#[test]
fn listeners_are_accepted() {
    accepted(&listeners::all());
}

#[test]
fn routes_are_accepted() {
    accepted(&routes::all());
}

#[test]
fn what_the_proxies_of_bookinfo_are_sent_is_accepted() {
    sets_are_accepted(&meshes::bookinfo());
}

#[test]
fn what_proxies_of_every_mode_are_sent_is_accepted() {
    sets_are_accepted(&meshes::everything());
}

#[test]
fn what_envoy_refuses_is_refused_before() {
    let broken = [clusters::broken(), listeners::broken(), routes::broken()].concat();
    let envoy = newest();
    let disagreed = broken.iter().filter_map(|resource| {
        let (theirs, ours) = (validate(&envoy, std::slice::from_ref(resource)), rules::check(resource));
        (theirs.is_ok() || ours.is_ok()).then(|| format!("{}: Envoy {theirs:?}, we {ours:?}", resource.name))
    });
    assert_eq!(disagreed.collect::<Vec<_>>(), [""; 0]);
}

/// Every resource keeps the rules, and both Envoys take all of them without a word.
fn accepted(resources: &[Resource]) {
    for resource in resources {
        assert_eq!(rules::check(resource), Ok(()), "{}", resource.name);
    }
    let oldest = finder().release(OLDEST, &say).unwrap();
    for envoy in [newest(), oldest] {
        if let Err(words) = validate(&envoy, resources) {
            panic!("{}: {words}", envoy.display());
        }
    }
}

/// As [`accepted`], for what several proxies are sent.
fn sets_are_accepted(sets: &[(String, Vec<Resource>)]) {
    for (proxy, resources) in sets {
        println!("{proxy}: {} resources", resources.len());
        accepted(resources);
    }
}

/// What Envoy says, if it says anything.
fn validate(envoy: &Path, resources: &[Resource]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.json");
    fs::write(&path, bootstrap(resources).to_string()).unwrap();
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--disable-hot-restart", "--concurrency", "1"])
        .args(["--log-level", "warning", "--reject-unknown-dynamic-fields", "-c"])
        .arg(&path)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    // Said of every bootstrap without an overload manager.
    let words: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains("no configured limit"))
        .collect();
    if output.status.success() && words.is_empty() {
        return Ok(());
    }
    Err(words.join("\n"))
}

fn newest() -> PathBuf {
    finder().find(&say).unwrap()
}

fn finder() -> Finder {
    Finder::from_env()
}

fn say(text: &str) {
    eprintln!("{text}");
}

/// A bootstrap with the resources; route configurations, which cannot stand alone, each in a listener.
fn bootstrap(resources: &[Resource]) -> Value {
    let printer = Printer::new().unwrap();
    let of = |kind| {
        let print = |resource: &Resource| printer.to_json(resource.kind.type_url(), &resource.body).unwrap();
        resources
            .iter()
            .filter(|r| r.kind == kind)
            .map(print)
            .collect::<Vec<_>>()
    };
    let mut listeners = of(ResourceType::Listener);
    let configs = of(ResourceType::Route).into_iter().zip(20_000..);
    listeners.extend(configs.map(|(config, port)| listeners::around(&config, port)));
    let mut clusters = of(ResourceType::Cluster);
    clusters.push(json!({"name": "xds", "type": "STATIC", "connect_timeout": "1s"}));
    json!({
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
        "static_resources": {"clusters": clusters, "listeners": listeners},
    })
}
