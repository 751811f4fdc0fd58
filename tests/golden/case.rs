//! A golden case: a directory, a proxy, and the resources it receives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use topsail::control::{Offline, Reading};
use topsail::diag::render;
use topsail::ir::NodeView;
use topsail::ir::node::InterceptionMode;
use topsail::mesh::Labels;
use topsail::mesh::service::Locality;
use topsail::name::{TrustDomain, WorkloadName};
use topsail::source::Root;
use topsail::xds::ResourceType;
use topsail::xds::json::Printer;
use topsail::xds::snapshot::Snapshot;

/// The types to show, with their names in `topsail render --type`.
const TYPES: [(ResourceType, &str); 4] = [
    (ResourceType::Cluster, "cds"),
    (ResourceType::Endpoints, "eds"),
    (ResourceType::Listener, "lds"),
    (ResourceType::Route, "rds"),
];

/// Content of `case.yaml`, corresponding to the flags of `topsail render`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The workload to render for; labels and addresses are those of its WorkloadEntry, if any.
    #[serde(default = "client")]
    workload: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "address")]
    ip: IpAddr,
    #[serde(default)]
    mode: Mode,
    /// The types to show; all if empty.
    #[serde(default)]
    show: BTreeSet<String>,
    /// Whether to include resources that a proxy of an empty directory receives as well.
    #[serde(default)]
    whole: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    #[default]
    Redirect,
    Tproxy,
    None,
}

fn client() -> String {
    "client.default".to_owned()
}

fn address() -> IpAddr {
    [10, 1, 0, 1].into()
}

/// A loaded case.
pub(crate) struct Case {
    header: Header,
    offline: Offline,
    view: NodeView,
}

impl Case {
    /// Loads a case.
    pub(crate) fn load(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("case.yaml")).unwrap();
        let header: Header =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let named = |name: &&String| !TYPES.iter().any(|(_, known)| known == name);
        assert_eq!(header.show.iter().find(named), None, "{}: show", folder.display());
        let offline = read(Root::from(&*input(folder)));
        let view = header.view(&offline);
        Self { header, offline, view }
    }

    /// The snapshot of the proxy.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.offline.snapshot(&self.view)
    }

    /// The case's output files, by name.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let snapshot = self.snapshot();
        let of_nothing = match self.header.whole {
            true => Arc::default(),
            false => read(Root::new([""; 0])).snapshot(&self.view),
        };
        let is_shown = |name: &str| self.header.show.is_empty() || self.header.show.contains(name);
        let shown = TYPES.into_iter().filter(|(_, name)| is_shown(name));
        let of_type =
            |(kind, name): (ResourceType, &str)| (format!("{name}.yaml"), resources(kind, &snapshot, &of_nothing));
        let diagnostics = self.offline.diagnostics();
        let findings = diagnostics
            .iter()
            .map(|finding| render::text(finding, false) + "\n")
            .collect();
        shown
            .map(of_type)
            .chain([("diagnostics.txt".to_owned(), findings)])
            .filter(|(_, text)| !text.is_empty())
            .collect()
    }
}

impl Header {
    /// The proxy.
    fn view(&self, offline: &Offline) -> NodeView {
        let workload: WorkloadName = self.workload.parse().unwrap();
        let mode = match self.mode {
            Mode::Redirect => InterceptionMode::Redirect,
            Mode::Tproxy => InterceptionMode::Tproxy,
            Mode::None => InterceptionMode::None,
        };
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        offline.view(&workload, mode).unwrap_or_else(|| NodeView {
            namespace: workload.namespace.clone(),
            labels: Arc::new(Labels::from_iter(labels)),
            addresses: vec![self.ip],
            locality: Locality::default(),
            mode,
        })
    }
}

fn input(folder: &Path) -> PathBuf {
    let found: Vec<PathBuf> = ["input.yaml", "input"]
        .map(|name| folder.join(name))
        .into_iter()
        .filter(|path| path.exists())
        .collect();
    match &found[..] {
        [input] => input.clone(),
        [] | [_, ..] => panic!("{}: either input.yaml or input/", folder.display()),
    }
}

fn read(root: Root) -> Offline {
    let reading = Reading {
        root,
        mesh_config: None,
        lenient: false,
        strict: false,
    };
    Offline::read(&reading, None, &TrustDomain::default())
}

/// The resources of a type that differ from those of an empty directory, as YAML, preceded by comments with
/// the names of those that only an empty directory yields.
fn resources(kind: ResourceType, snapshot: &Snapshot, of_nothing: &Snapshot) -> String {
    let printer = Printer::new().unwrap();
    let (set, fixed) = (snapshot.set(kind), of_nothing.set(kind));
    let missing = fixed.keys().filter(|name| !set.contains_key(*name));
    let comments: String = missing.map(|name| format!("# without {name}\n")).collect();
    let own = set
        .iter()
        .filter(|(name, resource)| fixed.get(*name).is_none_or(|other| other.body != resource.body));
    let own: Vec<Value> = own
        .map(|(_, resource)| printer.to_json(kind.type_url(), &resource.body).unwrap())
        .collect();
    match own.is_empty() {
        true => comments,
        false => {
            let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
            comments + &serde_saphyr::to_string_with_options(&own, options).unwrap()
        }
    }
}
