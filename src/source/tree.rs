//! The files of a root as last read: an immutable value that is cheap to clone.

mod read;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imbl::OrdMap;

use self::read::{Reading, Stamp};
use super::layout::Layout;
use super::{Dirty, Root};
use crate::diag::{Code, Diagnostic, Place, SourceText};

/// A file as last read.
#[derive(Debug)]
pub struct FileState {
    /// The shown path: a path of the root as typed, joined with the path below it.
    pub origin: Arc<str>,
    /// Its content.
    pub content: Content,
}

/// Content of a file.
#[derive(Debug)]
pub enum Content {
    /// Text.
    Text {
        /// The text and its origin.
        source: Arc<SourceText>,
        /// SHA-256 of the bytes.
        hash: [u8; 32],
    },
    /// It cannot be read or used: no permission, not UTF-8, too large; also a path of the root that
    /// does not exist. Previous content is neither confirmed nor removed.
    Unreadable(Diagnostic),
}

impl Content {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Content::Text { hash: mine, .. }, Content::Text { hash: theirs, .. }) => mine == theirs,
            (Content::Unreadable(mine), Content::Unreadable(theirs)) => mine == theirs,
            (Content::Text { .. }, Content::Unreadable(_)) | (Content::Unreadable(_), Content::Text { .. }) => false,
        }
    }
}

/// Difference of a file between two trees, by content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    Added(Arc<str>),
    /// Its content changed.
    Modified(Arc<str>),
    /// It was removed.
    Removed(Arc<str>),
}

/// All files of a root. Clones share their content.
///
/// The order of paths, by bytes, is the order of precedence where Istio lets the oldest object win.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: OrdMap<Arc<str>, Entry>,
    /// For each path of the root, the directory in which files were last found.
    homes: BTreeMap<PathBuf, Home>,
}

/// Distinguishes a directory from another one at the same path: device, inode and, as inodes are
/// reused, creation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home(u64, u64, Option<SystemTime>);

impl Home {
    /// The directory at a path, if there is one.
    fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
        Some(Self(metadata.dev(), metadata.ino(), metadata.created().ok()))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    state: Arc<FileState>,
    /// `None` if there is nothing to compare with, so that the file is always read.
    stamp: Option<Stamp>,
}

impl Tree {
    /// Reads all files.
    pub fn scan(root: &Root) -> Self {
        Self::default().rescan(root, &Dirty::full()).0
    }

    /// Re-reads what is dirty. The cost is proportional to the dirty paths; a full rescan only
    /// reads files whose size, times or inode changed. Changes are in path order.
    ///
    /// While a path of the root is missing, cannot be listed, or is a different, empty directory,
    /// nothing below it counts as removed: an unmounted volume must not empty the mesh. The path
    /// itself appears as [`Content::Unreadable`].
    pub fn rescan(&self, root: &Root, dirty: &Dirty) -> (Self, Vec<Change>) {
        let mut scan = Scan {
            tree: self.clone(),
            changes: Vec::new(),
        };
        let mut full = dirty.full;
        let rooted = full || root.paths().iter().all(|path| scan.is_at_home(path));
        for path in &dirty.paths {
            match read::read(path) {
                Reading::Absent if !rooted => full = true,
                reading => scan.take(path, reading),
            }
        }
        if full {
            scan.everything(root, dirty);
        } else if !rooted {
            scan.settle_in(root, |home| dirty.paths.iter().any(|path| path.starts_with(home)));
        }
        scan.changes.sort_by(|a, b| a.origin().cmp(b.origin()));
        (scan.tree, scan.changes)
    }

    /// The files in order of precedence.
    pub fn files(&self) -> impl Iterator<Item = &Arc<FileState>> {
        self.entries.values().map(|entry| &entry.state)
    }

    /// Age of the most recent change, by the files' modification times. Ignores times in the
    /// future.
    pub fn age_of_last_change(&self, now: SystemTime) -> Option<Duration> {
        let written = |file: &Arc<FileState>| fs::metadata(&*file.origin).and_then(|metadata| metadata.modified());
        let times = self.files().filter_map(|file| written(file).ok());
        times.filter_map(|time| now.duration_since(time).ok()).min()
    }

