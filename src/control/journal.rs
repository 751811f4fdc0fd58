//! Persists the last good generation.
//!
//! The journal is an append-only file of JSON lines in the state directory. Each edit appends its
//! changes followed by a commit line, so the cost is proportional to the edit; lines after the last
//! commit, left by a crash, are ignored. The file is compacted when more than half of it is
//! obsolete.
//!
//! The text of each document is stored once, keyed by its hash; objects refer to it and record
//! where in the directory it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::api::{self, ReadOptions};
use crate::diag::{SourceText, Start};
use crate::mesh::directory::{Kept, KeptChanges, Target, Why};
use crate::pki::StateDir;
use crate::source::document::Document;

/// File name in the state directory.
const FILE: &str = "generation.jsonl";
/// Minimum size for compaction, in bytes.
const SMALL: u64 = 1 << 20;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// The text of a document.
    Text { hash: String, text: String },
    /// Stores an object that is in force, or a previous form of one that is retained.
    Put {
        key: String,
        why: Reason,
        document: LocatedDocument,
        item: usize,
    },
    /// Sets the `--mesh-config` document, or clears it.
    MeshConfig { document: Option<LocatedDocument> },
    /// Removes the entry stored under `key`.
    Remove { key: String },
    /// Commits everything before it as this generation.
    Commit { generation: u64 },
}

/// A document and its location.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocatedDocument {
    text: String,
    origin: String,
    start: usize,
    lines_before: usize,
}

impl LocatedDocument {
    fn of(document: &Document) -> Self {
        let start = document.source.start();
        Self {
            text: document
                .hash
                .iter()
                .take(16)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            origin: document.source.origin.to_string(),
            start: start.bytes,
            lines_before: start.lines,
        }
    }

    /// Rebuilds the document from its text.
    fn restore(self, text: &str) -> Document {
        let start = Start {
            bytes: self.start,
            lines: self.lines_before,
        };
        Document::whole(&SourceText::starting(start, self.origin, text))
    }
}

/// Serialized form of [`Why`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reason {
    InForce,
    Host(String),
    Port(String, u16),
    Subset(String, String),
}

impl From<&Why> for Reason {
    fn from(why: &Why) -> Self {
        match why {
            Why::InForce => Reason::InForce,
            Why::Retained(Target::Host(host)) => Reason::Host(host.to_string()),
            Why::Retained(Target::Port(host, port)) => Reason::Port(host.to_string(), *port),
            Why::Retained(Target::Subset(host, name)) => Reason::Subset(host.to_string(), name.to_string()),
        }
    }
}

impl Reason {
    fn read(self) -> Option<Why> {
        Some(match self {
            Reason::InForce => Why::InForce,
            Reason::Host(host) => Why::Retained(Target::Host(host.parse().ok()?)),
            Reason::Port(host, port) => Why::Retained(Target::Port(host.parse().ok()?, port)),
            Reason::Subset(host, name) => Why::Retained(Target::Subset(host.parse().ok()?, name.into())),
        })
    }
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    live_bytes_at_rewrite: u64,
    texts: BTreeSet<String>,
    kept: BTreeMap<String, Kept>,
    mesh_config: Option<Document>,
}

/// What was found on opening.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The generation, 0 if there was none.
    pub generation: u64,
    /// Objects in force and those retained beside them.
    pub kept: Vec<Kept>,
    /// The `--mesh-config` document.
    pub mesh_config: Option<Document>,
}

