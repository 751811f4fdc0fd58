//! From files to objects in force: duplicates, and containment of errors by file and document.
//!
//! When something is wrong, the last good state is kept: an object whose document has an error
//! keeps its previous form; a file with an unparsable part keeps every previous object that its
//! readable part does not redefine; a file that became empty or unreadable keeps all of them.
//! Deleting a file removes its objects. If several objects have the same id, the first in path
//! order is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::api::{self, Object, Precedence, Read, ReadOptions};
use crate::diag::{Code, Diagnostic, Place, Severity, SourceText};
use crate::mesh::directory::Change;
use crate::mesh::few::SmallMap;
use crate::name::ObjectId;
use crate::source::document;
use crate::source::tree::{Content, Tree};

/// The objects of all files. Persistent maps make clones cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    files: OrdMap<Arc<str>, Arc<FileObjects>>,
    /// Files with diagnostics.
    troubled: OrdSet<Arc<str>>,
    /// Objects whose document has an error, and where, by file.
    broken: OrdMap<ObjectId, SmallMap<Arc<str>, Place>>,
    owners: OrdMap<ObjectId, SmallMap<Precedence, Arc<Object>>>,
    duplicates: OrdSet<ObjectId>,
}

/// The content of one file.
#[derive(Debug, Default)]
struct FileObjects {
    /// Its objects, including previous ones kept because of an error.
    objects: Vec<Arc<Object>>,
    broken: BTreeMap<ObjectId, Place>,
    diagnostics: Vec<Diagnostic>,
}

impl Files {
    /// Restores files from the objects they held when last read.
    pub(super) fn restore(objects: impl IntoIterator<Item = Arc<Object>>) -> Self {
        let mut by_file: BTreeMap<Arc<str>, Vec<Arc<Object>>> = BTreeMap::new();
        for object in objects {
            by_file.entry(object.order.origin.clone()).or_default().push(object);
        }
        let mut restored = Self::default();
        for (origin, objects) in by_file {
            restored.put_file(
                &origin,
                Some(FileObjects {
                    objects,
                    ..FileObjects::default()
                }),
            );
        }
        restored
    }

    /// All known files.
    pub(super) fn origins(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// Re-reads the given files from the tree and returns the resulting changes to the objects in
    /// force.
    pub(super) fn update(&mut self, tree: &Tree, origins: &BTreeSet<Arc<str>>, options: &ReadOptions) -> Vec<Change> {
        let mut touched = BTreeMap::new();
        for origin in origins {
            let file = tree.get(origin).map(|file| self.read(origin, &file.content, options));
            let ids = self
                .ids_of(origin)
                .chain(file.iter().flat_map(FileObjects::ids))
                .collect::<BTreeSet<_>>();
            for id in ids {
                touched
                    .entry(id)
                    .or_insert_with_key(|id| (self.in_force(id).cloned(), self.broken_at(id).is_some()));
            }
            self.put_file(origin, file);
        }
        touched
            .into_iter()
            .filter_map(|(id, (before, was_broken))| self.change(id, before.as_ref(), was_broken))
            .collect()
    }

    /// The object in force for an id.
    pub(super) fn in_force(&self, id: &ObjectId) -> Option<&Arc<Object>> {
        self.owners.get(id)?.values().next()
    }

    /// Diagnostics of all files and documents, duplicates included.
    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        let own = self.troubled.iter().filter_map(|origin| self.files.get(origin));
        let own = own.flat_map(|file| file.diagnostics.iter().cloned());
        own.chain(self.duplicates.iter().flat_map(|id| self.duplicate_diagnostics(id)))
            .collect()
    }

    fn former(&self, origin: &str) -> &[Arc<Object>] {
        self.files.get(origin).map_or(&[], |file| &file.objects)
    }

    fn ids_of(&self, origin: &str) -> impl Iterator<Item = ObjectId> {
        self.files.get(origin).into_iter().flat_map(|file| file.ids())
    }

