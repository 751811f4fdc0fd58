//! Arbitrary files in a configuration directory: all diagnostics can be rendered, and the resulting resources
//! satisfy Envoy's validation rules and are accepted by the bundled proxy.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use topsail::control::{Offline, Reading};
use topsail::diag::render;
use topsail::ir::node::InterceptionMode;
use topsail::name::TrustDomain;
use topsail::source::Root;
use topsail::xds::ResourceType;

/// A workload to render for, and a service that the input can refer to.
const SURROUNDINGS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web, namespace: default}
spec: {address: 127.0.1.1, labels: {app: web, version: v1}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}, {name: tcp-db, port: 3306}]
  selector: {app: web}
";

fuzz_target!(|file: &[u8]| {
    let directory = tempfile::tempdir().expect("a directory for the files");
    let written = fs::write(directory.path().join("a.yaml"), SURROUNDINGS);
    written
        .and_then(|()| fs::write(directory.path().join("b.yaml"), file))
        .expect("the directory takes files");
    let reading = Reading {
        root: Root::new([directory.path().to_owned()]),
        mesh_config: None,
        lenient: false,
        strict: false,
    };
    let offline = Offline::read(&reading, None, &TrustDomain::default());
    for diagnostic in offline.diagnostics() {
        assert!(!render::text(&diagnostic, false).is_empty());
    }
    let workload = "web.default".parse().expect("a workload's name");
    for mode in [InterceptionMode::Redirect, InterceptionMode::None] {
        let Some(view) = offline.view(&workload, mode) else {
            continue;
        };
        let snapshot = offline.snapshot(&view);
        for kind in ResourceType::ALL {
            for resource in snapshot.set(kind).values() {
                if let Err(why) = topsail::proxy::takes(resource) {
                    panic!("{kind} {}: {why}", resource.name);
                }
            }
        }
    }
});
