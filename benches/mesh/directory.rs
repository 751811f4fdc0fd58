//! Generated configuration directories.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Distribution of services over ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Twenty services per port.
    Spread,
    /// All services on one port.
    OnePort,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Spread => "20 to a port",
            Layout::OnePort => "all on one port",
        })
    }
}

/// A directory with a ServiceEntry, a DestinationRule and a VirtualService per service, each in its
/// own file.
pub(crate) struct Directory {
    dir: tempfile::TempDir,
    services: usize,
    layout: Layout,
}

impl Directory {
    pub(crate) fn empty() -> Self {
        Self::generate(0, Layout::Spread)
    }

    pub(crate) fn generate(services: usize, layout: Layout) -> Self {
        let directory = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            services,
            layout,
        };
        fs::create_dir_all(directory.config()).expect("a directory");
        for service in 0..services {
            directory.write(&format!("service-{service}.yaml"), &directory.service_entry(service));
            directory.write(&format!("rule-{service}.yaml"), &destination_rule(service));
            directory.write(&format!("route-{service}.yaml"), &virtual_service(service, 0));
        }
        directory
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Changes a VirtualService; returns when its file was closed.
    pub(crate) fn edit(&self, edit: usize) -> SystemTime {
        let service = edit * 7919 % self.services;
        self.write(&format!("route-{service}.yaml"), &virtual_service(service, edit + 1));
        SystemTime::now()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.config().join(name), text).expect("a file");
    }

    fn service_entry(&self, service: usize) -> String {
        let port = match self.layout {
            Layout::Spread => 20_000 + service / 20,
            Layout::OnePort => 20_000,
        };
        let address = |version: usize| format!("10.{version}.{}.{}", service / 250, service % 250 + 1);
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: svc-{service}, namespace: bench}}
spec:
  hosts: [svc-{service}.bench.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {{number: {port}, name: http, protocol: HTTP}}
  endpoints:
  - {{address: {}, labels: {{version: v1}}, serviceAccount: svc-{service}}}
  - {{address: {}, labels: {{version: v2}}, serviceAccount: svc-{service}}}
",
            address(1),
            address(2)
        )
    }
}

fn destination_rule(service: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: svc-{service}, namespace: bench}}
spec:
  host: svc-{service}
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"
    )
}

fn virtual_service(service: usize, salt: usize) -> String {
    // Every edit must change the file.
    let weight = if salt == 0 { 1 } else { salt % 98 + 2 };
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: svc-{service}, namespace: bench}}
spec:
  hosts: [svc-{service}]
  http:
  - match: [{{uri: {{prefix: /v2}}}}]
    route:
    - destination: {{host: svc-{service}, subset: v2}}
  - route:
    - destination: {{host: svc-{service}, subset: v1}}
      weight: {weight}
    - destination: {{host: svc-{service}, subset: v2}}
      weight: {}
",
        100 - weight
    )
}