    fn change(&self, id: ObjectId, before: Option<&Arc<Object>>, was_broken: bool) -> Option<Change> {
        if let Some(place) = self.broken_at(&id) {
            return Some(Change::Broken {
                place: place.clone(),
                id,
            });
        }
        match (before, self.in_force(&id)) {
            (Some(before), Some(now)) if Arc::ptr_eq(before, now) && !was_broken => None,
            (_, Some(now)) => Some(Change::Put(now.clone())),
            (None, None) if !was_broken => None,
            (_, None) => Some(Change::Remove(id)),
        }
    }

    fn put_file(&mut self, origin: &Arc<str>, file: Option<FileObjects>) {
        self.troubled.remove(origin);
        if let Some(old) = self.files.remove(origin) {
            old.objects.iter().for_each(|object| self.disown(object));
            old.broken.keys().for_each(|id| self.mend(id, origin));
        }
        let Some(file) = file else { return };
        for object in &file.objects {
            let claims = self.owners.entry(object.id.clone()).or_default();
            claims.insert(object.order.clone(), object.clone());
            if claims.len() > 1 {
                self.duplicates.insert(object.id.clone());
            }
        }
        if !file.diagnostics.is_empty() {
            self.troubled.insert(origin.clone());
        }
        for (id, place) in &file.broken {
            self.broken
                .entry(id.clone())
                .or_default()
                .insert(origin.clone(), place.clone());
        }
        self.files.insert(origin.clone(), Arc::new(file));
    }

    /// Where the document of an object has an error. `None` if an earlier file defines the object
    /// correctly: the error is then in a duplicate that would not be served anyway.
    fn broken_at(&self, id: &ObjectId) -> Option<&Place> {
        let (origin, place) = self.broken.get(id)?.iter().next()?;
        let defined_before = self.in_force(id).is_some_and(|object| object.order.origin < *origin);
        (!defined_before).then_some(place)
    }

    fn mend(&mut self, id: &ObjectId, origin: &Arc<str>) {
        let Some(places) = self.broken.get_mut(id) else { return };
        places.remove(origin);
        if places.is_empty() {
            self.broken.remove(id);
        }
    }

    fn disown(&mut self, object: &Object) {
        let Some(claims) = self.owners.get_mut(&object.id) else {
            return;
        };
        claims.remove(&object.order);
        if claims.len() < 2 {
            self.duplicates.remove(&object.id);
        }
        if claims.is_empty() {
            self.owners.remove(&object.id);
        }
    }

    /// Reads a file and keeps previous objects as containment requires.
    fn read(&self, origin: &str, content: &Content, options: &ReadOptions) -> FileObjects {
        let former = self.former(origin);
        let source = match content {
            Content::Text { source, .. } => source,
            Content::Unreadable(problem) => {
                let diagnostics = vec![problem.clone()];
                return FileObjects {
                    objects: former.to_vec(),
                    diagnostics,
                    ..FileObjects::default()
                };
            }
        };
        let mut file = FileObjects::default();
        let mut unclear = false;
        let documents = document::split(source);
        for document in &documents {
            let read = api::read(document, options);
            unclear |= hides_objects(&read);
            if let Some(place) = read
                .diagnostics
                .iter()
                .find(|d| d.severity == Severity::Error)
                .and_then(|d| d.place())
            {
                file.broken
                    .extend(read.ids_in_error.iter().map(|id| (id.clone(), place.clone())));
            }
            file.objects.extend(read.objects.into_iter().map(Arc::new));
            file.diagnostics.extend(read.diagnostics);
        }
        if documents.is_empty() && !former.is_empty() {
            file.diagnostics.push(emptied(source, former.len()));
            unclear = true;
        }
        let defined: BTreeSet<ObjectId> = file.objects.iter().map(|object| object.id.clone()).collect();
        let kept = former.iter().filter(|object| !defined.contains(&object.id));
        let kept = kept
            .filter(|object| unclear || file.broken.contains_key(&object.id))
            .cloned();
        file.objects.extend(kept.collect::<Vec<_>>());
        reuse(&mut file.objects, former);
        file
    }

