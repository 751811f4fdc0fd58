//! Determines which files a root has and which paths that depends on; shared by the tree and the
//! watcher.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::Root;

/// Maximum number of symbolic links on the way to a file, as in the kernel (`ELOOP`).
const MAX_LINKS: usize = 40;

/// Device and inode: distinguishes a directory from another one at the same path.
pub(super) type Identity = (u64, u64);

/// The files of a root at one moment.
///
/// *Shown* paths are displayed to users: a path of the root as typed, joined with the path below
/// it. *Real* paths are absolute and without symbolic links, as in file events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Input files: real paths by shown path.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// Listed directories by real path. Each is listed once, so link loops terminate.
    pub(super) directories: BTreeMap<PathBuf, Directory>,
    /// Real paths, other than files and listed directories, that a shown path depends on: links on
    /// the way to it, the target of a link, and the first path component that does not exist.
    pub(super) waypoints: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// Shown paths that cannot be listed, and why. Their content is unknown, not removed.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
    /// Real paths of files not covered by the events of a directory: single files of the root, and
    /// bind mounts.
    pub(super) lone_files: BTreeSet<PathBuf>,
    /// Names of files that together mark a directory as excluded.
    pub(super) marks: &'static [&'static str],
}

/// A listed directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directory {
    /// Its shown path.
    pub(super) shown: PathBuf,
    /// Its device and inode.
    pub(super) identity: Identity,
}

impl Layout {
    /// Walks the root. Never fails: paths that cannot be listed are in [`Layout::unreadable`].
    ///
    /// Directories are walked before links to them, so a directory reachable both ways gets its own
    /// path.
    pub(super) fn scan(root: &Root) -> Self {
        let mut walk = Walk::default();
        walk.layout.marks = root.marks();
        let passed_over = root.passed_over().iter().filter_map(|path| fs::metadata(path).ok());
        walk.listed.extend(passed_over.map(|metadata| identity(&metadata)));
        for path in root.paths() {
            walk.root(path);
        }
        while let Some((shown, real)) = walk.linked.pop_first() {
            if !walk.is_marked(&real) {
                walk.directory(shown, real);
            }
        }
        for (shown, real) in std::mem::take(&mut walk.single) {
            walk.single_file(shown, real);
        }
        walk.layout
    }

    /// Whether a file is at or below `shown`.
    pub(super) fn has_files(&self, shown: &Path) -> bool {
        let next = self.files.range(shown.to_owned()..).next();
        next.is_some_and(|(file, _)| file.starts_with(shown))
    }

    /// Whether a file with this name may mark its directory as excluded.
    pub(super) fn is_mark(&self, name: &OsStr) -> bool {
        self.marks.iter().any(|mark| name == *mark)
    }

    /// Whether `shown` is at or below a path that could not be listed.
    pub(super) fn is_unknown(&self, shown: &Path) -> bool {
        !self.unreadable.is_empty() && shown.ancestors().any(|path| self.unreadable.contains_key(path))
    }
}

