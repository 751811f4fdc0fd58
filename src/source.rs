//! The directory a user edits: which files it holds, what they say, before anything in them has
//! a meaning.
//!
//! [`watch`] tells when to look, [`tree`] reads files, [`document`] splits them, [`node`] is their
//! YAML.

pub mod document;
mod layout;
pub mod node;
pub mod tree;
pub mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The paths given by the user: directories, read recursively, or single files.
///
/// Paths stay as typed, because that is how diagnostics show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    paths: Vec<PathBuf>,
    passed_over: Vec<PathBuf>,
    marks: &'static [&'static str],
}

impl Root {
    /// A root of several paths. Where they overlap, a file counts once.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            passed_over: Vec::new(),
            marks: &[],
        }
    }

    /// The same root without what is in this directory, should it lie in it, under whichever name.
    #[must_use]
    pub fn without(mut self, directory: impl Into<PathBuf>) -> Self {
        self.passed_over.push(directory.into());
        self
    }

    /// The same root without what is in directories below it that hold files of all these names. A
    /// path of the root itself is read whatever it holds: somebody asked for it.
    #[must_use]
    pub fn without_marked(mut self, marks: &'static [&'static str]) -> Self {
        self.marks = marks;
        self
    }

    /// The paths, as typed and in the order given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Directories that are no part of it.
    fn passed_over(&self) -> &[PathBuf] {
        &self.passed_over
    }

    /// The names of files that, together, mark a directory that is no part of it.
    fn marks(&self) -> &'static [&'static str] {
        self.marks
    }
}

impl From<&Path> for Root {
    fn from(path: &Path) -> Self {
        Self::new([path])
    }
}

/// What may have changed since the last tick: where to look, not what to believe. Content
/// hashes decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Files to read again, as a [`Root`] shows them. One that is gone takes everything under it
    /// along.
    pub paths: BTreeSet<PathBuf>,
    /// Look at everything.
    pub full: bool,
    /// Files being written at this moment. They keep what was last read of them; another tick
    /// follows when they are done.
    pub unsettled: BTreeSet<PathBuf>,
}

impl Dirty {
    /// Look at everything.
    pub fn full() -> Self {
        Self {
            full: true,
            ..Self::default()
        }
    }

    /// Look at these files only.
    pub fn of(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        !self.full && self.paths.is_empty()
    }
}
