//! The composer: an event loop that applies directory changes and proxy joins and leaves and
//! publishes a new snapshot per proxy.
//!
//! It runs on its own thread so that recomputing a large mesh never blocks a socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::content::Content;
use super::diagnosis;
use super::files::Files;
use super::journal::{Journal, Restored};
use super::registration::{Registration, is_registered};
use super::registry::Registry;
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
use crate::name::{Kind, ObjectId, WorkloadName};
use crate::source::Root;
use crate::source::document;
use crate::source::tree::{self, Tree};
use crate::xds::encode::SECRET_CERTIFICATE;

/// How the configuration directory is read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The configuration directory.
    pub root: Root,
    /// A file holding a bare MeshConfig (`--mesh-config`).
    pub mesh_config: Option<Root>,
    /// Report unknown fields as warnings instead of errors (`--lenient`).
    pub lenient: bool,
    /// Reject the whole generation if it has any error (`--strict`).
    pub strict: bool,
}

/// Events handled by the composer.
#[derive(Debug)]
pub(super) enum ComposerEvent {
    /// The directory was read: its content, and the files that differ from the previous read.
    Directory(Tree, Vec<Arc<str>>),
    /// The `--mesh-config` file was read.
    MeshConfig(Tree),
    /// A stream was opened; it has no snapshot yet.
    Joined(MemberId),
    /// An auto-registered workload ACKed its first configuration.
    Acked(MemberId),
    /// The stream of an auto-registered workload ended.
    Left(MemberId),
    /// The peer closed the connection of an auto-registered workload.
    Closed(MemberId),
    /// A workload announced that it is shutting down.
    Leaving(WorkloadName),
    /// A sidecar process reported its application's readiness.
    Application {
        member: WorkloadName,
        run: u64,
        ready: bool,
    },
    /// The server is shutting down; connections closed from now on say nothing about their
    /// workloads.
    Stopping,
    /// The grace period of a disconnected auto-registered workload has expired.
    GraceOver,
    /// The set of resources NACKed by proxies changed.
    Refused,
    /// Periodic maintenance.
    Housekeeping,
}

/// State of the event loop.
#[derive(Debug)]
pub(super) struct Composer {
    reading: Reading,
    tree: Tree,
    /// Files changed since the last accepted generation.
    pending: BTreeSet<Arc<str>>,
    files: Files,
    directory: Directory,
    mesh_config_problem: Option<Diagnostic>,
    /// Diagnostics of the generation rejected under `--strict`.
    refused: Vec<Diagnostic>,
    views: Views,
    roster: Arc<Roster>,
    registry: Registry,
    /// When the oldest change to registered workloads that is not yet applied was made.
    unsettled: Option<Instant>,
    /// Streams of auto-registered workloads that have no snapshot yet.
    arrivals: Vec<MemberId>,
    /// Deadline at which the composer wants [`ComposerEvent::GraceOver`].
    alarm: watch::Sender<Option<Instant>>,
    secrets: Arc<Secrets>,
    published: Arc<Published>,
    journal: Journal,
    content: Content,
    generation: u64,
    /// When the current generation was accepted.
    accepted: SystemTime,
    loaded: bool,
    clock: Clock,
}

/// Dependencies of a [`Composer`].
#[derive(Debug)]
pub(super) struct Parts {
    /// How the configuration directory is read.
    pub reading: Reading,
    /// Mesh settings that do not come from the directory.
    pub options: Options,
    /// Connected proxies.
    pub roster: Arc<Roster>,
    /// Issues workload certificates.
    pub secrets: Arc<Secrets>,
    /// Where the state is published to readers.
    pub published: Arc<Published>,
    /// Persists the last good generation.
    pub journal: Journal,
    /// The generation found in the journal.
    pub restored: Restored,
    /// How long an auto-registered workload is kept after its stream ends.
    pub grace: Duration,
    /// Deadline at which the composer wants [`ComposerEvent::GraceOver`].
    pub alarm: watch::Sender<Option<Instant>>,
    /// Time source.
    pub clock: Clock,
}

/// Upper bound on how long a registration is delayed to be batched with others.
const BATCH: Duration = Duration::from_millis(50);