impl Journal {
    /// Opens the journal in a state directory and reads the last committed generation. An
    /// unreadable journal is reported and replaced: the configuration directory is authoritative.
    pub(super) fn open(state: &StateDir) -> (Self, Restored) {
        let path = state.path().join(FILE);
        let restored = match read(&path) {
            Ok(restored) => restored,
            Err(error) => {
                let aside = path.with_extension("unreadable");
                let moved = std::fs::rename(&path, &aside);
                let kept = moved.map_or_else(|error| error.to_string(), |()| format!("kept as {}", aside.display()));
                tracing::warn!(
                    "failed to read the last valid configuration from {}: {error}; {kept}",
                    path.display()
                );
                Restored::default()
            }
        };
        let kept = restored.kept.iter().map(|kept| (key(kept), kept.clone())).collect();
        let mut journal = Self {
            path,
            file: None,
            bytes: 0,
            live_bytes_at_rewrite: 0,
            texts: BTreeSet::new(),
            kept,
            mesh_config: restored.mesh_config.clone(),
        };
        journal.rewrite(restored.generation);
        (journal, restored)
    }

    /// Appends the changes of a generation, and the `--mesh-config` document if it changed.
    pub(super) fn append(&mut self, generation: u64, changes: &KeptChanges, mesh_config: Option<&Document>) {
        let mut lines = Vec::new();
        for kept in &changes.gone {
            let key = key(kept);
            if self.kept.remove(&key).is_some() {
                lines.push(Line::Remove { key });
            }
        }
        for kept in &changes.new {
            lines.extend(self.lines_of(kept));
            self.kept.insert(key(kept), kept.clone());
        }
        let standing = |document: Option<&Document>| document.map(LocatedDocument::of);
        if standing(mesh_config) != standing(self.mesh_config.as_ref()) {
            self.mesh_config = mesh_config.cloned();
            lines.extend(self.lines_of_mesh_config());
        }
        lines.push(Line::Commit { generation });
        if !self.is_in_place() {
            // An earlier write failed, or the file was removed.
            return self.rewrite(generation);
        }
        self.write(&lines);
        if self.bytes > SMALL && self.bytes > 2 * self.live_bytes_at_rewrite {
            self.rewrite(generation);
        }
    }

    /// Whether the open file is still the one at the journal's path.
    fn is_in_place(&self) -> bool {
        let (Some(file), Ok(found)) = (&self.file, self.path.metadata()) else {
            return false;
        };
        file.metadata()
            .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }

    fn lines_of(&mut self, kept: &Kept) -> Vec<Line> {
        let object = &kept.object;
        let put = Line::Put {
            key: key(kept),
            why: Reason::from(&kept.why),
            document: LocatedDocument::of(&object.document),
            item: object.order.item,
        };
        self.text_of(&object.document).into_iter().chain([put]).collect()
    }

    fn lines_of_mesh_config(&mut self) -> Vec<Line> {
        let document = self.mesh_config.clone();
        let text = document.as_ref().and_then(|document| self.text_of(document));
        let settings = Line::MeshConfig {
            document: document.as_ref().map(LocatedDocument::of),
        };
        text.into_iter().chain([settings]).collect()
    }

    /// A line with the document's text, unless the file already holds it.
    fn text_of(&mut self, document: &Document) -> Option<Line> {
        let hash = LocatedDocument::of(document).text;
        let is_new = self.texts.insert(hash.clone());
        let text = || document.text().to_owned();
        is_new.then(|| Line::Text { hash, text: text() })
    }

    /// Writes the whole state to a new file and renames it over the old one.
    fn rewrite(&mut self, generation: u64) {
        let temporary = self.path.with_extension("new");
        let options = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary);
        self.file = match options {
            Ok(file) => Some(file),
            Err(error) => return self.complain(&error),
        };
        self.texts.clear();
        self.bytes = 0;
        let all: Vec<Kept> = self.kept.values().cloned().collect();
        let mut lines: Vec<Line> = all.iter().flat_map(|kept| self.lines_of(kept)).collect();
        lines.extend(self.lines_of_mesh_config());
        lines.push(Line::Commit { generation });
        self.write(&lines);
        let renamed = match &self.file {
            Some(file) => file.sync_data().and_then(|()| std::fs::rename(&temporary, &self.path)),
            None => return,
        };
        if let Err(error) = renamed {
            self.complain(&error);
        }
        self.live_bytes_at_rewrite = self.bytes;
    }

    fn write(&mut self, lines: &[Line]) {
        let mut out = Vec::new();
        for line in lines {
            // Lines consist of strings and numbers, so serialization cannot fail.
            if serde_json::to_writer(&mut out, line).is_ok() {
                out.push(b'\n');
            }
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(&out) {
            Ok(()) => self.bytes += out.len() as u64,
            Err(error) => self.complain(&error),
        }
    }

    /// Reports a write error. Serving continues: the journal is only needed after a restart.
    fn complain(&mut self, error: &std::io::Error) {
        tracing::error!("failed to save the configuration to {}: {error}", self.path.display());
        self.file = None;
    }
}

