//! Operations of editors and tools on real files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::*;
use crate::source::tree::{Change, Content, Tree};

/// Upper bound on waiting, even on a busy machine and with periodic checks.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory, its watcher and the tree.
struct Scene {
    directory: tempfile::TempDir,
    root: Root,
    watcher: Watcher,
    tree: Tree,
    /// All changes so far, as `+name`, `~name`, `-name`.
    seen: Vec<String>,
    ticks: usize,
}

impl Scene {
    /// Watches the directory `mesh` within the directory passed to `prepare`.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::watching("mesh", Armed::new, prepare)
    }

    fn watching(name: &str, connect: Connect, prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("mesh")).unwrap();
        prepare(directory.path());
        let root = Root::new([directory.path().join(name)]).without_marked(&["mark"]);
        let watcher = Watcher::with_events(root.clone(), connect);
        Self {
            tree: Tree::scan(&root),
            directory,
            root,
            watcher,
            seen: Vec::new(),
            ticks: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text);
    }

    async fn tick(&mut self) -> Dirty {
        let dirty = timeout(PATIENCE, self.watcher.next()).await.expect("no tick came");
        let (tree, changes) = self.tree.rescan(&self.root, &dirty);
        self.tree = tree;
        self.ticks += 1;
        let base = self.directory.path().to_owned();
        let short = |origin: &str| Path::new(origin).strip_prefix(&base).unwrap().display().to_string();
        self.seen.extend(changes.iter().map(|change| match change {
            Change::Added(origin) => format!("+{}", short(origin)),
            Change::Modified(origin) => format!("~{}", short(origin)),
            Change::Removed(origin) => format!("-{}", short(origin)),
        }));
        dirty
    }

    /// Waits for exactly these files; returns the changes until then.
    async fn until(&mut self, files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(name, text)| (self.path(name), (*text).to_owned()));
        let expected: BTreeSet<_> = files.collect();
        let started = Instant::now();
        while self.texts() != expected {
            assert!(started.elapsed() < PATIENCE, "{:?} is not {expected:?}", self.texts());
            self.tick().await;
        }
        std::mem::take(&mut self.seen)
    }

    fn texts(&self) -> BTreeSet<(PathBuf, String)> {
        let text = |content: &Content| match content {
            Content::Text { source, .. } => source.text.to_string(),
            Content::Unreadable(_) => "unreadable".to_owned(),
        };
        self.tree
            .files()
            .map(|file| (PathBuf::from(&*file.origin), text(&file.content)))
            .collect()
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Replaces a file like editors do: writes a temporary file and renames it.
fn replace(path: &Path, text: &str) {
    let new = path.with_file_name(".new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// Replaces a link like `kubectl` and `ln -sfn` do.
fn relink(link: &Path, target: &str) {
    let new = link.with_file_name("..new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test]
async fn edits_in_place_and_by_rename_are_seen() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "0"));
    for round in 1..20 {
        scene.write("mesh/a.yaml", &round.to_string());
        assert_eq!(
            scene.until(&[("mesh/a.yaml", &round.to_string())]).await,
            ["~mesh/a.yaml"]
        );
        let text = format!("renamed {round}");
        replace(&scene.path("mesh/a.yaml"), &text);
        assert_eq!(scene.until(&[("mesh/a.yaml", &text)]).await, ["~mesh/a.yaml"]);
    }
}

#[tokio::test]
async fn a_kubernetes_volume_is_swapped_in_one_tick() {
    let mut scene = Scene::new(|base| {
        write(&base.join("mesh/..1/a.yaml"), "1");
        write(&base.join("mesh/..1/b.yaml"), "1");
        symlink("..1", base.join("mesh/..data")).unwrap();
        symlink("..data/a.yaml", base.join("mesh/a.yaml")).unwrap();
        symlink("..data/b.yaml", base.join("mesh/b.yaml")).unwrap();
    });
    for round in 2..6 {
        let text = round.to_string();
        scene.write(&format!("mesh/..{round}/a.yaml"), &text);
        scene.write(&format!("mesh/..{round}/b.yaml"), &text);
        relink(&scene.path("mesh/..data"), &format!("..{round}"));
        fs::remove_dir_all(scene.path(&format!("mesh/..{}", round - 1))).unwrap();
        let changes = scene.until(&[("mesh/a.yaml", &text), ("mesh/b.yaml", &text)]).await;
        assert_eq!(changes, ["~mesh/a.yaml", "~mesh/b.yaml"]);
    }
}

#[tokio::test]
async fn a_linked_directory_is_swapped_and_its_files_are_watched() {
    let mut scene = Scene::new(|base| {
        write(&base.join("v1/a.yaml"), "1");
        write(&base.join("v1/old.yaml"), "1");
        write(&base.join("v2/a.yaml"), "2");
        symlink("../v1", base.join("mesh/current")).unwrap();
    });
    relink(&scene.path("mesh/current"), "../v2");
    scene.until(&[("mesh/current/a.yaml", "2")]).await;
    scene.write("v2/a.yaml", "3");
    scene.until(&[("mesh/current/a.yaml", "3")]).await;
    scene.write("v2/new/b.yaml", "3");
    scene
        .until(&[("mesh/current/a.yaml", "3"), ("mesh/current/new/b.yaml", "3")])
        .await;
}

#[tokio::test]
async fn a_directory_that_becomes_marked_is_excluded() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "1"));
    scene.write("mesh/state/b.yaml", "1");
    scene.until(&[("mesh/a.yaml", "1"), ("mesh/state/b.yaml", "1")]).await;
    scene.write("mesh/state/mark", "");
    scene.until(&[("mesh/a.yaml", "1")]).await;
    scene.write("mesh/state/c.yaml", "1");
    scene.write("mesh/a.yaml", "2");
    scene.until(&[("mesh/a.yaml", "2")]).await;
}