impl Composer {
    /// A composer that starts from the last good generation in the journal. Objects that are in
    /// error in the directory now keep the form they had in that generation.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            reading,
            options,
            roster,
            secrets,
            published,
            journal,
            restored,
            grace,
            alarm,
            clock,
        } = parts;
        let in_force = restored.kept.iter().filter(|kept| kept.why == Why::InForce);
        let in_force = in_force.map(|kept| kept.object.clone());
        let (registered, written): (Vec<_>, Vec<_>) = in_force.partition(|object| is_registered(object));
        let files = Files::restore(written);
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
            registry: Registry::new(grace, registered),
            unsettled: None,
            arrivals: Vec::new(),
            alarm,
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

    /// Handles events until all senders are dropped.
    pub(super) fn run(mut self, mut events: mpsc::UnboundedReceiver<ComposerEvent>) {
        while let Some(event) = events.blocking_recv() {
            let now = Instant::now();
            self.hear(event, now);
            // Registrations that arrive together become one generation.
            if events.is_empty() || self.unsettled.is_some_and(|since| now - since > BATCH) {
                self.settle();
            }
        }
    }

    fn hear(&mut self, event: ComposerEvent, now: Instant) {
        self.registry.hear(now);
        match event {
            ComposerEvent::Directory(tree, changed) => self.take(tree, changed),
            ComposerEvent::MeshConfig(tree) => self.take_mesh_config(&tree),
            ComposerEvent::Joined(id) => self.arrive(id),
            ComposerEvent::Acked(id) => self.registry.acked(id),
            ComposerEvent::Left(id) => self.registry.leave(id, now),
            ComposerEvent::Closed(id) => self.registry.closed(id, now),
            ComposerEvent::Leaving(workload) => self.registry.leaving(&workload),
            ComposerEvent::Application { member, run, ready } => self.registry.said(&member, run, ready),
            ComposerEvent::Stopping => self.registry.stop(),
            ComposerEvent::GraceOver => self.registry.expire(now),
            ComposerEvent::Refused => self.publish(),
            ComposerEvent::Housekeeping => self.keep_house(),
        }
        if self.registry.has_changed() {
            self.unsettled.get_or_insert(now);
        }
    }

    /// Handles a new stream. An auto-registered workload gets its snapshot only once its
    /// registration is applied.
    fn arrive(&mut self, id: MemberId) {
        let admission = self.roster.admission(id);
        let registration = admission.and_then(|admission| {
            let registration = Registration::of_admission(&admission, self.directory.mesh())?;
            Some((registration, admission.claim.readiness_run))
        });
        match registration {
            Some((registration, run)) => {
                self.registry.join(id, registration, run);
                self.arrivals.push(id);
            }
            None => self.join(id),
        }
    }

    /// Applies pending changes to registered workloads as one generation. A WorkloadEntry defined
    /// in a file takes precedence over a registered one of the same name.
    fn settle(&mut self) {
        self.unsettled = None;
        let end = self.registry.next_end();
        self.alarm
            .send_if_modified(|alarm| std::mem::replace(alarm, end) != end);
        if !self.loaded {
            return;
        }
        if self.registry.has_changed() {
            let changed = self.registry.take_changed();
            let ids = changed
                .iter()
                .map(|workload| workload.object(Kind::WorkloadEntry))
                .filter(|id| self.files.in_force(id).is_none());
            let changes: Vec<Change> = ids.map(|id| self.registered(id)).collect();
            let applied = self.directory.apply(&changes);
            let before = std::mem::replace(&mut self.directory, applied.directory);
            self.accept(&before, &applied.touched);
        } else if self.registry.take_news() {
            self.publish();
        }
        for id in std::mem::take(&mut self.arrivals) {
            if !self.roster.has_target(id) {
                self.join(id);
            }
        }
    }

    /// The change for a WorkloadEntry that no file defines: its registered form, or its removal.
    fn registered(&self, id: ObjectId) -> Change {
        match self.registry.object(&id) {
            Some(object) => Change::Put(object.clone()),
            None => Change::Remove(id),
        }
    }

    /// Applies the content of the directory; a change of meaning becomes the next generation.
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
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|change| match change {
                Change::Remove(id) => self.registered(id),
                Change::Put(_) | Change::Broken { .. } | Change::MeshConfig(_) => change,
            })
            .collect();
        let applied = self.directory.apply(&changes);
        if self.reading.strict && self.refuse(&files, &applied.directory) {
            return;
        }
        self.pending.clear();
        self.files = files;
        let before = std::mem::replace(&mut self.directory, applied.directory);
        self.accept(&before, &applied.touched);
        for id in changes.iter().filter_map(Change::object) {
            if id.kind == Kind::WorkloadGroup {
                self.regroup(id);
            }
        }
    }

    /// Re-derives the WorkloadEntries of a group's members after its WorkloadGroup changed.
    fn regroup(&mut self, id: &ObjectId) {
        let group = WorkloadName::of_object(id);
        let (roster, mesh) = (&self.roster, self.directory.mesh());
        self.registry.regroup(&group, |stream| {
            Registration::of_admission(&roster.admission(stream)?, mesh)
        });
    }

    /// Applies the `--mesh-config` file. The last good content stays in force while the file is
    /// unreadable or empty.
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

    /// Under `--strict`: returns true, keeping the current generation, if there is any error.
    fn refuse(&mut self, files: &Files, directory: &Directory) -> bool {
        let problems = diagnosis::of_directory(files, directory);
        let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
        self.refused = if refused { problems } else { Vec::new() };
        if refused {
            tracing::error!("the directory has errors and --strict is set: keeping the previous generation");
            if self.generation > 0 {
                self.start();
            }
            self.push(&Touched::everything());
            self.publish();
        }
        refused
    }

    fn accept(&mut self, before: &Directory, touched: &Touched) {
        let first = self.start();
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

    /// Starts serving if it has not started; returns whether it did so now.
    fn start(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.loaded, true);
        if first {
            self.registry.start(Instant::now());
        }
        first
    }

    /// Assigns every connected proxy its snapshot of the current generation.
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

    /// Renews certificates that have reached half of their lifetime and reports expired join
    /// tokens.
    fn keep_house(&mut self) {
        let in_use = self.roster.views().into_iter().map(|(_, view)| view).collect();
        self.views.trim(self.directory.mesh(), &in_use);
        for (id, admission) in self.roster.admissions() {
            let current = self.roster.secret(id, SECRET_CERTIFICATE);
            let renewed = current.and_then(|current| self.secrets.renewed(&admission.grant.identity, &current.version));
            if let Some(certificate) = renewed {
                tracing::info!(node = %admission.claim.id, "renewed the proxy's certificate");
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
        self.registry.take_news();
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
            registered: self.registry.shown().into(),
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
                "the mesh configuration file is empty; the previous configuration is kept",
            )
            .at(place)
            .help("use `{}` for an empty mesh configuration")
        })
}

#[cfg(test)]
mod tests;
