//! `topsail inject` with arbitrary Compose files, for each kind of Compose: all diagnostics point into the
//! file, and if there are no errors the output is valid YAML whose objects the control plane accepts.

#![no_main]

use std::io;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use topsail::api::{ReadOptions, read};
use topsail::compose::{self, Choice, Override};
use topsail::diag::{Severity, SourceText, render};
use topsail::source::document::split;
use topsail::source::node;

/// The file that the input may extend and include.
const OTHER: &str = "services: {base: {image: redis, ports: [\"${PORT:-1}:80\"], networks: {n: {aliases: [b]}}}}\n";

fuzz_target!(|file: &[u8]| {
    let text = String::from_utf8_lossy(file);
    for takes_back in [false, true] {
        let mut load = |path: &Path| match path.to_str() {
            Some("docker-compose.yml") => Ok(text.to_string()),
            Some("other.yml") => Ok(OTHER.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let project = compose::read(&[PathBuf::from("docker-compose.yml")], &mut load);
        let plan = compose::plan(project, Choice::All, takes_back, &|_| None);
        for problem in &plan.problems {
            if let Some(place) = problem.place() {
                assert!(place.source.text.get(place.span.clone()).is_some(), "{problem:?}");
            }
            assert!(!render::text(problem, false).is_empty());
        }
        if plan.has_errors() {
            continue;
        }
        let settings = Override {
            image: "topsail".to_owned(),
            sidecar_image: "topsail".to_owned(),
            dataplane: "rust".to_owned(),
            config: "./mesh".to_owned(),
        };
        let written = compose::additions(&plan, &settings).expect("the override can be written");
        for document in split(&SourceText::new("override.yml".to_owned(), written)) {
            let parsed = node::parse(&document);
            assert!(
                parsed.root.is_some() && parsed.diagnostics.is_empty(),
                "{}",
                document.text()
            );
        }
        for (name, text) in compose::objects(&plan) {
            for document in split(&SourceText::new(name, text)) {
                let found = read(&document, &ReadOptions::default()).diagnostics;
                let errors = found.iter().filter(|problem| problem.severity == Severity::Error);
                assert_eq!(errors.count(), 0, "{}", document.text());
            }
        }
    }
});
