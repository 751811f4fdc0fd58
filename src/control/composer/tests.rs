//! A composer over a directory that is edited, with restarts in between.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use super::*;
use crate::control::identity::{Grant, Member};
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

    /// Reads the whole directory, as at startup.
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
        grace: Duration::from_secs(10),
        alarm: watch::channel(None).0,
        clock,
    })
}

#[test]
fn a_mesh_config_file_broken_at_restart_keeps_its_last_good_form() {
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
fn a_config_map_broken_at_restart_keeps_its_last_good_form() {
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
fn label_changes_reach_a_proxy_whose_workload_entry_has_a_host_name() {
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
fn replicas_of_a_workload_share_a_snapshot() {
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

/// Admits a proxy. The labels of its token apply if it has no WorkloadEntry.
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
    let id = enter(server, claim, grant);
    server.composer.join(id);
    id
}

fn enter(server: &Server, claim: NodeClaim, grant: Grant) -> MemberId {
    let (view, _) = grant.view(&claim, server.composer.directory.mesh());
    let (id, ..) = server.composer.roster.enter(Admission {
        claim,
        grant,
        view,
        since: SystemTime::UNIX_EPOCH,
    });
    id
}

const REVIEWS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}\n";

/// A stream of a member of the group `reviews`, as announced by the fleet module.
fn stream(server: &mut Server, address: &str) -> MemberId {
    let group: WorkloadName = "reviews.default".parse().unwrap();
    let address: IpAddr = address.parse().unwrap();
    let workload = WorkloadName::member(&group, address).unwrap();
    let node = Node {
        id: format!("sidecar~{address}~{workload}~default.svc.cluster.local"),
        ..Node::default()
    };
    let claim = NodeClaim::read(&node).unwrap();
    let labels = Arc::new(Labels::from_iter([("app".into(), "reviews".into())]));
    let grant = Grant {
        identity: "spiffe://cluster.local/ns/default/sa/reviews".parse().unwrap(),
        workload,
        stated: Some((labels.clone(), vec![address])),
        member: Some(Member {
            group,
            address,
            claimed: Vec::new(),
            labels,
        }),
        token_expires: None,
    };
    let id = enter(server, claim, grant);
    server.hear(ComposerEvent::Joined(id));
    id
}

impl Server {
    /// Handles a single event.
    fn hear(&mut self, event: ComposerEvent) {
        self.hear_at(event, Instant::now());
    }

    fn hear_at(&mut self, event: ComposerEvent, now: Instant) {
        self.composer.hear(event, now);
        self.composer.settle();
    }

    /// The service's endpoints and whether each is ready.
    fn reviews(&self) -> Vec<(String, bool)> {
        let mesh = self.composer.published.mesh();
        let service = mesh.services().find(|service| &*service.name == "reviews").unwrap();
        let endpoints = service.endpoints.iter();
        endpoints
            .map(|endpoint| (format!("{:?}", endpoint.address), endpoint.ready))
            .map(|(address, ready)| (address.replace("Ip(", "").replace(')', ""), ready))
            .collect()
    }

    fn generation(&self) -> u64 {
        self.composer.generation
    }
}

fn over() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_registered_workload_gets_its_inbound_listeners_before_traffic() {
    let mut server = Server::new(false);
    server.write("mesh/a.yaml", REVIEWS);
    server.look();
    let id = stream(&mut server, "10.0.0.7");
    assert_eq!(server.reviews(), [("10.0.0.7".to_owned(), false)]);
    let target = server.composer.roster.target("reviews-10-0-0-7.default").unwrap();
    assert_eq!(target.generation, 2, "its first target holds its registration");
    let inbound: ResourceName = "inbound|80||".into();
    assert!(target.set(ResourceType::Cluster).contains_key(&inbound));
    server.hear(ComposerEvent::Acked(id));
    assert_eq!(server.reviews(), [("10.0.0.7".to_owned(), true)]);
    assert!(server.composer.published.state().registered[0].ready);
    server.hear(ComposerEvent::Left(id));
    server.hear(ComposerEvent::Closed(id));
    assert_eq!(server.reviews(), [("10.0.0.7".to_owned(), false)]);
    server.hear_at(ComposerEvent::GraceOver, over());
    assert_eq!(server.reviews(), []);
    assert_eq!(server.errors(), 0);
}

#[test]
fn concurrent_registrations_are_one_generation() {
    let mut server = Server::new(false);
    server.write("mesh/a.yaml", REVIEWS);
    server.look();
    let before = server.generation();
    let now = Instant::now();
    for member in 1..=100 {
        let address: IpAddr = format!("10.0.0.{member}").parse().unwrap();
        let group = "reviews.default".parse().unwrap();
        server
            .composer
            .registry
            .join(member, Registration::testing(&group, address), None);
        server.composer.registry.acked(member);
    }
    server.composer.hear(ComposerEvent::Refused, now);
    server.composer.settle();
    assert_eq!((server.reviews().len(), server.generation()), (100, before + 1));
}

#[test]
fn registered_workloads_survive_a_restart_for_the_grace_period() {
    let mut server = Server::new(false);
    server.write("mesh/a.yaml", REVIEWS);
    server.look();
    for address in ["10.0.0.7", "10.0.0.8"] {
        let id = stream(&mut server, address);
        server.hear(ComposerEvent::Acked(id));
    }
    let both = [("10.0.0.7".to_owned(), true), ("10.0.0.8".to_owned(), true)];
    let generation = server.generation();
    server.restart();
    assert_eq!(server.reviews(), both);
    let id = stream(&mut server, "10.0.0.7");
    server.hear(ComposerEvent::Acked(id));
    assert_eq!((server.reviews(), server.generation()), (both.to_vec(), generation + 1));
    server.hear_at(ComposerEvent::GraceOver, over());
    assert_eq!(server.reviews(), both[..1]);
    server.restart();
    assert_eq!(server.reviews(), both[..1]);
}

#[test]
fn a_workload_entry_in_a_file_takes_precedence_over_a_registered_one() {
    let mut server = Server::new(false);
    server.write("mesh/a.yaml", REVIEWS);
    server.look();
    let id = stream(&mut server, "10.0.0.7");
    server.hear(ComposerEvent::Acked(id));
    let written = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: reviews-10-0-0-7}\nspec: {address: 10.0.0.9, labels: {app: reviews}}\n";
    server.write("mesh/b.yaml", written);
    server.look();
    assert_eq!(server.reviews(), [("10.0.0.9".to_owned(), true)]);
    server.hear(ComposerEvent::Left(id));
    server.hear(ComposerEvent::Closed(id));
    assert_eq!(server.reviews(), [("10.0.0.9".to_owned(), true)]);
    fs::remove_file(server.directory.path().join("mesh/b.yaml")).unwrap();
    let gone = server.directory.path().join("mesh/b.yaml").to_string_lossy().into();
    let tree = Tree::scan(&server.composer.reading.root);
    server.composer.take(tree, vec![gone]);
    assert_eq!(server.reviews(), [("10.0.0.7".to_owned(), false)]);
    assert_eq!(server.errors(), 0);
}

#[test]
fn an_edit_of_a_workload_group_updates_its_members() {
    let mut server = Server::new(false);
    server.write("mesh/a.yaml", REVIEWS);
    let group = |app: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {{name: reviews}}\n\
             spec: {{metadata: {{labels: {{app: {app}}}}}, template: {{ports: {{http: 8080}}, labels: {{version: v1}}}}}}\n"
        )
    };
    server.write("mesh/group.yaml", &group("other"));
    server.look();
    let id = stream(&mut server, "10.0.0.7");
    server.hear(ComposerEvent::Acked(id));
    assert_eq!((server.reviews(), server.errors()), (vec![], 0));
    server.write("mesh/group.yaml", &group("reviews"));
    server.look();
    server.composer.settle();
    assert_eq!(server.reviews(), [("10.0.0.7".to_owned(), true)]);
    let mesh = server.composer.published.mesh();
    let service = mesh.services().find(|service| &*service.name == "reviews").unwrap();
    assert_eq!(service.endpoints[0].port(80), Some(8080));
    let state = server.composer.published.state();
    assert_eq!(state.registered.len(), 1);
}