#[tokio::test]
async fn the_target_of_a_link_is_watched() {
    let mut scene = Scene::new(|base| {
        write(&base.join("elsewhere/a.yaml"), "1");
        symlink("../elsewhere/a.yaml", base.join("mesh/a.yaml")).unwrap();
    });
    scene.write("elsewhere/a.yaml", "2");
    scene.until(&[("mesh/a.yaml", "2")]).await;
    replace(&scene.path("elsewhere/a.yaml"), "3");
    scene.until(&[("mesh/a.yaml", "3")]).await;
    fs::remove_file(scene.path("elsewhere/a.yaml")).unwrap();
    scene.until(&[("mesh/a.yaml", "unreadable")]).await;
    scene.write("elsewhere/a.yaml", "4");
    scene.until(&[("mesh/a.yaml", "4")]).await;
    fs::remove_file(scene.path("mesh/a.yaml")).unwrap();
    scene.until(&[]).await;
}

#[tokio::test]
async fn many_copied_files_come_in_few_ticks() {
    let mut scene = Scene::new(|base| {
        (0..500).for_each(|at| write(&base.join(format!("from/{at:03}.yaml")), &at.to_string()));
    });
    let target = scene.path("mesh");
    let status = std::process::Command::new("cp")
        .arg("-r")
        .arg(scene.path("from"))
        .arg(&target)
        .status()
        .unwrap();
    assert!(status.success());
    let names: Vec<_> = (0..500)
        .map(|at| (format!("mesh/from/{at:03}.yaml"), at.to_string()))
        .collect();
    let files: Vec<_> = names.iter().map(|(name, text)| (&**name, &**text)).collect();
    assert_eq!(scene.until(&files).await.len(), 500);
    assert!(scene.ticks < 50, "{} ticks", scene.ticks);
}

#[tokio::test]
async fn replacing_a_file_by_removal_is_a_modification() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "1"));
    fs::rename(scene.path("mesh/a.yaml"), scene.path("mesh/a.yaml~")).unwrap();
    scene.write("mesh/a.yaml", "2");
    fs::remove_file(scene.path("mesh/a.yaml~")).unwrap();
    assert_eq!(scene.until(&[("mesh/a.yaml", "2")]).await, ["~mesh/a.yaml"]);
    fs::remove_file(scene.path("mesh/a.yaml")).unwrap();
    scene.write("mesh/a.yaml", "2");
    scene.write("mesh/b.yaml", "2");
    assert_eq!(
        scene.until(&[("mesh/a.yaml", "2"), ("mesh/b.yaml", "2")]).await,
        ["+mesh/b.yaml"]
    );
}

#[tokio::test]
async fn removed_and_renamed_files_are_removed() {
    let mut scene = Scene::new(|base| {
        write(&base.join("mesh/a.yaml"), "1");
        write(&base.join("mesh/b.yaml"), "1");
    });
    fs::remove_file(scene.path("mesh/a.yaml")).unwrap();
    assert_eq!(scene.until(&[("mesh/b.yaml", "1")]).await, ["-mesh/a.yaml"]);
    fs::rename(scene.path("mesh/b.yaml"), scene.path("mesh/c.yaml")).unwrap();
    scene.ticks = 0;
    assert_eq!(
        scene.until(&[("mesh/c.yaml", "1")]).await,
        ["-mesh/b.yaml", "+mesh/c.yaml"]
    );
    assert_eq!(scene.ticks, 1, "both ends of a rename belong together");
}

