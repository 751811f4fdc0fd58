//! Golden tests of the translation: YAML in, Envoy resources out; both are reviewed in the diff.
//!
//! Each directory next to this file is a case: `case.yaml` describes it and names the workload, `input.yaml`
//! or `input/` is the configuration directory, and the other files are the output in the format of `topsail
//! render` and `topsail check`. Resources that a proxy of an empty directory receives as well are omitted;
//! the case `nothing` shows them.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the output of each case; review the diff before
//! committing it.

#![cfg(test)]

mod case;
mod compare;
#[path = "../envoy_accepts/validate.rs"]
mod validate;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use topsail::xds::json::Printer;
use topsail::xds::{ResourceType, rules};

use crate::case::Case;
use crate::validate::{Statics, envoys, validate};

/// Relative to the package, which is the working directory of tests, so that diagnostics contain relative
/// paths.
const FOLDER: &str = "tests/golden";

#[test]
fn output_of_every_case_is_as_checked_in() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = Vec::new();
    for folder in folders() {
        let made = Case::load(&folder).files();
        if update {
            compare::write(&folder, &made);
        }
        differences.extend(compare::differences(&folder, &made));
    }
    assert!(
        differences.is_empty(),
        "\n{}\nIf this is what should be: UPDATE_GOLDEN=1 cargo test --test golden",
        differences.concat()
    );
}

#[test]
fn the_bundled_proxy_accepts_every_case() {
    let snapshots = folders().into_iter().map(|folder| Case::load(&folder).snapshot());
    let mut refused: Vec<_> = snapshots
        .flat_map(|snapshot| {
            let kinds = ResourceType::ALL.map(|kind| snapshot.set(kind).clone());
            let all = kinds.iter().flat_map(|set| set.values());
            all.filter_map(|resource| topsail::proxy::takes(resource).err())
                .collect::<Vec<_>>()
        })
        .collect();
    refused.sort();
    refused.dedup();
    assert_eq!(refused, [""; 0]);
}

#[test]
fn envoy_accepts_every_case() {
    let printer = Printer::new().unwrap();
    let mut statics = Statics::default();
    let mut port = 10_000;
    for folder in folders() {
        let snapshot = Case::load(&folder).snapshot();
        for kind in ResourceType::ALL {
            for resource in snapshot.set(kind).values() {
                assert_eq!(
                    rules::check(resource),
                    Ok(()),
                    "{}: {}",
                    folder.display(),
                    resource.name
                );
                let json = printer.to_json(kind.type_url(), &resource.body).unwrap();
                port += 1;
                statics.add(kind, apart(json, &folder, port));
            }
        }
    }
    for envoy in envoys() {
        if let Err(words) = validate(&envoy, &statics) {
            panic!("{}: {words}", envoy.display());
        }
    }
}

/// Gives a resource a name and port of its own, so that the resources of all cases fit into one Envoy.
fn apart(mut resource: Value, folder: &Path, port: u16) -> Value {
    for field in ["name", "cluster_name"] {
        if let Some(Value::String(name)) = resource.get_mut(field) {
            *name = format!("{}: {name}", folder.display());
        }
    }
    if let Some(at) = resource.pointer_mut("/address/socket_address/port_value") {
        *at = json!(port);
    }
    resource
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "there are no cases in {FOLDER}");
    folders
}
