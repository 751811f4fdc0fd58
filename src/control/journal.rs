//! The last good generation on disk.
//!
//! An append-only file of JSON lines under the state directory. An edit appends what it changed and
//! a line that commits it, so that its cost follows its size; what follows the last commit (the plug
//! was pulled) is not read. When more than half of the file is of no use any more it is written anew.
//!
//! A text stands in the file once, under its hash, with the origin it was read from; objects refer to
//! it by where they stand in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::{self, ReadOptions};
use crate::diag::SourceText;
use crate::mesh::directory::{Kept, KeptChanges, Target, Why};
use crate::pki::StateDir;
use crate::source::document;

/// The file's name in the state directory.
const FILE: &str = "generation.jsonl";
/// Below this size the file is never written anew.
const SMALL: u64 = 1 << 20;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// A text.
    Text { hash: String, origin: String, text: String },
    /// An object is in force, or one of its earlier forms is kept.
    Put {
        key: String,
        why: Reason,
        text: String,
        document: usize,
        item: usize,
    },
    /// It no longer is.
    Remove { key: String },
    /// Everything up to here belongs to this generation.
    Commit { generation: u64 },
}

/// [`Why`] as the file holds it.
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
}

/// What was found on opening.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The generation, 0 if there was none.
    pub generation: u64,
    /// What was in force, and what was kept beside it.
    pub kept: Vec<Kept>,
}

