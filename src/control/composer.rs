//! The loop: an edit or a join comes in, snapshots go out.
//!
//! It runs on a thread of its own, so that work on a large mesh never holds up a socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::content::Content;
use super::diagnosis;
use super::files::Files;
use super::journal::{Journal, Restored};
use super::roster::{MemberId, Roster};
use super::secrets::Secrets;
use super::state::{Generation, Published, State};
use super::views::Views;
use crate::api::ReadOptions;
use crate::api::mesh_config::MeshConfigText;
use crate::clock::Clock;
use crate::diag::{Code, Diagnostic, Place, Severity};
use crate::ir::NodeView;
use crate::mesh::Touched;
use crate::mesh::directory::{Change, Directory, Options, Why};
use crate::source::Root;
use crate::source::document;
use crate::source::tree::{self, Tree};
use crate::xds::encode::SECRET_CERTIFICATE;

/// How the directory is read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The directory.
    pub root: Root,
    /// A bare mesh configuration beside it.
    pub mesh_config: Option<Root>,
    /// Unknown fields are warnings.
    pub lenient: bool,
    /// Any error refuses the whole generation.
    pub strict: bool,
}

/// What the loop reacts to.
#[derive(Debug)]
pub(super) enum Tick {
    /// The directory has been read: what it holds, and which files differ from the last time.
    Directory(Tree, Vec<Arc<str>>),
    /// The file of the mesh configuration has been read.
    MeshConfig(Tree),
    /// Someone has come and has no target yet.
    Joined(MemberId),
    /// What is refused has changed.
    Refused,
    /// Time has passed.
    Housekeeping,
}

/// The state of the loop.
#[derive(Debug)]
pub(super) struct Composer {
    reading: Reading,
    tree: Tree,
    /// Files that have changed since the last accepted generation.
    pending: BTreeSet<Arc<str>>,
    files: Files,
    directory: Directory,
    mesh_config_problem: Option<Diagnostic>,
    /// What a refused generation (`--strict`) complains of.
    refused: Vec<Diagnostic>,
    views: Views,
    roster: Arc<Roster>,
    secrets: Arc<Secrets>,
    published: Arc<Published>,
    journal: Journal,
    content: Content,
    generation: u64,
    /// When that generation was accepted.
    accepted: SystemTime,
    loaded: bool,
    clock: Clock,
}

/// What a composer works with.
#[derive(Debug)]
pub(super) struct Parts {
    /// How the directory is read.
    pub reading: Reading,
    /// What the mesh takes from elsewhere than the directory.
    pub options: Options,
    /// Who is connected.
    pub roster: Arc<Roster>,
    /// Certificates.
    pub secrets: Arc<Secrets>,
    /// Where the state is shown.
    pub published: Arc<Published>,
    /// The last good generation.
    pub journal: Journal,
    /// What the journal held.
    pub restored: Restored,
    /// The time.
    pub clock: Clock,
}

