//! Analysis of a directory without a server, for `check` and `render`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::composer::Reading;
use super::diagnosis;
use super::files::Files;
use super::identity;
use super::views::Views;
use crate::api::ReadOptions;
use crate::api::mesh_config::MeshConfigText;
use crate::diag::Diagnostic;
use crate::ir::NodeView;
use crate::ir::node::InterceptionMode;
use crate::mesh::Mesh;
use crate::mesh::config::MeshConfig;
use crate::mesh::directory::{Change, Directory, Options};
use crate::name::{TrustDomain, WorkloadName};
use crate::source::tree::{Content, Tree};
use crate::source::{Root, document};
use crate::xds::snapshot::Snapshot;

/// A directory read once.
#[derive(Debug)]
pub struct Offline {
    tree: Tree,
    files: Files,
    directory: Directory,
    mesh_config: Option<Tree>,
}

impl Offline {
    /// Reads a directory. Its objects replace those with the same id in `surroundings`, the
    /// directory (if given) in which it is analysed.
    pub fn read(reading: &Reading, surroundings: Option<&Root>, trust_domain: &TrustDomain) -> Self {
        let read = ReadOptions {
            lenient: reading.lenient,
        };
        let base = MeshConfig {
            trust_domain: trust_domain.clone(),
            ..MeshConfig::default()
        };
        let mut changes = Vec::new();
        if let Some(root) = surroundings {
            load(&Tree::scan(root), &read, &mut changes);
        }
        let tree = Tree::scan(&reading.root);
        let files = load(&tree, &read, &mut changes);
        let mesh_config = reading.mesh_config.as_ref().map(Tree::scan);
        changes.extend(mesh_config.as_ref().and_then(mesh_config_change));
        let directory = Directory::new(Options { base, read }).apply(&changes).directory;
        Self {
            tree,
            files,
            directory,
            mesh_config,
        }
    }

    /// Number of files read, without the surroundings.
    pub fn file_count(&self) -> usize {
        self.tree.files().count()
    }

    /// The mesh model of the directory.
    pub fn mesh(&self) -> &Mesh {
        self.directory.mesh()
    }

    /// The view of a workload's proxy as described by its WorkloadEntry, if there is one.
    pub fn view(&self, workload: &WorkloadName, mode: InterceptionMode) -> Option<NodeView> {
        identity::entry(self.mesh(), workload).map(|entry| identity::view_of(entry, mode))
    }

    /// The xDS snapshot of a proxy, without the secrets that are issued on request.
    pub fn snapshot(&self, view: &NodeView) -> Arc<Snapshot> {
        Views::default().snapshot(self.mesh(), view, 0)
    }

    /// All diagnostics of the files read, in display order, without those of the surroundings
    /// alone.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut all = diagnosis::of_directory(&self.files, &self.directory);
        all.extend(diagnosis::of_broken(&self.directory, &self.all_views()));
        let mesh_config = || self.mesh_config.iter().flat_map(Tree::files);
        all.extend(mesh_config().filter_map(|file| match &file.content {
            Content::Text { .. } => None,
            Content::Unreadable(problem) => Some(problem.clone()),
        }));
        let own = self
            .tree
            .files()
            .chain(mesh_config())
            .map(|file| &*file.origin)
            .collect();
        all.retain(|problem| is_about(problem, &own));
        all.sort_by(Diagnostic::display_order);
        all.dedup();
        all
    }

    /// Snapshots for every WorkloadEntry, with interception and without.
    fn all_views(&self) -> Views {
        let mut views = Views::default();
        for workload in self.mesh().workloads() {
            for mode in [InterceptionMode::Redirect, InterceptionMode::None] {
                views.snapshot(self.mesh(), &identity::view_of(workload, mode), 0);
            }
        }
        views
    }
}

fn load(tree: &Tree, read: &ReadOptions, changes: &mut Vec<Change>) -> Files {
    let mut files = Files::default();
    let all = tree.files().map(|file| file.origin.clone()).collect();
    changes.extend(files.update(tree, &all, read));
    files
}

fn mesh_config_change(tree: &Tree) -> Option<Change> {
    let file = tree.files().next()?;
    match &file.content {
        Content::Text { source, .. } => {
            let text = document::split(source).into_iter().next();
            Some(Change::MeshConfig(text.map(MeshConfigText::from)))
        }
        Content::Unreadable(_) => None,
    }
}

/// Whether a diagnostic belongs to no file or refers to one of these.
fn is_about(problem: &Diagnostic, origins: &BTreeSet<&str>) -> bool {
    let mut places = problem.labels.iter().map(|label| &label.place);
    problem.labels.is_empty() || places.any(|place| origins.contains(&*place.source.origin))
}