/// Whether a file with this name is an input: `*.yaml`, `*.yml` or `*.json`, unless hidden or an
/// editor's temporary file (`.a.yaml.swp`, `a.yaml~`, `#a.yaml#`, `4913`, `a.yaml.tmp`).
pub(super) fn is_input_name(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !is_hidden(name) && !name.as_encoded_bytes().starts_with(b"#") && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Whether the name starts with a dot, like files of editors and the `..data` of a Kubernetes
/// volume.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

#[derive(Default)]
struct Walk {
    layout: Layout,
    /// Directories not to be listed (again).
    listed: HashSet<Identity>,
    /// Links to directories that have not been followed yet.
    linked: BTreeMap<PathBuf, PathBuf>,
    /// Paths of the root that are files.
    single: BTreeMap<PathBuf, PathBuf>,
}

impl Walk {
    fn root(&mut self, shown: &Path) {
        let resolved = std::path::absolute(shown).and_then(|path| self.resolve(Path::new("/"), &path, shown));
        match resolved {
            Ok((real, metadata)) if metadata.is_dir() => self.directory(shown.to_owned(), real),
            Ok((real, _)) => {
                self.single.insert(shown.to_owned(), real);
            }
            Err(error) => self.unreadable(shown, &error),
        }
    }

    /// Whether a directory has all files that mark it as excluded.
    fn is_marked(&self, real: &Path) -> bool {
        let marks = self.layout.marks;
        !marks.is_empty() && marks.iter().all(|mark| real.join(mark).is_file())
    }

    fn unreadable(&mut self, shown: &Path, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "it does not exist".to_owned(),
            _ => error.to_string(),
        };
        self.layout.unreadable.insert(shown.to_owned(), reason);
    }

    /// Lists a directory and the directories below it, without following links.
    fn directory(&mut self, shown: PathBuf, real: PathBuf) {
        let mut pending = vec![(shown, real)];
        while let Some((shown, real)) = pending.pop() {
            match fs::metadata(&real).and_then(|metadata| Ok((metadata, list(&real)?))) {
                Ok((metadata, entries)) => {
                    let identity = identity(&metadata);
                    if self.listed.insert(identity) {
                        let below = entries.iter().filter_map(|entry| self.entry(&shown, &real, entry));
                        pending.extend(below);
                        self.layout.directories.insert(real, Directory { shown, identity });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.unreadable(&shown, &error),
            }
        }
    }

    /// Processes a directory entry; a directory is returned to be listed.
    fn entry(&mut self, shown: &Path, real: &Path, entry: &fs::DirEntry) -> Option<(PathBuf, PathBuf)> {
        let name = entry.file_name();
        if is_hidden(&name) {
            return None;
        }
        let (shown, real) = (shown.join(&name), real.join(&name));
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            return (!self.is_marked(&real)).then_some((shown, real));
        }
        if kind.is_symlink() {
            self.link(shown, real, &name);
        } else if kind.is_file() && is_input_name(&name) {
            if is_mount_point(&real) {
                self.layout.lone_files.insert(real.clone());
            }
            self.layout.files.insert(shown, real);
        }
        None
    }

    fn link(&mut self, shown: PathBuf, real: PathBuf, name: &OsStr) {
        let directory = real.parent().unwrap_or(Path::new("/"));
        match self.resolve(directory, Path::new(name), &shown) {
            Ok((target, metadata)) if metadata.is_dir() => {
                self.linked.insert(shown, target);
            }
            Ok((target, metadata)) if metadata.is_file() && is_input_name(name) => {
                self.layout.files.insert(shown, target);
            }
            Ok(_) => {}
            Err(_) if is_input_name(name) => {
                self.layout.files.insert(shown, real);
            }
            Err(_) => {}
        }
    }

    /// Adds a path of the root that is a file, unless the walk has already found it.
    fn single_file(&mut self, shown: PathBuf, real: PathBuf) {
        let met = |name: &OsStr| is_input_name(name) && self.listed_parent(&real);
        if !real.file_name().is_some_and(met) {
            self.layout.lone_files.insert(real.clone());
            self.layout.files.insert(shown, real);
        }
    }

    fn listed_parent(&self, real: &Path) -> bool {
        real.parent()
            .is_some_and(|parent| self.layout.directories.contains_key(parent))
    }

    /// Resolves `path` from the real directory `base`, link by link, recording every waypoint.
    fn resolve(&mut self, base: &Path, path: &Path, shown: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
        let mut real = base.to_owned();
        let mut ahead: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(name);
            let link = fs::symlink_metadata(&next).and_then(|metadata| match metadata.is_symlink() {
                true => fs::read_link(&next).map(Some),
                false => Ok(None),
            });
            if ahead.is_empty() || !matches!(link, Ok(None)) {
                self.waypoint(&next, shown);
            }
            match link? {
                None => real = next,
                Some(_) if links == MAX_LINKS => return Err(io::Error::other("too many levels of symbolic links")),
                Some(target) => {
                    links += 1;
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    for name in names(&target).rev() {
                        ahead.push_front(name);
                    }
                }
            }
        }
        let metadata = fs::metadata(&real)?;
        Ok((real, metadata))
    }

    fn waypoint(&mut self, real: &Path, shown: &Path) {
        let decided = self.layout.waypoints.entry(real.to_owned()).or_default();
        decided.insert(shown.to_owned());
    }
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

fn list(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(directory)?.collect()
}

/// Whether the path is a mount point (`docker run -v ./a.yaml:/config/a.yaml`): the kernel reports
/// changes of such a file only to watches of the file itself.
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(root: &Path) -> Vec<String> {
        let layout = Layout::scan(&root.into());
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        layout.files.keys().map(relative).collect()
    }

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn only_input_names_are_read() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml", "4913.yaml"] {
            assert!(is_input_name(OsStr::new(name)), "{name}");
        }
        for name in [
            ".a.yaml",
            ".a.yaml.swp",
            "a.yaml~",
            "#a.yaml#",
            "#a.yaml",
            ".#a.yaml",
            "4913",
            "a.yaml.tmp",
            "a.txt",
            "yaml",
            ".yaml",
            "a.YAML",
            "a.yaml___jb_tmp___",
        ] {
            assert!(!is_input_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn directories_are_walked_in_path_order_and_hidden_ones_are_not() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "b/z.yaml",
            "b/a/y.yml",
            "a.json",
            ".git/x.yaml",
            "b/.h/x.yaml",
            "b/readme.md",
            "d.yaml/e.yaml",
        ] {
            write(root.path().join(file));
        }
        assert_eq!(shown(root.path()), ["a.json", "b/a/y.yml", "b/z.yaml", "d.yaml/e.yaml"]);
    }

    #[test]
    fn a_kubernetes_volume_counts_each_file_once() {
        let root = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(root.path()).unwrap();
        write(root.path().join("..2024/a.yaml"));
        write(root.path().join("..2024/sub/b.yaml"));
        symlink("..2024", root.path().join("..data")).unwrap();
        symlink("..data/a.yaml", root.path().join("a.yaml")).unwrap();
        symlink("..data/sub", root.path().join("sub")).unwrap();
        let layout = Layout::scan(&root.path().into());
        assert_eq!(layout.files[&root.path().join("a.yaml")], real.join("..2024/a.yaml"));
        assert_eq!(shown(root.path()), ["a.yaml", "sub/b.yaml"]);
        let both = BTreeSet::from([root.path().join("a.yaml"), root.path().join("sub")]);
        assert_eq!(layout.waypoints[&real.join("..data")], both);
        assert_eq!(
            layout.directories[&real.join("..2024/sub")].shown,
            root.path().join("sub")
        );
    }

    #[test]
    fn link_loops_terminate_and_directories_have_their_real_path() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("z/a.yaml"));
        symlink(root.path(), root.path().join("z/up")).unwrap();
        symlink("z", root.path().join("a")).unwrap();
        symlink("self", root.path().join("self")).unwrap();
        symlink("self.yaml", root.path().join("self.yaml")).unwrap();
        assert_eq!(shown(root.path()), ["self.yaml", "z/a.yaml"]);
    }

    #[test]
    fn directories_outside_the_root_are_followed_once() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        write(outside.path().join("a.yaml"));
        symlink(outside.path(), root.path().join("x")).unwrap();
        symlink(outside.path(), root.path().join("y")).unwrap();
        symlink(root.path().join("x"), outside.path().join("again")).unwrap();
        assert_eq!(shown(root.path()), ["x/a.yaml"]);
    }

    #[test]
    fn a_nested_directory_with_all_marks_is_excluded() {
        let base = tempfile::tempdir().unwrap();
        for file in [
            "a.yaml",
            "both/m",
            "both/.n",
            "both/b.yaml",
            "both/in/c.yaml",
            "one/m",
            "one/d.yaml",
        ] {
            write(base.path().join(file));
        }
        symlink("both", base.path().join("link")).unwrap();
        let files = |path: &Path| {
            let layout = Layout::scan(&Root::new([path]).without_marked(&[".n", "m"]));
            let shown = layout.files.into_keys().map(|file| file.display().to_string());
            shown
                .map(|file| file.rsplit('/').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(files(base.path()), ["a.yaml", "d.yaml"]);
        assert_eq!(
            files(&base.path().join("both")),
            ["b.yaml", "c.yaml"],
            "asked for by name"
        );
    }

    #[test]
    fn an_excluded_directory_is_excluded_by_any_path() {
        let base = tempfile::tempdir().unwrap();
        for file in ["mesh/a.yaml", "mesh/state/b.yaml", "mesh/state/tokens/c.json"] {
            write(base.path().join(file));
        }
        symlink("state", base.path().join("mesh/link")).unwrap();
        symlink("mesh", base.path().join("other")).unwrap();
        let root = Root::new([base.path().join("mesh")]).without(base.path().join("other/state"));
        let layout = Layout::scan(&root);
        assert_eq!(
            layout.files.keys().collect::<Vec<_>>(),
            [&base.path().join("mesh/a.yaml")]
        );
        assert_eq!(layout.directories.len(), 1);
    }

    #[test]
    fn a_missing_root_has_a_waypoint_where_its_path_ends() {
        let base = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(base.path()).unwrap();
        let root = base.path().join("not/there");
        let layout = Layout::scan(&root.as_path().into());
        assert_eq!(layout.unreadable[&root], "it does not exist");
        assert!(layout.waypoints.contains_key(&real.join("not")));
        assert!(layout.is_unknown(&root.join("a.yaml")) && !layout.is_unknown(base.path()));
    }

    #[test]
    fn a_single_file_counts_under_any_name_and_once() {
        let base = tempfile::tempdir().unwrap();
        write(base.path().join("mesh/a.yaml"));
        write(base.path().join("config.txt"));
        let (file, twice) = (base.path().join("config.txt"), base.path().join("mesh/../mesh/a.yaml"));
        let layout = Layout::scan(&Root::new([file.clone(), twice, base.path().join("mesh")]));
        let files: Vec<_> = layout.files.keys().cloned().collect();
        assert_eq!(files, [file, base.path().join("mesh/a.yaml")]);
        assert_eq!(layout.lone_files.len(), 1);
    }
}
