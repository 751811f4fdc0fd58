//! Module dependencies: checks the imports of every source file against a table.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and the modules it may use. Data flows in one direction: a module never uses a later
/// one.
const MODULES: &[(&str, &[&str])] = &[
    ("name", &[]),
    ("clock", &[]),
    ("diag", &["name"]),
    ("source", &["diag", "name"]),
    ("api", &["source", "diag", "name"]),
    ("compose", &["api", "source", "diag", "name"]),
    ("mesh", &["api", "source", "diag", "name"]),
    ("ir", &["mesh", "diag", "name"]),
    ("pki", &["clock", "name"]),
    ("tls", &["pki", "clock", "name"]),
    ("xds", &["ir", "mesh", "tls", "diag", "clock", "name"]),
    ("telemetry", &["diag", "clock", "name"]),
    (
        "control",
        &[
            "xds",
            "ir",
            "mesh",
            "api",
            "source",
            "pki",
            "tls",
            "telemetry",
            "diag",
            "clock",
            "name",
        ],
    ),
    ("admin", &["control", "xds", "ir", "telemetry", "diag", "clock", "name"]),
    ("lifecycle", &["telemetry", "clock"]),
    ("proxy", &["xds", "tls", "telemetry", "lifecycle", "clock", "name"]),
    ("envoy", &[]),
    ("interception", &[]),
    (
        "cli",
        &[
            "proxy",
            "admin",
            "lifecycle",
            "control",
            "xds",
            "ir",
            "mesh",
            "api",
            "source",
            "pki",
            "tls",
            "telemetry",
            "envoy",
            "interception",
            "compose",
            "diag",
            "clock",
            "name",
        ],
    ),
];

/// Protobuf is confined to where the protocol is spoken.
const PROTOBUF_PLACES: &[&str] = &["xds", "proxy/config"];

#[test]
fn modules_use_only_earlier_modules() {
    let table: BTreeMap<&str, BTreeSet<&str>> = MODULES
        .iter()
        .map(|(module, uses)| (*module, uses.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: the module `{module}` is not in the table", file.display()));
            continue;
        };
        for (line, used) in uses(&file) {
            if used != module && !allowed.contains(used.as_str()) {
                wrong.push(format!("{}:{line}: `{module}` uses `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn protobuf_is_confined() {
    let mut wrong = Vec::new();
    for file in sources() {
        let speaks = PROTOBUF_PLACES
            .iter()
            .any(|place| file.to_string_lossy().contains(&format!("/src/{place}")));
        if speaks {
            continue;
        }
        for (number, line) in code_lines(&file) {
            if ["envoy_types", "prost::", "prost_reflect", "xds::pb"]
                .iter()
                .any(|door| line.contains(door))
            {
                wrong.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_have_no_clock_and_no_sockets() {
    let pure = ["name", "diag", "api", "compose", "mesh", "ir"];
    let impure = [
        "SystemTime::now",
        "Instant::now",
        "tokio::",
        "std::net::Tcp",
        "std::fs::",
        "async fn",
        "Mutex<",
        "RwLock<",
    ];
    let mut wrong = Vec::new();
    for file in sources()
        .into_iter()
        .filter(|file| pure.contains(&module_of(file).as_str()))
    {
        for (number, line) in code_lines(&file) {
            if let Some(found) = impure.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {found}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false if path.extension().is_some_and(|ext| ext == "rs") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The top-level module of a file.
fn module_of(file: &Path) -> String {
    let below = file
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Lines of code before the unit tests, which may use anything.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let is_test = file.file_name().is_some_and(|name| name == "tests.rs") || file.iter().any(|part| part == "tests");
    let text = if is_test {
        String::new()
    } else {
        fs::read_to_string(file).unwrap()
    };
    let lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.to_owned()));
    let code = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    code.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

/// The modules a file refers to as `crate::<module>`, with line numbers.
fn uses(file: &Path) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code_lines(file) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let name = &rest[..end];
            if !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_') {
                found.push((number, name.to_owned()));
            }
        }
    }
    found
}