#[tokio::test]
async fn new_directories_are_watched_at_once() {
    let mut scene = Scene::new(|_| {});
    for round in 0..10 {
        let name = format!("mesh/{round}/deep/er/a.yaml");
        scene.write(&name, "1");
        scene.until(&[(&name, "1")]).await;
        scene.write(&name, "2");
        scene.until(&[(&name, "2")]).await;
        fs::remove_dir_all(scene.path(&format!("mesh/{round}"))).unwrap();
        scene.until(&[]).await;
    }
}

#[tokio::test]
async fn directories_are_created_removed_and_swapped() {
    let mut scene = Scene::new(|base| {
        write(&base.join("mesh/d/a.yaml"), "1");
        write(&base.join("aside/a.yaml"), "2");
    });
    fs::rename(scene.path("mesh/d"), scene.path("mesh/e")).unwrap();
    scene.until(&[("mesh/e/a.yaml", "1")]).await;
    fs::rename(scene.path("mesh/e"), scene.path("old")).unwrap();
    fs::rename(scene.path("aside"), scene.path("mesh/e")).unwrap();
    scene.until(&[("mesh/e/a.yaml", "2")]).await;
    scene.write("mesh/e/a.yaml", "3");
    scene.until(&[("mesh/e/a.yaml", "3")]).await;
    fs::remove_dir_all(scene.path("mesh/e")).unwrap();
    scene.write("mesh/e/a.yaml", "4");
    scene.until(&[("mesh/e/a.yaml", "4")]).await;
    fs::rename(scene.path("mesh/e"), scene.path("gone")).unwrap();
    scene.until(&[]).await;
}

#[tokio::test]
async fn a_root_may_appear_late_and_reappear() {
    let mut scene = Scene::watching("not/yet/there", Armed::new, |_| {});
    scene.until(&[("not/yet/there", "unreadable")]).await;
    scene.write("not/yet/there/a.yaml", "1");
    scene.until(&[("not/yet/there/a.yaml", "1")]).await;
    fs::rename(scene.path("not/yet"), scene.path("aside")).unwrap();
    scene
        .until(&[("not/yet/there", "unreadable"), ("not/yet/there/a.yaml", "1")])
        .await;
    scene.write("not/yet/there/a.yaml", "2");
    scene.until(&[("not/yet/there/a.yaml", "2")]).await;
    scene.write("not/yet/there/a.yaml", "3");
    scene.until(&[("not/yet/there/a.yaml", "3")]).await;
}

#[tokio::test]
async fn a_recreated_root_keeps_its_files_until_it_has_one() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "1"));
    fs::remove_dir_all(scene.path("mesh")).unwrap();
    fs::create_dir(scene.path("mesh")).unwrap();
    scene.until(&[("mesh", "unreadable"), ("mesh/a.yaml", "1")]).await;
    scene.write("mesh/b.yaml", "2");
    scene.until(&[("mesh/b.yaml", "2")]).await;
    fs::remove_file(scene.path("mesh/b.yaml")).unwrap();
    scene.until(&[]).await;
}

#[tokio::test]
async fn a_single_file_is_watched_however_it_is_written() {
    let mut scene = Scene::watching("mesh/only.txt", Armed::new, |base| {
        write(&base.join("mesh/only.txt"), "0")
    });
    scene.write("mesh/other.yaml", "0");
    for round in 1..5 {
        let text = round.to_string();
        scene.write("mesh/only.txt", &text);
        scene.until(&[("mesh/only.txt", &text)]).await;
        let text = format!("renamed {round}");
        replace(&scene.path("mesh/only.txt"), &text);
        scene.until(&[("mesh/only.txt", &text)]).await;
    }
    fs::rename(scene.path("mesh/only.txt"), scene.path("mesh/only.txt~")).unwrap();
    scene.write("mesh/only.txt", "anew");
    assert_eq!(scene.until(&[("mesh/only.txt", "anew")]).await, ["~mesh/only.txt"]);
    fs::remove_file(scene.path("mesh/only.txt")).unwrap();
    scene.until(&[("mesh/only.txt", "unreadable")]).await;
    scene.write("mesh/only.txt", "back");
    scene.until(&[("mesh/only.txt", "back")]).await;
}