    fn duplicate_diagnostics(&self, id: &ObjectId) -> Vec<Diagnostic> {
        let mut claims = self.owners.get(id).into_iter().flat_map(|claims| claims.values());
        let Some(first) = claims.next() else { return Vec::new() };
        let name = |object: &Object| object.place("metadata.name");
        claims
            .map(|second| {
                Diagnostic::new(Code::DuplicateObject, format!("{id} is defined twice"))
                    .label(name(second), "not served")
                    .label(name(first), "the first in path order is served")
                    .help("delete or rename one of them")
            })
            .collect()
    }
}

impl FileObjects {
    fn ids(&self) -> impl Iterator<Item = ObjectId> {
        self.objects
            .iter()
            .map(|object| object.id.clone())
            .chain(self.broken.keys().cloned())
    }
}

/// Whether the document may hold objects whose names cannot be determined.
fn hides_objects(read: &Read) -> bool {
    let unreadable = |problem: &Diagnostic| matches!(problem.code, Code::InvalidYaml | Code::DocumentTooLarge);
    read.hides_objects || read.diagnostics.iter().any(unreadable)
}

fn emptied(source: &Arc<SourceText>, objects: usize) -> Diagnostic {
    let place = Place {
        source: source.clone(),
        span: 0..0,
    };
    Diagnostic::new(
        Code::EmptyFile,
        format!("the file is now empty; its {objects} objects are kept"),
    )
    .at(place)
    .help("delete the file to remove its objects")
    .severity(Severity::Error)
}

/// Whether an object has the same text at the same place.
fn is_same(a: &Object, b: &Object) -> bool {
    let place = |object: &Object| (object.document.hash, object.document.source.start());
    place(a) == place(b) && a.order == b.order && *a == *b
}

/// Reuses the previous `Arc` of unchanged objects, so that later stages can compare pointers.
fn reuse(objects: &mut [Arc<Object>], former: &[Arc<Object>]) {
    let former: BTreeMap<_, _> = former.iter().map(|object| (&object.id, object)).collect();
    for object in objects {
        let same = former.get(&object.id).filter(|old| is_same(old, object));
        if let Some(same) = same {
            *object = (*same).clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is read repeatedly.
    struct Written {
        directory: tempfile::TempDir,
        files: Files,
    }

    impl Written {
        fn new(text: &str) -> Self {
            let mut written = Self {
                directory: tempfile::tempdir().unwrap(),
                files: Files::default(),
            };
            written.write(text);
            written
        }

        /// The names of the objects in force after writing `text` to the file.
        fn write(&mut self, text: &str) -> Vec<String> {
            let path = self.directory.path().join("a.yaml");
            std::fs::write(&path, text).unwrap();
            let origins = [path.to_string_lossy().into()].into();
            let tree = Tree::scan(&self.directory.path().into());
            self.files.update(&tree, &origins, &ReadOptions::default());
            self.files.owners.keys().map(|id| id.name.to_string()).collect()
        }
    }

    fn list(items: &[&str]) -> String {
        let items: String = items.iter().map(|item| format!("- {{{item}}}\n")).collect();
        format!("apiVersion: v1\nkind: List\nitems:\n{items}")
    }

    const A: &str = "apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}";
    const B: &str = "apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 80}]}";

    #[test]
    fn a_list_item_that_lost_its_name_is_kept() {
        for lost in [
            "apiVersion: v1, kind: Service, metadata: {nam: b}, spec: {ports: [{port: 80}]}",
            "apiVersion: v1, kind: Service, metadata: {name: [b]}, spec: {ports: [{port: 80}]}",
            "apiVersion: v1, kid: Service, metadata: {name: b}",
            "apiVersion: v1, kind: Sxxxxxxxxx, metadata: {name: b}",
        ] {
            let mut file = Written::new(&list(&[A, B]));
            assert_eq!(file.write(&list(&[A, lost])), ["a", "b"], "{lost}");
            assert_eq!(file.write(&list(&[A])), ["a"], "removed after {lost}");
        }
    }

    #[test]
    fn a_list_item_is_removed_if_the_invalid_ones_are_named() {
        let mut file = Written::new(&list(&[A, B]));
        let broken = A.replace("80", "x");
        assert_eq!(file.write(&list(&[&broken])), ["a"]);
    }
}