    /// The file with this origin.
    pub fn get(&self, origin: &str) -> Option<&Arc<FileState>> {
        self.entries.get(origin).map(|entry| &entry.state)
    }
}

impl Change {
    /// The shown path.
    pub fn origin(&self) -> &Arc<str> {
        match self {
            Change::Added(origin) | Change::Modified(origin) | Change::Removed(origin) => origin,
        }
    }
}

struct Scan {
    tree: Tree,
    changes: Vec<Change>,
}

impl Scan {
    fn everything(&mut self, root: &Root, dirty: &Dirty) {
        let layout = Layout::scan(root);
        for path in layout.files.keys() {
            if !dirty.unsettled.contains(path) && !self.is_current(path) {
                self.take(path, read::read(path));
            }
        }
        for (path, reason) in &layout.unreadable {
            if !dirty.unsettled.contains(path) {
                self.take(path, unlisted(path, reason));
            }
        }
        let others = root
            .paths()
            .iter()
            .filter(|path| !self.is_at_home(path) && !layout.has_files(path));
        let emptied: Vec<_> = others.filter(|path| path.is_dir()).collect();
        for path in &emptied {
            self.take(path, unlisted(path, "it was replaced by an empty directory"));
        }
        self.retain(|path| {
            layout.files.contains_key(path)
                || layout.is_unknown(path)
                || dirty.unsettled.contains(path)
                || emptied.iter().any(|emptied| path.starts_with(emptied))
        });
        self.settle_in(root, |home| layout.has_files(home));
    }

    /// Whether a path of the root exists and, if it is a directory, is the one in which files were
    /// found before.
    fn is_at_home(&self, path: &Path) -> bool {
        match self.tree.homes.get(path) {
            Some(home) => Home::at(path) == Some(*home),
            None => path.exists(),
        }
    }

    /// Records the directories in which files were found, and clears their problems.
    fn settle_in(&mut self, root: &Root, has_files: impl Fn(&Path) -> bool) {
        for path in root.paths().iter().filter(|path| has_files(path)) {
            match Home::at(path) {
                Some(home) => {
                    self.tree.homes.insert(path.clone(), home);
                    self.remove(&path.to_string_lossy(), true);
                }
                None => drop(self.tree.homes.remove(path)),
            }
        }
    }

    /// Whether the file is unchanged since it was read.
    fn is_current(&self, path: &Path) -> bool {
        let entry = self.tree.entries.get(&*path.to_string_lossy());
        entry.is_some_and(|entry| entry.stamp.as_ref().is_some_and(|stamp| stamp.is_current(path)))
    }

    fn take(&mut self, path: &Path, reading: Reading) {
        let origin = path.to_string_lossy();
        match reading {
            Reading::Absent => self.remove(&origin, path.is_dir()),
            // It is being written: keep the previous content until the writer is done.
            Reading::Torn { .. } if self.tree.entries.contains_key(&*origin) => {}
            Reading::Torn { content } => self.put(&origin, content, None),
            Reading::File { content, stamp } => self.put(&origin, content, stamp),
        }
    }

    fn put(&mut self, origin: &str, content: Content, stamp: Option<Stamp>) {
        if let Some(entry) = self.tree.entries.get_mut(origin) {
            entry.stamp = stamp;
            if entry.state.content.same(&content) {
                return;
            }
        }
        let origin: Arc<str> = origin.into();
        let state = Arc::new(FileState {
            origin: origin.clone(),
            content,
        });
        let before = self.tree.entries.insert(origin.clone(), Entry { state, stamp });
        self.changes.push(match before {
            Some(_) => Change::Modified(origin),
            None => Change::Added(origin),
        });
    }

    /// Removes a path and, unless it is now a directory, everything below it.
    fn remove(&mut self, origin: &str, is_directory: bool) {
        let below = format!("{}/", origin.trim_end_matches('/'));
        let children = self
            .tree
            .entries
            .range::<_, str>((Bound::Included(&*below), Bound::Unbounded));
        let children = children.map(|(path, _)| path.clone()).filter(|_| !is_directory);
        let mut gone: Vec<_> = children.take_while(|path| path.starts_with(&below)).collect();
        gone.extend(self.tree.entries.get_key_value(origin).map(|(path, _)| path.clone()));
        self.drop_all(gone);
    }

