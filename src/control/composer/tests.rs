//! A composer over a directory that is edited, with restarts in between.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::control::identity::Grant;
use crate::control::roster::Admission;
use crate::ir::ResourceName;
use crate::mesh::Labels;
use crate::mesh::config::{MeshConfig, OutboundPolicy};
use crate::name::TrustDomain;
use crate::pki::{Ca, IssueOptions, StateDir};
use crate::xds::node::NodeClaim;
use crate::xds::pb::core::Node;
use crate::xds::resource::ResourceType;
use crate::xds::snapshot::Snapshot;

const REGISTRY_ONLY: &str = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";

/// A server without sockets.
struct Server {
    directory: tempfile::TempDir,
    with_file: bool,
    composer: Composer,
}

impl Server {
    fn new(with_file: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("mesh")).unwrap();
        let composer = composer(directory.path().to_owned(), with_file);
        Self {
            directory,
            with_file,
            composer,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Reads everything, as at the start.
    fn look(&mut self) {
        if let Some(root) = self.composer.reading.mesh_config.clone() {
            self.composer.take_mesh_config(&Tree::scan(&root));
        }
        let tree = Tree::scan(&self.composer.reading.root);
        let all = tree.files().map(|file| file.origin.clone()).collect();
        self.composer.take(tree, all);
    }

    fn restart(&mut self) {
        self.composer = composer(self.directory.path().to_owned(), self.with_file);
        self.look();
    }

    fn policy(&self) -> OutboundPolicy {
        self.composer.published.mesh().config.outbound_policy.clone()
    }

    fn errors(&self) -> usize {
        let state = self.composer.published.state();
        let is_error = |problem: &&Diagnostic| problem.severity == Severity::Error;
        state.diagnostics.iter().filter(is_error).count()
    }
}

fn composer(base: PathBuf, with_file: bool) -> Composer {
    let state = StateDir::open(base.join("state")).unwrap();
    let (clock, trust_domain) = (Clock::system(), TrustDomain::default());
    let ca = Arc::new(Ca::load_or_create(&state, &trust_domain, &clock).unwrap());
    let (journal, restored) = Journal::open(&state);
    let mesh_config = base.join("mesh.yaml");
    Composer::new(Parts {
        reading: Reading {
            root: base.join("mesh").as_path().into(),
            mesh_config: with_file.then(|| mesh_config.as_path().into()),
            lenient: false,
            strict: false,
        },
        options: Options {
            base: MeshConfig::default(),
            ..Options::default()
        },
        roster: Arc::default(),
        secrets: Arc::new(Secrets::new(ca, clock.clone(), IssueOptions::default())),
        published: Arc::default(),
        journal,
        restored,
        clock,
    })
}

#[test]
fn a_mesh_configuration_file_that_is_broken_at_a_restart_keeps_its_last_good_form() {
    let mut server = Server::new(true);
    server.write("mesh.yaml", REGISTRY_ONLY);
    server.look();
    assert_eq!((server.policy(), server.errors()), (OutboundPolicy::RegistryOnly, 0));
    for broken in ["a: b: c\n", "outboundTrafficPolicy: {mode: NONSENSE}\n", ""] {
        server.write("mesh.yaml", broken);
        for _ in 0..2 {
            server.restart();
            assert_eq!(server.policy(), OutboundPolicy::RegistryOnly, "{broken}");
            assert!(server.errors() > 0, "{broken}");
        }
    }
    server.with_file = false;
    server.restart();
    assert_eq!(
        (server.policy(), server.errors()),
        (OutboundPolicy::AllowAny, 0),
        "not asked for any more"
    );
    server.with_file = true;
    server.write("mesh.yaml", "{}\n");
    server.restart();
    assert_eq!(
        (server.policy(), server.errors()),
        (OutboundPolicy::AllowAny, 0),
        "repaired"
    );
}

#[test]
fn a_config_map_that_is_broken_at_a_restart_keeps_its_last_good_form() {
    let map = |mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {mesh}"
        )
    };
    let mut server = Server::new(false);
    server.write("mesh/config.yaml", &map(REGISTRY_ONLY));
    server.look();
    assert_eq!((server.policy(), server.errors()), (OutboundPolicy::RegistryOnly, 0));
    for broken in [
        map("a: b: c\n"),
        map("outboundTrafficPolicy: {mode: NONSENSE}\n"),
        map("x: 1\n") + "a: b: c\n",
    ] {
        server.write("mesh/config.yaml", &broken);
        for _ in 0..2 {
            server.restart();
            assert_eq!(server.policy(), OutboundPolicy::RegistryOnly, "{broken}");
            assert!(server.errors() > 0, "{broken}");
        }
    }
    fs::remove_file(server.directory.path().join("mesh/config.yaml")).unwrap();
    server.restart();
    assert_eq!(
        (server.policy(), server.errors()),
        (OutboundPolicy::AllowAny, 0),
        "gone"
    );
}