impl Composer {
    /// A composer that has read nothing yet but the last good generation, against which it will
    /// hold the directory: what is in error now keeps the form it had then.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            reading,
            options,
            roster,
            secrets,
            published,
            journal,
            restored,
            clock,
        } = parts;
        let in_force = restored.kept.iter().filter(|kept| kept.why == Why::InForce);
        let files = Files::restore(in_force.map(|kept| kept.object.clone()));
        let empty = Directory::new(options.clone());
        let mut directory = Directory::restore(options, &restored.kept);
        if let Some(document) = restored.mesh_config.filter(|_| reading.mesh_config.is_some()) {
            directory = directory.apply(&[Change::MeshConfig(Some(document.into()))]).directory;
        }
        let mut content = Content::default();
        content.take(&directory.kept_since(&empty));
        Self {
            reading,
            tree: Tree::default(),
            pending: BTreeSet::new(),
            files,
            directory,
            mesh_config_problem: None,
            refused: Vec::new(),
            views: Views::default(),
            roster,
            secrets,
            published,
            journal,
            content,
            generation: restored.generation,
            accepted: clock.now(),
            loaded: false,
            clock,
        }
    }

    /// Serves ticks and joins until the senders are gone.
    pub(super) fn run(mut self, mut ticks: mpsc::UnboundedReceiver<Tick>) {
        while let Some(tick) = ticks.blocking_recv() {
            match tick {
                Tick::Directory(tree, changed) => self.take(tree, changed),
                Tick::MeshConfig(tree) => self.take_mesh_config(&tree),
                Tick::Joined(id) => self.join(id),
                Tick::Refused => self.publish(),
                Tick::Housekeeping => self.keep_house(),
            }
        }
    }

    /// Takes in what the directory holds and, if it means anything new, makes it the next generation.
    fn take(&mut self, tree: Tree, changed: Vec<Arc<str>>) {
        self.tree = tree;
        self.pending.extend(changed);
        if !self.loaded {
            self.pending.extend(self.files.origins().cloned());
        } else if self.pending.is_empty() {
            return;
        }
        let mut files = self.files.clone();
        let changes = files.update(
            &self.tree,
            &self.pending,
            &ReadOptions {
                lenient: self.reading.lenient,
            },
        );
        let applied = self.directory.apply(&changes);
        if self.reading.strict && self.refuse(&files, &applied.directory) {
            return;
        }
        self.pending.clear();
        self.files = files;
        let before = std::mem::replace(&mut self.directory, applied.directory);
        self.accept(&before, &applied.touched);
    }

    /// Takes in the file of the mesh configuration. While it cannot be read or holds nothing, what it
    /// said stays.
    fn take_mesh_config(&mut self, tree: &Tree) {
        let text = tree.files().next().map(|file| read_mesh_config(&file.content));
        self.mesh_config_problem = text.as_ref().and_then(|text| text.as_ref().err().cloned());
        if let Some(Ok(text)) = text {
            let applied = self.directory.apply(&[Change::MeshConfig(Some(text))]);
            let before = std::mem::replace(&mut self.directory, applied.directory);
            if self.loaded {
                self.accept(&before, &applied.touched);
            }
        }
        self.publish();
    }

    /// With `--strict`: whether there is any error, which leaves everything as it is.
    fn refuse(&mut self, files: &Files, directory: &Directory) -> bool {
        let problems = diagnosis::of_directory(files, directory);
        let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
        self.refused = if refused { problems } else { Vec::new() };
        if refused {
            tracing::error!("the directory has errors and --strict is given: the generation before stays in force");
            self.loaded |= self.generation > 0;
            self.push(&Touched::everything());
            self.publish();
        }
        refused
    }

    fn accept(&mut self, before: &Directory, touched: &Touched) {
        let first = !self.loaded;
        self.loaded = true;
        if first || !touched.is_nothing() {
            self.generation += 1;
            self.accepted = self.clock.now();
            let everything = Touched::everything();
            self.push(if first { &everything } else { touched });
        }
        let changes = self.directory.kept_since(before);
        self.content.take(&changes);
        let mesh_config = self.directory.mesh_config_file().map(MeshConfigText::document);
        self.journal.append(self.generation, &changes, mesh_config);
        self.publish();
    }

    /// Gives everyone the snapshot of this generation.
    fn push(&mut self, touched: &Touched) {
        if !self.loaded {
            return;
        }
        self.roster.forget_absent();
        let mesh = self.directory.mesh();
        let mut views = self.roster.views();
        if touched.all || touched.workloads {
            for (id, admission) in self.roster.admissions() {
                let (view, _) = admission.grant.view(&admission.claim, mesh);
                if view != admission.view {
                    self.roster.set_view(id, view);
                }
            }
            views = self.roster.views();
        }
        let in_use: BTreeSet<NodeView> = views.iter().map(|(_, view)| view.clone()).collect();
        self.views.update(mesh, touched, self.generation, &in_use);
        for (id, view) in views {
            let snapshot = self.views.snapshot(mesh, &view, self.generation);
            self.roster.set_base(id, &snapshot);
        }
    }

    fn join(&mut self, id: MemberId) {
        let Some(admission) = self.roster.admission(id).filter(|_| self.loaded) else {
            return;
        };
        let mesh = self.directory.mesh();
        let (view, _) = admission.grant.view(&admission.claim, mesh);
        let snapshot = self.views.snapshot(mesh, &view, self.generation);
        self.roster.set_view(id, view);
        self.roster.set_base(id, &snapshot);
    }

    /// Renews certificates at half of their life and says whose token has expired.
    fn keep_house(&mut self) {
        let in_use = self.roster.views().into_iter().map(|(_, view)| view).collect();
        self.views.trim(self.directory.mesh(), &in_use);
        for (id, admission) in self.roster.admissions() {
            let current = self.roster.secret(id, SECRET_CERTIFICATE);
            let renewed = current.and_then(|current| self.secrets.renewed(&admission.grant.identity, &current.version));
            if let Some(certificate) = renewed {
                tracing::info!(node = %admission.claim.id, "its certificate is renewed");
                self.roster.set_secret(id, certificate);
            }
        }
        for node in self.roster.newly_expired(self.clock.now()) {
            tracing::warn!(
                %node,
                "the proxy's join token has expired: it stays connected, but cannot reconnect until its token file is renewed"
            );
        }
    }

    fn publish(&mut self) {
        let mut diagnostics = diagnosis::of_directory(&self.files, &self.directory);
        diagnostics.extend(diagnosis::of_proxies(&self.directory, &self.views, &self.roster));
        diagnostics.extend(self.refused.iter().chain(&self.mesh_config_problem).cloned());
        diagnostics.sort_by(Diagnostic::display_order);
        diagnostics.dedup();
        diagnosis::log_changes(&self.published.state().diagnostics, &diagnostics);
        let accepted = self.accepted.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let generation = self.loaded.then(|| Generation {
            number: self.generation,
            hash: self.content.hash(),
            objects: self.content.objects(),
            accepted_at: accepted.as_millis().try_into().unwrap_or(u64::MAX),
        });
        let mesh = self.directory.mesh().clone();
        self.published.set(State {
            generation,
            mesh,
            diagnostics: diagnostics.into(),
        });
    }
}

fn read_mesh_config(content: &tree::Content) -> Result<MeshConfigText, Diagnostic> {
    let source = match content {
        tree::Content::Text { source, .. } => source,
        tree::Content::Unreadable(problem) => return Err(problem.clone()),
    };
    document::split(source)
        .into_iter()
        .next()
        .map(MeshConfigText::from)
        .ok_or_else(|| {
            let place = Place {
                source: source.clone(),
                span: 0..0,
            };
            Diagnostic::new(
                Code::EmptyFile,
                "the file of the mesh configuration holds no document; what it said before stays",
            )
            .at(place)
            .help("write `{}` for a mesh configuration without settings")
        })
}

#[cfg(test)]
mod tests;