    fn retain(&mut self, keep: impl Fn(&Path) -> bool) {
        let gone = self.tree.entries.keys().filter(|origin| !keep(Path::new(&***origin)));
        let gone = gone.cloned().collect();
        self.drop_all(gone);
    }

    fn drop_all(&mut self, gone: Vec<Arc<str>>) {
        for origin in gone {
            self.tree.entries.remove(&*origin);
            self.changes.push(Change::Removed(origin));
        }
    }
}

/// Placeholder for a path that cannot be listed.
fn unlisted(path: &Path, reason: &str) -> Reading {
    let origin = path.to_string_lossy();
    let place = Place {
        source: SourceText::new(&*origin, ""),
        span: 0..0,
    };
    let diagnostic = Diagnostic::new(Code::UnreadableFile, format!("`{origin}` cannot be read: {reason}"))
        .at(place)
        .help("the configuration last read from this path stays in effect until it can be read again");
    Reading::File {
        content: Content::Unreadable(diagnostic),
        stamp: None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Folder {
        directory: tempfile::TempDir,
        root: Root,
    }

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let folder = Self {
                root: directory.path().into(),
                directory,
            };
            files.iter().for_each(|(name, text)| folder.write(name, text));
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), text).unwrap();
        }

        /// Changes as `+name`, `~name`, `-name`.
        fn rescan(&self, tree: &mut Tree, dirty: &Dirty) -> Vec<String> {
            let (next, changes) = tree.rescan(&self.root, dirty);
            *tree = next;
            let short = |origin: &Arc<str>| {
                Path::new(&**origin)
                    .strip_prefix(self.directory.path())
                    .unwrap()
                    .display()
                    .to_string()
            };
            let show = |change: &Change| match change {
                Change::Added(origin) => format!("+{}", short(origin)),
                Change::Modified(origin) => format!("~{}", short(origin)),
                Change::Removed(origin) => format!("-{}", short(origin)),
            };
            changes.iter().map(show).collect()
        }

        fn dirty(&self, names: &[&str]) -> Dirty {
            Dirty::of(names.iter().map(|name| self.path(name)))
        }
    }

    fn text<'a>(tree: &'a Tree, path: &Path) -> Option<&'a str> {
        match &tree.get(&path.to_string_lossy())?.content {
            Content::Text { source, .. } => Some(&source.text),
            Content::Unreadable(_) => None,
        }
    }

    #[test]
    fn files_come_in_path_order() {
        let folder = Folder::new(&[
            ("b.yaml", "b"),
            ("a/z.yaml", "z"),
            ("a-.yaml", "-"),
            ("a/b/c.json", "c"),
        ]);
        let tree = Tree::scan(&folder.root);
        let origins: Vec<_> = tree.files().map(|file| file.origin.to_string()).collect();
        let expected =
            ["a-.yaml", "a/b/c.json", "a/z.yaml", "b.yaml"].map(|name| folder.path(name).display().to_string());
        assert_eq!(origins, expected);
        assert_eq!(text(&tree, &folder.path("a/z.yaml")), Some("z"));
    }

    #[test]
    fn only_dirty_paths_are_read_and_the_rest_is_shared() {
        let folder = Folder::new(&[("a.yaml", "1"), ("b.yaml", "1")]);
        let first = Tree::scan(&folder.root);
        folder.write("a.yaml", "2");
        folder.write("b.yaml", "2");
        let mut tree = first.clone();
        assert_eq!(folder.rescan(&mut tree, &folder.dirty(&["a.yaml"])), ["~a.yaml"]);
        assert_eq!(text(&tree, &folder.path("b.yaml")), Some("1"));
        let b = folder.path("b.yaml").display().to_string();
        assert!(Arc::ptr_eq(first.get(&b).unwrap(), tree.get(&b).unwrap()));
        assert_eq!(
            text(&first, &folder.path("a.yaml")),
            Some("1"),
            "the old tree is as it was"
        );
    }

    #[test]
    fn rewriting_the_same_bytes_is_no_change() {
        let folder = Folder::new(&[("a.yaml", "1")]);
        let mut tree = Tree::scan(&folder.root);
        let before = tree.files().next().unwrap().clone();
        fs::remove_file(folder.path("a.yaml")).unwrap();
        folder.write("a.yaml", "1");
        assert!(folder.rescan(&mut tree, &folder.dirty(&["a.yaml"])).is_empty());
        folder.write("new", "1");
        fs::rename(folder.path("new"), folder.path("a.yaml")).unwrap();
        assert!(folder.rescan(&mut tree, &Dirty::full()).is_empty());
        assert!(Arc::ptr_eq(&before, tree.files().next().unwrap()));
    }

    #[test]
    fn a_full_rescan_finds_all_kinds_of_change() {
        let folder = Folder::new(&[("a.yaml", "1"), ("b.yaml", "1"), ("d/c.yaml", "1"), ("d/e/f.yaml", "1")]);
        let mut tree = Tree::scan(&folder.root);
        assert!(folder.rescan(&mut tree, &Dirty::full()).is_empty());
        folder.write("a.yaml", "2");
        folder.write("n.yaml", "1");
        fs::remove_dir_all(folder.path("d")).unwrap();
        let changes = folder.rescan(&mut tree, &Dirty::full());
        assert_eq!(changes, ["~a.yaml", "-d/c.yaml", "-d/e/f.yaml", "+n.yaml"]);
    }

    #[test]
    fn removing_a_directory_removes_only_its_files() {
        let folder = Folder::new(&[
            ("d/a.yaml", "1"),
            ("d/e/b.yaml", "1"),
            ("d.yaml", "1"),
            ("da.yaml", "1"),
        ]);
        let mut tree = Tree::scan(&folder.root);
        fs::remove_dir_all(folder.path("d")).unwrap();
        assert_eq!(
            folder.rescan(&mut tree, &folder.dirty(&["d"])),
            ["-d/a.yaml", "-d/e/b.yaml"]
        );
    }

    #[test]
    fn a_file_being_written_keeps_its_previous_content() {
        let folder = Folder::new(&[("a.yaml", "1"), ("gone.yaml", "1")]);
        let mut tree = Tree::scan(&folder.root);
        folder.write("a.yaml", "half");
        fs::remove_file(folder.path("gone.yaml")).unwrap();
        let mut dirty = Dirty::full();
        dirty.unsettled = [folder.path("a.yaml"), folder.path("gone.yaml")].into();
        assert!(folder.rescan(&mut tree, &dirty).is_empty());
        assert_eq!(folder.rescan(&mut tree, &Dirty::full()), ["~a.yaml", "-gone.yaml"]);
    }

    #[test]
    fn a_change_with_equal_length_and_time_stamp_is_found() {
        let folder = Folder::new(&[("a.yaml", "1")]);
        let mut tree = Tree::scan(&folder.root);
        for round in 2..9 {
            folder.write("a.yaml", &round.to_string());
            assert_eq!(folder.rescan(&mut tree, &Dirty::full()), ["~a.yaml"]);
        }
    }

    #[test]
    fn a_missing_root_removes_nothing() {
        let folder = Folder::new(&[("mesh/a.yaml", "1"), ("mesh/b.yaml", "1")]);
        let folder = Folder {
            root: Root::new([folder.path("mesh")]),
            ..folder
        };
        let mut tree = Tree::scan(&folder.root);
        fs::rename(folder.path("mesh"), folder.path("away")).unwrap();
        assert_eq!(folder.rescan(&mut tree, &folder.dirty(&["mesh/a.yaml"])), ["+mesh"]);
        assert!(text(&tree, &folder.path("mesh/a.yaml")).is_some());
        let Content::Unreadable(diagnostic) = &tree.files().next().unwrap().content else {
            panic!("the missing root should be a problem");
        };
        assert!(
            diagnostic.message.ends_with("/mesh` cannot be read: it does not exist"),
            "{}",
            diagnostic.message
        );
        folder.write("mesh/b.yaml", "1");
        assert_eq!(folder.rescan(&mut tree, &Dirty::full()), ["-mesh", "-mesh/a.yaml"]);
    }

    #[test]
    fn an_empty_replacement_of_the_root_removes_nothing() {
        let folder = Folder::new(&[("mesh/a.yaml", "1"), ("mesh/b.yaml", "1")]);
        let folder = Folder {
            root: Root::new([folder.path("mesh")]),
            ..folder
        };
        for hint in [Dirty::full(), folder.dirty(&["mesh/a.yaml", "mesh/b.yaml"])] {
            let mut tree = Tree::scan(&folder.root);
            fs::remove_dir_all(folder.path("mesh")).unwrap();
            fs::create_dir(folder.path("mesh")).unwrap();
            assert_eq!(folder.rescan(&mut tree, &hint), ["+mesh"]);
            assert!(text(&tree, &folder.path("mesh/a.yaml")).is_some());
            assert_eq!(folder.rescan(&mut tree, &Dirty::full()), [""; 0]);
            folder.write("mesh/b.yaml", "1");
            assert_eq!(folder.rescan(&mut tree, &Dirty::full()), ["-mesh", "-mesh/a.yaml"]);
            folder.write("mesh/a.yaml", "1");
        }
    }

    #[test]
    fn the_first_file_in_a_new_root_clears_its_diagnostic() {
        let folder = Folder::new(&[("mesh/a.yaml", "1"), ("mesh/b.yaml", "1")]);
        let folder = Folder {
            root: Root::new([folder.path("mesh")]),
            ..folder
        };
        for (turn, stands_empty) in [(2, true), (3, false)] {
            let mut tree = Tree::scan(&folder.root);
            fs::rename(folder.path("mesh"), folder.path(&format!("aside-{turn}"))).unwrap();
            if stands_empty {
                fs::create_dir(folder.path("mesh")).unwrap();
            }
            assert_eq!(folder.rescan(&mut tree, &Dirty::full()), ["+mesh"]);
            folder.write("mesh/b.yaml", &turn.to_string());
            let changes = folder.rescan(&mut tree, &folder.dirty(&["mesh/b.yaml"]));
            assert_eq!(changes, ["-mesh", "~mesh/b.yaml"]);
            folder.write("mesh/a.yaml", "1");
        }
    }

    #[test]
    fn files_can_be_removed_individually_from_a_replaced_root() {
        let folder = Folder::new(&[("mesh/a.yaml", "1")]);
        let folder = Folder {
            root: Root::new([folder.path("mesh")]),
            ..folder
        };
        let mut tree = Tree::scan(&folder.root);
        fs::rename(folder.path("mesh"), folder.path("aside")).unwrap();
        folder.write("mesh/a.yaml", "2");
        assert_eq!(
            folder.rescan(&mut tree, &folder.dirty(&["mesh/a.yaml"])),
            ["~mesh/a.yaml"]
        );
        fs::remove_file(folder.path("mesh/a.yaml")).unwrap();
        assert_eq!(
            folder.rescan(&mut tree, &folder.dirty(&["mesh/a.yaml"])),
            ["-mesh/a.yaml"]
        );
    }

    #[test]
    fn a_linked_file_has_the_path_of_the_link() {
        let folder = Folder::new(&[("..1/a.yaml", "1"), ("..2/a.yaml", "2")]);
        symlink("..1", folder.path("..data")).unwrap();
        symlink("..data/a.yaml", folder.path("a.yaml")).unwrap();
        let mut tree = Tree::scan(&folder.root);
        assert_eq!(text(&tree, &folder.path("a.yaml")), Some("1"));
        symlink("..2", folder.path("..tmp")).unwrap();
        fs::rename(folder.path("..tmp"), folder.path("..data")).unwrap();
        assert_eq!(folder.rescan(&mut tree, &folder.dirty(&["a.yaml"])), ["~a.yaml"]);
        fs::remove_file(folder.path("..data")).unwrap();
        assert_eq!(folder.rescan(&mut tree, &Dirty::full()), ["~a.yaml"]);
        assert_eq!(
            text(&tree, &folder.path("a.yaml")),
            None,
            "a link to nothing is a problem, not a removal"
        );
    }

    #[test]
    fn an_unreadable_file_does_not_affect_others() {
        let folder = Folder::new(&[("a.yaml", "1"), ("b.yaml", "1")]);
        fs::set_permissions(folder.path("a.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
        let tree = Tree::scan(&folder.root);
        assert_eq!(tree.files().count(), 2);
        assert_eq!(text(&tree, &folder.path("b.yaml")), Some("1"));
    }
}
