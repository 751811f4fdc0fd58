//! Several files, all of them or none.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::compose::{Marked, MarkedState};
use crate::diag::{Code, Diagnostic, Place, SourceText};

/// What becomes of a file that somebody else has written in the place of a generated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It counts, and is not replaced.
    Keep,
    /// Nothing is written.
    Refuse,
}

/// What was done to a file, or would be.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) path: PathBuf,
    pub(super) change: Kind,
    /// What would be in it, where nothing is written.
    text: Option<String>,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Written,
    Replaced,
    Unchanged,
    Removed,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        }
    }
}

impl Done {
    pub(super) fn json(&self) -> Value {
        let mut json = json!({"path": self.path, "change": self.change.word()});
        if let Some(text) = &self.text {
            json["text"] = json!(text);
        }
        json
    }
}

/// What is to be written and removed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    path: PathBuf,
    /// None removes it.
    text: Option<String>,
    foreign: Foreign,
    /// What is there now.
    present: Option<String>,
}

impl Batch {
    /// Adds a file.
    pub(super) fn put(&mut self, path: PathBuf, text: String, foreign: Foreign) {
        // What cannot be read is found out when it is written.
        let present = fs::read_to_string(&path).ok();
        self.changes.push(Change {
            path,
            text: Some(text),
            foreign,
            present,
        });
    }

    /// Removes the generated files of this owner in a folder that are not to be there any more.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn remove_others(&mut self, folder: &Path, owner: &str) -> anyhow::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let Ok(present) = fs::read_to_string(&path) else {
                continue;
            };
            let is_ours = Marked::read(&present).is_some_and(|marked| marked.owner == owner);
            if is_ours && !self.changes.iter().any(|change| change.path == path) {
                self.changes.push(Change {
                    path,
                    text: None,
                    foreign: Foreign::Keep,
                    present: Some(present),
                });
            }
        }
        Ok(())
    }

    /// Drops what is not to be done: files that somebody has taken over stay. What keeps all from being done is reported,
    /// unless `force` says that edits do not count.
    pub(super) fn check(&mut self, force: bool) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        self.changes.retain(|change| {
            let Some(present) = &change.present else { return true };
            let (problem, stays) = match (MarkedState::of(present), change.foreign) {
                _ if force => return true,
                (MarkedState::Ours, _) => return true,
                (MarkedState::Foreign, Foreign::Keep) => {
                    let problem = change.problem("this file stays as it is: somebody has written it or taken it over");
                    (problem.severity(crate::diag::Severity::Info), false)
                }
                (MarkedState::Foreign, Foreign::Refuse) => {
                    let problem = change.problem("this file is not replaced: `topsail inject` has not made it");
                    (problem.help("move it away, or replace it with --force"), true)
                }
                (MarkedState::Edited, _) => {
                    let problem =
                        change.problem("this file is not replaced: it was generated and has been edited since");
                    let help = "remove its first line to keep it as yours, or undo the edit with --force";
                    (problem.help(help), true)
                }
            };
            problems.push(problem);
            stays
        });
        problems
    }

    /// Prints the files that would be there.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(super) fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for change in &self.changes {
            match &change.text {
                Some(text) => write!(out, "--- # {}\n{text}", change.path.display())?,
                None => writeln!(out, "--- # {} is removed", change.path.display())?,
            }
        }
        Ok(())
    }

    /// Writes everything beside its place first, then puts it there. Says what was done.
    ///
    /// # Errors
    /// When something cannot be written; all is then as before.
    pub(super) fn write(self) -> anyhow::Result<Vec<Done>> {
        let due: Vec<&Change> = self
            .changes
            .iter()
            .filter(|change| change.text != change.present)
            .collect();
        let staged: Vec<PathBuf> = due.iter().map(|change| change.staged()).collect();
        let done = due
            .iter()
            .try_for_each(|change| change.stage())
            .and_then(|()| replace(&due));
        // They are in their places, or of no use.
        staged.iter().for_each(|path| drop(fs::remove_file(path)));
        done?;
        Ok(self.changes.iter().map(|change| change.done(None)).collect())
    }

    /// What would be done.
    pub(super) fn outlook(&self) -> Vec<Done> {
        let done = |change: &Change| change.done(change.text.clone());
        self.changes.iter().map(done).collect()
    }
}

