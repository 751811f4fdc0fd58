//! Whole meshes: from YAML to the resources of each proxy.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use topsail::api::{self, ReadOptions};
use topsail::diag::{Severity, SourceText};
use topsail::ir::NodeView;
use topsail::ir::build::build;
use topsail::ir::node::InterceptionMode;
use topsail::mesh::directory::{Change, Directory, Options};
use topsail::mesh::service::{Address, Locality};
use topsail::mesh::{Labels, Mesh};
use topsail::source::document::split;
use topsail::source::tree::Tree;
use topsail::xds::{Resource, encode};

/// Services of every protocol and resolution, with routing and policies.
const EVERYTHING: &str = include_str!("everything.yaml");

/// The resources of every workload in the example.
pub(crate) fn bookinfo() -> Vec<(String, Vec<Resource>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bookinfo/config");
    let tree = Tree::scan(&folder.as_path().into());
    let mut texts: Vec<String> = tree
        .files()
        .map(|file| fs::read_to_string(&*file.origin).unwrap())
        .collect();
    texts.sort();
    let mesh = mesh(&texts);
    let workloads = mesh.workloads().map(|workload| {
        let Address::Ip(ip) = workload.address else {
            panic!("{} has no address", workload.id);
        };
        let node = NodeView {
            namespace: workload.id.namespace.clone(),
            labels: workload.labels.clone(),
            ..node(InterceptionMode::None, ip)
        };
        (workload.id.to_string(), resources(&mesh, &node))
    });
    workloads.collect()
}

/// The resources of proxies in every interception mode, in a mesh that uses all features.
pub(crate) fn everything() -> Vec<(String, Vec<Resource>)> {
    let mesh = mesh(&[EVERYTHING.to_owned()]);
    let modes = [
        InterceptionMode::Redirect,
        InterceptionMode::Tproxy,
        InterceptionMode::None,
    ];
    let addresses: [IpAddr; 2] = ["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let nodes = modes
        .into_iter()
        .flat_map(|mode| addresses.map(|address| node(mode, address)));
    nodes
        .map(|node| {
            let name = format!("{:?} at {:?}", node.mode, node.addresses);
            (name, resources(&mesh, &node))
        })
        .collect()
}

fn node(mode: InterceptionMode, address: IpAddr) -> NodeView {
    let labels = [("app", "client")].map(|(key, value)| (Arc::from(key), Arc::from(value)));
    NodeView {
        namespace: "default".parse().unwrap(),
        labels: Arc::new(Labels::from(labels)),
        addresses: vec![address],
        locality: Locality::default(),
        mode,
    }
}

/// The mesh defined by files without errors.
fn mesh(texts: &[String]) -> Mesh {
    let mut changes = Vec::new();
    for text in texts {
        for document in split(&SourceText::new("mesh.yaml", text.as_str())) {
            let read = api::read(&document, &ReadOptions::default());
            assert!(read.diagnostics.is_empty(), "{:#?}", read.diagnostics);
            changes.extend(read.objects.into_iter().map(|object| Change::Put(Arc::new(object))));
        }
    }
    let applied = Directory::new(Options::default()).apply(&changes);
    let mistakes = applied.directory.diagnostics();
    let errors = mistakes.iter().filter(|mistake| mistake.severity == Severity::Error);
    assert_eq!(errors.map(|error| &*error.message).collect::<Vec<_>>(), [""; 0]);
    applied.mesh
}

fn resources(mesh: &Mesh, node: &NodeView) -> Vec<Resource> {
    let config = build(mesh, node).config;
    let clusters = config.clusters.values().map(|cluster| encode::cluster(cluster));
    let listeners = config.listeners.values().map(|listener| encode::listener(listener));
    let routes = config.routes.values().map(|routes| encode::route(routes));
    clusters.chain(listeners).chain(routes).collect()
}