/// Key that identifies a retained object.
fn key(kept: &Kept) -> String {
    match &kept.why {
        Why::InForce => kept.object.id.to_string(),
        Why::Retained(target) => format!("{} for {target:?}", kept.object.id),
    }
}

fn read(path: &Path) -> std::io::Result<Restored> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Restored::default()),
        Err(error) => return Err(error),
    };
    let mut state = Written::default();
    let (mut pending, mut generation) = (Vec::new(), 0);
    for line in BufReader::new(file).split(b'\n') {
        // A partial line: the write was interrupted by a crash.
        let Ok(line) = serde_json::from_slice::<Line>(&line?) else {
            break;
        };
        match line {
            Line::Commit { generation: committed } => {
                generation = committed;
                pending.drain(..).for_each(|line| state.apply(line));
            }
            Line::Text { .. } | Line::Put { .. } | Line::MeshConfig { .. } | Line::Remove { .. } => pending.push(line),
        }
    }
    Ok(Restored {
        generation,
        mesh_config: state.mesh_config(),
        kept: objects(&state.texts, state.puts),
    })
}

type Texts = BTreeMap<String, String>;
/// By key: why the object is kept, its document, and its index in a list.
type Puts = BTreeMap<String, (Reason, LocatedDocument, usize)>;

/// State accumulated up to a commit.
#[derive(Default)]
struct Written {
    texts: Texts,
    puts: Puts,
    mesh_config: Option<LocatedDocument>,
}

impl Written {
    fn apply(&mut self, line: Line) {
        match line {
            Line::Text { hash, text } => drop(self.texts.insert(hash, text)),
            Line::Put {
                key,
                why,
                document,
                item,
            } => drop(self.puts.insert(key, (why, document, item))),
            Line::MeshConfig { document } => self.mesh_config = document,
            Line::Remove { key } => drop(self.puts.remove(&key)),
            Line::Commit { .. } => {}
        }
    }

    fn mesh_config(&self) -> Option<Document> {
        let standing = self.mesh_config.clone()?;
        let text = self.texts.get(&standing.text)?;
        Some(standing.restore(text))
    }
}

/// Re-parses the objects from their documents. They were valid when written; an object that this
/// version rejects is dropped, and the directory decides.
fn objects(texts: &Texts, puts: Puts) -> Vec<Kept> {
    let mut documents: BTreeMap<LocatedDocument, Vec<(usize, Why)>> = BTreeMap::new();
    for (reason, document, item) in puts.into_values() {
        let reason = reason.read().map(|why| (item, why));
        documents.entry(document).or_default().extend(reason);
    }
    let mut kept = Vec::new();
    for (standing, reasons) in documents {
        let Some(text) = texts.get(&standing.text) else {
            continue;
        };
        let document = standing.restore(text);
        for object in api::read(&document, &ReadOptions { lenient: true }).objects {
            let object = Arc::new(object);
            let reasons = reasons.iter().filter(|(item, _)| *item == object.order.item);
            kept.extend(reasons.map(|(_, why)| Kept {
                object: object.clone(),
                why: why.clone(),
            }));
        }
    }
    kept
}

#[cfg(test)]
mod tests;
