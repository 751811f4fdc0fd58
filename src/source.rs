//! Input files: which files a root has, their documents and YAML, before any of it is interpreted.
//!
//! [`watch`] signals changes, [`tree`] reads files, [`document`] splits them and [`node`] parses
//! their YAML.

pub mod document;
mod layout;
pub mod node;
pub mod tree;
pub mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The input paths: directories, read recursively, or single files.
///
/// Paths are kept as typed, which is how diagnostics show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    paths: Vec<PathBuf>,
    passed_over: Vec<PathBuf>,
    marks: &'static [&'static str],
}

impl Root {
    /// A root with several paths. A file reachable by several of them counts once.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            passed_over: Vec::new(),
            marks: &[],
        }
    }

    /// Excludes a directory, if it is within the root, by whatever path it is reached.
    #[must_use]
    pub fn without(mut self, directory: impl Into<PathBuf>) -> Self {
        self.passed_over.push(directory.into());
        self
    }

    /// Excludes directories within the root that have files with all these names. The paths of the
    /// root itself are never excluded, since they were given explicitly.
    #[must_use]
    pub fn without_marked(mut self, marks: &'static [&'static str]) -> Self {
        self.marks = marks;
        self
    }

    /// The paths as typed, in the order given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Excluded directories.
    fn passed_over(&self) -> &[PathBuf] {
        &self.passed_over
    }

    /// Names of files that together mark a directory as excluded.
    fn marks(&self) -> &'static [&'static str] {
        self.marks
    }
}

impl From<&Path> for Root {
    fn from(path: &Path) -> Self {
        Self::new([path])
    }
}

/// What may have changed since the last tick. Only a hint where to look: content hashes decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Files to read again, as displayed paths. For one that was removed, everything below it
    /// counts as removed.
    pub paths: BTreeSet<PathBuf>,
    /// Read everything again.
    pub full: bool,
    /// Files that are being written. Their last content is kept; another tick follows when the
    /// writer is done.
    pub unsettled: BTreeSet<PathBuf>,
}

impl Dirty {
    /// Everything may have changed.
    pub fn full() -> Self {
        Self {
            full: true,
            ..Self::default()
        }
    }

    /// Only these files may have changed.
    pub fn of(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        !self.full && self.paths.is_empty()
    }
}
