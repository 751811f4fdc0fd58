//! The content of the journal after edits, and what is restored from it.

use std::fs;

use super::*;
use crate::control::files::Files;
use crate::mesh::directory::{Directory, Options};
use crate::source::Root;
use crate::source::tree::Tree;

/// Number of services in a file; large enough for their documents' order to matter.
const SERVICES: usize = 400;

/// A directory with one file that is edited.
struct Edited {
    directory: tempfile::TempDir,
    state: StateDir,
    files: Files,
    served: Directory,
    journal: Journal,
    generation: u64,
}

impl Edited {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().join("state")).unwrap();
        fs::create_dir(directory.path().join("mesh")).unwrap();
        let (journal, _) = Journal::open(&state);
        Self {
            directory,
            state,
            files: Files::default(),
            served: Directory::new(Options::default()),
            journal,
            generation: 0,
        }
    }

    fn write(&mut self, text: &str) {
        let root = self.directory.path().join("mesh");
        let path = root.join("all.yaml");
        fs::write(&path, text).unwrap();
        let origins = [path.to_string_lossy().into()].into();
        let tree = Tree::scan(&Root::from(root.as_path()));
        let changes = self.files.update(&tree, &origins, &ReadOptions::default());
        let served = self.served.apply(&changes).directory;
        self.generation += 1;
        self.journal
            .append(self.generation, &served.kept_since(&self.served), None);
        self.served = served;
    }

    /// Bytes of document texts held in memory for the objects, beyond the file's own text.
    fn bytes_in_memory(&self) -> usize {
        let served = self.served.objects_in_force().cloned();
        let journaled = self.journal.kept.values().map(|kept| kept.object.clone());
        let objects: Vec<_> = served.chain(journaled).collect();
        let texts = objects.iter().map(|object| &object.document.source);
        let texts: BTreeMap<_, _> = texts.map(|text| (Arc::as_ptr(text), text.text.len())).collect();
        texts.values().sum()
    }

    fn bytes_on_disk(&self) -> u64 {
        fs::metadata(self.state.path().join(FILE)).unwrap().len()
    }

    fn restart(&mut self) -> Vec<Kept> {
        let (journal, restored) = Journal::open(&self.state);
        self.journal = journal;
        assert_eq!(restored.generation, self.generation);
        restored.kept
    }
}

fn service(number: usize, port: usize) -> String {
    let filler = "# a line that makes the file a large one\n".repeat(20);
    format!(
        "{filler}apiVersion: v1\nkind: Service\nmetadata: {{name: s{number:03}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

/// A file of separate documents or one list, in which some services have another port.
fn file(as_list: bool, edited: impl Fn(usize) -> bool) -> String {
    let services = (0..SERVICES).map(|number| service(number, if edited(number) { 81 } else { 80 }));
    if !as_list {
        return services.collect::<Vec<_>>().join("---\n");
    }
    let item = |service: String| format!("- {}\n", service.trim_end().replace('\n', "\n  "));
    let items: String = services.map(item).collect();
    format!("apiVersion: v1\nkind: List\nitems:\n{items}")
}

#[test]
fn the_text_of_a_large_file_is_not_stored_per_edit() {
    for as_list in [false, true] {
        let mut mesh = Edited::new();
        let size = file(as_list, |_| false).len();
        // Back to front, so that no edit moves a document edited before.
        for last in (0..SERVICES).rev().step_by(10) {
            mesh.write(&file(as_list, |number| number >= last));
        }
        let (in_memory, on_disk) = (mesh.bytes_in_memory(), mesh.bytes_on_disk());
        assert!(in_memory < 3 * size, "{in_memory} bytes for a file of {size}");
        assert!(
            on_disk < 4 * size as u64 + SMALL,
            "{on_disk} bytes for a file of {size}"
        );
        mesh.restart();
        assert!(mesh.bytes_on_disk() < 2 * size as u64, "{} bytes", mesh.bytes_on_disk());
    }
}

#[test]
fn objects_in_force_are_restored_with_their_locations() {
    let mut mesh = Edited::new();
    mesh.write(&file(false, |_| false));
    mesh.write(&file(false, |number| number == 7));
    let before = mesh.served.kept();
    let mut after = mesh.restart();
    after.sort_by(|a, b| a.object.id.cmp(&b.object.id));
    assert!(after == before);
    for (before, after) in before.iter().zip(&after) {
        let ports = |kept: &Kept| kept.object.place("spec.ports[0].port");
        assert_eq!(ports(before), ports(after));
        assert_eq!(ports(before).display(), ports(after).display());
        assert_eq!(before.object.order, after.object.order);
    }
}

#[test]
fn a_removed_journal_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path().join("state")).unwrap();
    let (mut journal, _) = Journal::open(&state);
    journal.append(1, &KeptChanges::default(), None);
    for (generation, take_away) in [(2, false), (3, true)] {
        match take_away {
            true => std::fs::remove_dir_all(state.path()).unwrap(),
            false => std::fs::remove_file(state.path().join(FILE)).unwrap(),
        }
        journal.append(generation, &KeptChanges::default(), None);
        StateDir::open(state.path()).unwrap();
        journal.append(generation, &KeptChanges::default(), None);
        assert_eq!(read(&state.path().join(FILE)).unwrap().generation, generation);
    }
}