/// Puts what is staged in its place. What was there is put back if one of them fails.
fn replace(due: &[&Change]) -> anyhow::Result<()> {
    for (at, change) in due.iter().enumerate() {
        if let Err(error) = change.apply() {
            due[..at].iter().for_each(|change| change.undo());
            return Err(error);
        }
    }
    Ok(())
}

impl Change {
    fn problem(&self, message: &str) -> Diagnostic {
        let present = self.present.clone().unwrap_or_default();
        let source = SourceText::new(self.path.display().to_string(), present);
        let line = source.text.find('\n').unwrap_or(source.text.len());
        Diagnostic::new(Code::EditedFile, message).at(Place { source, span: 0..line })
    }

    /// A hidden name in the same folder, which no reader of configuration looks at.
    fn staged(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.path.with_file_name(format!(".{name}.{}", std::process::id()))
    }

    fn stage(&self) -> anyhow::Result<()> {
        let Some(text) = &self.text else { return Ok(()) };
        let failed = || format!("cannot write {}", self.path.display());
        if let Some(folder) = self.path.parent().filter(|folder| *folder != Path::new("")) {
            fs::create_dir_all(folder).with_context(failed)?;
        }
        let staged = self.staged();
        fs::write(&staged, text).with_context(failed)?;
        // Containers read it as another user.
        fs::set_permissions(&staged, Permissions::from_mode(0o644)).with_context(failed)
    }

    fn apply(&self) -> anyhow::Result<()> {
        match self.text {
            Some(_) => fs::rename(self.staged(), &self.path),
            None => fs::remove_file(&self.path),
        }
        .with_context(|| format!("cannot replace {}", self.path.display()))
    }

    fn undo(&self) {
        // If this fails too, the error that led here says where it began.
        let _ = match &self.present {
            Some(text) => fs::write(&self.path, text),
            None => fs::remove_file(&self.path),
        };
    }

    fn done(&self, text: Option<String>) -> Done {
        Done {
            path: self.path.clone(),
            change: match (&self.text, &self.present) {
                (None, _) => Kind::Removed,
                (Some(text), Some(present)) if text == present => Kind::Unchanged,
                (Some(_), Some(_)) => Kind::Replaced,
                (Some(_), None) => Kind::Written,
            },
            text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(folder: &Path, files: &[(&str, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (name, body) in files {
            batch.put(folder.join(name), Marked::write("o.yml", body), Foreign::Keep);
        }
        batch.remove_others(folder, "o.yml").unwrap();
        batch
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_gone_is_removed_and_what_is_taken_over_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        batch(path, &[("a", "1"), ("b", "1"), ("c", "1")]).write().unwrap();
        fs::write(path.join("c"), "mine").unwrap();
        fs::write(path.join("d"), Marked::write("other.yml", "1")).unwrap();
        let mut again = batch(path, &[("b", "2"), ("c", "2")]);
        let stays = again.check(false);
        assert_eq!((stays.len(), stays[0].severity), (1, crate::diag::Severity::Info));
        again.write().unwrap();
        assert_eq!(names(path), ["b", "c", "d"]);
        assert_eq!(fs::read_to_string(path.join("c")).unwrap(), "mine");
        let mut same = batch(path, &[("b", "2")]);
        assert_eq!(same.check(false), []);
        let done = same.write().unwrap();
        assert_eq!((done.len(), done[0].change), (1, Kind::Unchanged));
    }

    #[test]
    fn an_edit_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        batch(path, &[("a", "1\n")]).write().unwrap();
        let text = fs::read_to_string(path.join("a")).unwrap();
        fs::write(path.join("a"), text + "2\n").unwrap();
        let found = batch(path, &[("a", "3\n")]).check(false);
        assert_eq!((found.len(), found[0].severity), (1, crate::diag::Severity::Error));
        assert_eq!(batch(path, &[]).check(false).len(), 1, "nor is it removed");
        assert_eq!(batch(path, &[("a", "3\n")]).check(true), []);
    }

    #[test]
    fn all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        batch(path, &[("a", "1"), ("z", "1")]).write().unwrap();
        let before = fs::read_to_string(path.join("a")).unwrap();
        fs::create_dir_all(path.join("m/in the way")).unwrap();
        let failed = batch(path, &[("a", "2"), ("b", "2"), ("m", "2")]).write();
        assert!(failed.unwrap_err().to_string().contains("/m"));
        assert_eq!(names(path), ["a", "m", "z"]);
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), before);
    }
}