impl Journal {
    /// Opens the journal of a state directory and reads the last generation committed. A file that
    /// cannot be read is said so and started anew: the directory of YAML is the truth.
    pub(super) fn open(state: &StateDir) -> (Self, Restored) {
        let path = state.path().join(FILE);
        let restored = match read(&path) {
            Ok(restored) => restored,
            Err(error) => {
                let aside = path.with_extension("unreadable");
                let moved = std::fs::rename(&path, &aside);
                let kept = moved.map_or_else(|error| error.to_string(), |()| format!("kept as {}", aside.display()));
                tracing::warn!(
                    "the last good generation cannot be read from {}: {error}; {kept}",
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
        };
        journal.rewrite(restored.generation);
        (journal, restored)
    }

    /// Appends what a generation adds to what is kept, and takes away.
    pub(super) fn append(&mut self, generation: u64, changes: &KeptChanges) {
        let mut lines = Vec::new();
        let mut hashes = Hashes::default();
        for kept in &changes.gone {
            let key = key(kept);
            if self.kept.remove(&key).is_some() {
                lines.push(Line::Remove { key });
            }
        }
        for kept in &changes.new {
            lines.extend(self.lines_of(kept, &mut hashes));
            self.kept.insert(key(kept), kept.clone());
        }
        lines.push(Line::Commit { generation });
        if !self.is_in_place() {
            // Writing failed before, or somebody has taken the file away.
            return self.rewrite(generation);
        }
        self.write(&lines);
        if self.bytes > SMALL && self.bytes > 2 * self.live_bytes_at_rewrite {
            self.rewrite(generation);
        }
    }

    /// Whether what is appended can be found again under the file's name.
    fn is_in_place(&self) -> bool {
        let (Some(file), Ok(found)) = (&self.file, self.path.metadata()) else {
            return false;
        };
        file.metadata()
            .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }

    fn lines_of(&mut self, kept: &Kept, hashes: &mut Hashes) -> Vec<Line> {
        let object = &kept.object;
        let source = &object.document.source;
        let hash = hashes.of(source);
        let mut lines = Vec::new();
        if self.texts.insert(hash.clone()) {
            let (origin, text) = (source.origin.to_string(), source.text.to_string());
            lines.push(Line::Text {
                hash: hash.clone(),
                origin,
                text,
            });
        }
        let (document, item) = (object.document.span.start, object.order.item);
        let why = Reason::from(&kept.why);
        lines.push(Line::Put {
            key: key(kept),
            why,
            text: hash,
            document,
            item,
        });
        lines
    }

    /// Writes the whole state to a new file that takes the place of the old one.
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
        let mut hashes = Hashes::default();
        let all: Vec<Kept> = self.kept.values().cloned().collect();
        let mut lines: Vec<Line> = all.iter().flat_map(|kept| self.lines_of(kept, &mut hashes)).collect();
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
            // Lines are made of strings and numbers, which always serialise.
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

    /// Serving goes on without the journal: it is what a restart needs, not what proxies need.
    fn complain(&mut self, error: &std::io::Error) {
        tracing::error!("the generation cannot be stored in {}: {error}", self.path.display());
        self.file = None;
    }
}

/// What distinguishes a kept object from all others.
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
    let (mut texts, mut puts) = (Texts::new(), Puts::new());
    let (mut pending, mut generation) = (Vec::new(), 0);
    for line in BufReader::new(file).split(b'\n') {
        // A torn line is the last one written before the plug was pulled.
        let Ok(line) = serde_json::from_slice::<Line>(&line?) else {
            break;
        };
        match line {
            Line::Commit { generation: committed } => {
                generation = committed;
                pending.drain(..).for_each(|line| apply(line, &mut texts, &mut puts));
            }
            Line::Text { .. } | Line::Put { .. } | Line::Remove { .. } => pending.push(line),
        }
    }
    Ok(Restored {
        generation,
        kept: objects(&texts, puts),
    })
}

type Texts = BTreeMap<String, Arc<SourceText>>;
/// Where an object stands: the text's hash, the document's start in it, the item of a list.
type Standing = (String, usize, usize);
type Puts = BTreeMap<String, (Reason, Standing)>;

fn apply(line: Line, texts: &mut Texts, puts: &mut Puts) {
    match line {
        Line::Text { hash, origin, text } => drop(texts.insert(hash, SourceText::new(origin, text))),
        Line::Put {
            key,
            why,
            text,
            document,
            item,
        } => drop(puts.insert(key, (why, (text, document, item)))),
        Line::Remove { key } => drop(puts.remove(&key)),
        Line::Commit { .. } => {}
    }
}

/// Reads the objects again from their texts. They were good when they were written; should a newer
/// version of the program think otherwise, the directory decides.
fn objects(texts: &Texts, puts: Puts) -> Vec<Kept> {
    let mut reasons: BTreeMap<Standing, Vec<Why>> = BTreeMap::new();
    for (reason, standing) in puts.into_values() {
        reasons.entry(standing).or_default().extend(reason.read());
    }
    let wanted: BTreeSet<&String> = reasons.keys().map(|(text, ..)| text).collect();
    let mut kept = Vec::new();
    for hash in wanted {
        let Some(source) = texts.get(hash) else { continue };
        for document in document::split(source) {
            for object in api::read(&document, &ReadOptions { lenient: true }).objects {
                let object = Arc::new(object);
                let standing = (hash.clone(), document.span.start, object.order.item);
                let reasons = reasons.get(&standing).into_iter().flatten();
                kept.extend(reasons.map(|why| Kept {
                    object: object.clone(),
                    why: why.clone(),
                }));
            }
        }
    }
    kept
}

/// The hashes of texts that many objects share, each taken once.
#[derive(Default)]
struct Hashes(BTreeMap<*const SourceText, String>);

impl Hashes {
    fn of(&mut self, source: &Arc<SourceText>) -> String {
        self.0
            .entry(Arc::as_ptr(source))
            .or_insert_with(|| text_hash(source))
            .clone()
    }
}

fn text_hash(source: &SourceText) -> String {
    let digest = Sha256::new()
        .chain_update(source.origin.as_bytes())
        .chain_update([0])
        .chain_update(source.text.as_bytes());
    digest.finalize().iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_taken_away_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("state")).unwrap();
        let (mut journal, _) = Journal::open(&state);
        journal.append(1, &KeptChanges::default());
        for (generation, take_away) in [(2, false), (3, true)] {
            match take_away {
                true => std::fs::remove_dir_all(state.path()).unwrap(),
                false => std::fs::remove_file(state.path().join(FILE)).unwrap(),
            }
            journal.append(generation, &KeptChanges::default());
            StateDir::open(state.path()).unwrap();
            journal.append(generation, &KeptChanges::default());
            assert_eq!(read(&state.path().join(FILE)).unwrap().generation, generation);
        }
    }
}