#[test]
fn a_proxy_whose_workload_entry_has_a_host_name_takes_its_new_labels() {
    let entry = |version: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: vm}}\nspec: {{address: vm.example.com, labels: {{version: {version}}}, serviceAccount: vm}}\n"
        )
    };
    let mut server = Server::new(false);
    server.write("mesh/vm.yaml", &entry("v1"));
    server.look();
    let id = join(&mut server, "vm.default", "127.0.0.5", None);
    let labels = |server: &Server| server.composer.roster.admission(id).unwrap().view.labels;
    let version = |version: &str| Arc::new(Labels::from([("version".into(), version.into())]));
    assert_eq!(labels(&server), version("v1"));
    server.write("mesh/vm.yaml", &entry("v2"));
    server.look();
    assert_eq!(labels(&server), version("v2"));
}

#[test]
fn replicas_of_a_workload_share_what_they_should_have() {
    let service = |name: &str, address: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.example.com], location: MESH_INTERNAL, resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: {address}}}]}}\n"
        )
    };
    let mut server = Server::new(false);
    server.write("mesh/a.yaml", &service("a", "10.0.0.3"));
    server.look();
    for (name, address) in [
        ("one.default", "10.0.0.1"),
        ("two.default", "10.0.0.2"),
        ("three.default", "10.0.0.3"),
    ] {
        join(&mut server, name, address, Some(Labels::default()));
    }
    let target = |server: &Server, name: &str| server.composer.roster.target(name).unwrap();
    for round in 1..3 {
        let [one, two, three] = ["one.default", "two.default", "three.default"].map(|name| target(&server, name));
        assert_eq!([&one, &two, &three].map(|target| target.generation), [round; 3]);
        for kind in [ResourceType::Cluster, ResourceType::Listener] {
            assert!(one.set(kind).ptr_eq(two.set(kind)), "{kind}");
            assert!(!one.set(kind).ptr_eq(three.set(kind)), "{kind}");
        }
        let [cluster, inbound]: [ResourceName; 2] = ["InboundPassthroughCluster".into(), "inbound|80||".into()];
        let of = |target: &Snapshot| target.set(ResourceType::Cluster)[&cluster].clone();
        assert!(Arc::ptr_eq(&of(&one), &of(&three)), "what is equal is made once");
        assert!(three.set(ResourceType::Cluster).contains_key(&inbound));
        assert!(!one.set(ResourceType::Cluster).contains_key(&inbound));
        server.write("mesh/b.yaml", &service("b", "10.0.0.9"));
        server.look();
    }
}

/// Lets a proxy in. Labels that its token states count where there is no WorkloadEntry.
fn join(server: &mut Server, name: &str, address: &str, labels: Option<Labels>) -> MemberId {
    let node = Node {
        id: format!("sidecar~{address}~{name}~default.svc.cluster.local"),
        ..Node::default()
    };
    let claim = NodeClaim::read(&node).unwrap();
    let grant = Grant {
        identity: "spiffe://cluster.local/ns/default/sa/vm".parse().unwrap(),
        workload: claim.workload.clone(),
        stated: labels.map(|labels| (Arc::new(labels), vec![address.parse().unwrap()])),
        member: None,
        token_expires: None,
    };
    let (view, _) = grant.view(&claim, server.composer.directory.mesh());
    let (id, ..) = server.composer.roster.enter(Admission {
        claim,
        grant,
        view,
        since: SystemTime::UNIX_EPOCH,
    });
    server.composer.join(id);
    id
}