#[tokio::test]
async fn a_half_written_file_is_not_read() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "whole"));
    for round in 0..10 {
        let text = format!("half {round}");
        let mut file = File::create(scene.path("mesh/a.yaml")).unwrap();
        file.write_all(b"half ").unwrap();
        let half = Instant::now();
        scene.write("mesh/b.yaml", &text);
        let dirty = scene.tick().await;
        assert!(dirty.unsettled.contains(&scene.path("mesh/a.yaml")) || half.elapsed() >= settle::UNCLOSED);
        file.write_all(round.to_string().as_bytes()).unwrap();
        drop(file);
        scene.until(&[("mesh/a.yaml", &text), ("mesh/b.yaml", &text)]).await;
    }
}

#[tokio::test]
async fn writing_after_a_tick_is_detected() {
    let mut scene = Scene::new(|_| {});
    scene.write("mesh/a.yaml", "1");
    let dirty = scene.tick().await;
    assert!(!scene.watcher.is_being_rewritten(&dirty));
    let _file = File::create(scene.path("mesh/a.yaml")).unwrap();
    let started = Instant::now();
    while !scene.watcher.is_being_rewritten(&dirty) {
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_writer_may_pause() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "whole"));
    let mut file = File::create(scene.path("mesh/a.yaml")).unwrap();
    file.write_all(b"half").unwrap();
    let half = Instant::now();
    for round in 0.. {
        scene.write("mesh/b.yaml", &round.to_string());
        let dirty = scene.tick().await;
        assert!(!dirty.paths.contains(&scene.path("mesh/a.yaml")) || half.elapsed() >= settle::UNCLOSED);
        if half.elapsed() > settle::QUIET * 3 {
            break;
        }
    }
    file.write_all(b" and half").unwrap();
    drop(file);
    fs::remove_file(scene.path("mesh/b.yaml")).unwrap();
    scene.until(&[("mesh/a.yaml", "half and half")]).await;
}

#[tokio::test]
async fn other_files_cause_no_tick() {
    let mut scene = Scene::new(|_| {});
    for name in [
        "mesh/.a.yaml.swp",
        "mesh/4913",
        "mesh/a.yaml~",
        "mesh/.git/a.yaml",
        "mesh/readme.md",
    ] {
        scene.write(name, "1");
    }
    scene.write("mesh/a.yaml", "1");
    assert_eq!(scene.tick().await, Dirty::of([scene.path("mesh/a.yaml")]));
}

#[tokio::test]
async fn without_events_everything_is_polled() {
    fn refuse(_: armed::Handler) -> notify::Result<Armed> {
        Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch))
    }
    let mut scene = Scene::watching("mesh", refuse, |base| write(&base.join("mesh/a.yaml"), "1"));
    scene.write("mesh/a.yaml", "2");
    scene.write("mesh/new/b.yaml", "2");
    scene.until(&[("mesh/a.yaml", "2"), ("mesh/new/b.yaml", "2")]).await;
    fs::remove_dir_all(scene.path("mesh/new")).unwrap();
    scene.until(&[("mesh/a.yaml", "2")]).await;
    assert!(scene.watcher.shared.said.load(Ordering::Relaxed));
}

#[tokio::test]
async fn lost_events_trigger_a_full_check() {
    let mut scene = Scene::new(|base| write(&base.join("mesh/a.yaml"), "1"));
    for round in 0..3 {
        scene.watcher.shared.overflowed.store(true, Ordering::Relaxed);
        scene.write("mesh/a.yaml", &format!("{round}"));
        while !scene.tick().await.full {}
        scene.until(&[("mesh/a.yaml", &format!("{round}"))]).await;
    }
    scene.write("mesh/a.yaml", "after");
    scene.until(&[("mesh/a.yaml", "after")]).await;
}

#[tokio::test]
async fn a_thread_that_dies_is_replaced() {
    static LIVES: AtomicUsize = AtomicUsize::new(0);
    fn die_once(handler: armed::Handler) -> notify::Result<Armed> {
        assert!(LIVES.fetch_add(1, Ordering::Relaxed) > 0, "dying as the test wants");
        Armed::new(handler)
    }
    let mut scene = Scene::watching("mesh", die_once, |_| {});
    scene.write("mesh/a.yaml", "1");
    assert!(scene.tick().await.full);
    scene.write("mesh/a.yaml", "2");
    scene.until(&[("mesh/a.yaml", "2")]).await;
}

#[tokio::test]
async fn the_thread_ends_with_its_watcher() {
    let scene = Scene::new(|_| {});
    let shared = scene.watcher.shared.clone();
    drop(scene.watcher);
    timeout(PATIENCE, shared.wake.notified()).await.unwrap();
    while !shared.ended.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
}
