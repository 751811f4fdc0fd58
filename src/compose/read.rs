//! From files to the parts that services are made of, over `include` and `extends`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::{Item, Part, Spot, of_key, place, spot};
use super::marked::Marked;
use crate::api::suggest::closest;
use crate::diag::{Code, Diagnostic, Place, SourceText};
use crate::source::document::{Document, split};
use crate::source::node::{self, Key, Node, Value};

/// How far services may extend one another, and files include one another.
const MAX_DEPTH: usize = 16;

/// A service before its fields are looked at.
pub(super) struct RawService {
    pub(super) name: Spot,
    pub(super) parts: Vec<Part>,
}

/// Reads files, each the text that `load` has for its path.
pub(super) struct Reader<'l> {
    load: &'l mut dyn FnMut(&Path) -> io::Result<String>,
    /// Files that have been read, by path.
    known: BTreeMap<PathBuf, Arc<Vec<Content>>>,
    pub(super) services: Vec<RawService>,
    pub(super) problems: Vec<Diagnostic>,
}

/// A document of a file that is a map.
struct Content {
    document: Document,
    entries: Vec<(Key, Node)>,
}

impl Content {
    fn get(&self, name: &str) -> Option<(&Key, &Node)> {
        let entry = self.entries.iter().find(|(key, _)| *key.text == *name);
        entry.map(|(key, node)| (key, node))
    }

    fn services(&self) -> &[(Key, Node)] {
        match self.get("services") {
            Some((_, node)) => map(node).unwrap_or_default(),
            None => &[],
        }
    }
}

impl<'l> Reader<'l> {
    pub(super) fn new(load: &'l mut dyn FnMut(&Path) -> io::Result<String>) -> Self {
        Self {
            load,
            known: BTreeMap::new(),
            services: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds what a file says. Files that come later add to what the earlier ones say of a service.
    pub(super) fn file(&mut self, path: &Path, asked: Option<&Place>, depth: usize) {
        let contents = self.content(path, asked);
        for content in &*contents {
            self.includes(path, content, depth);
            self.check_version(content);
            let Some((_, node)) = content.get("services") else {
                continue;
            };
            let Some(services) = map(node) else {
                self.wrong(content, node, "`services` is a map of services");
                continue;
            };
            for (key, node) in services {
                let mut parts = self.parts(path, content, node, 0);
                parts.iter_mut().for_each(|part| part.included = depth > 0);
                let name = of_key(&content.document, key);
                match self.services.iter_mut().find(|service| service.name.text == name.text) {
                    Some(service) => service.parts.extend(parts),
                    None => self.services.push(RawService { name, parts }),
                }
            }
        }
    }

    /// The documents of a file, which is read once.
    fn content(&mut self, path: &Path, asked: Option<&Place>) -> Arc<Vec<Content>> {
        if let Some(known) = self.known.get(path) {
            return Arc::clone(known);
        }
        let contents = match (self.load)(path) {
            Ok(text) => self.parse(path, text),
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                let mut problem = Diagnostic::new(Code::UnreadableFile, problem);
                if let Some(asked) = asked {
                    problem = problem.at(asked.clone());
                }
                self.problems.push(problem);
                Vec::new()
            }
        };
        let contents = Arc::new(contents);
        self.known.insert(path.to_owned(), Arc::clone(&contents));
        contents
    }

    fn parse(&mut self, path: &Path, text: String) -> Vec<Content> {
        let made_here = Marked::read(&text).is_some();
        let source = SourceText::new(path.display().to_string(), text);
        let start = Place {
            source: Arc::clone(&source),
            span: 0..0,
        };
        if made_here {
            let problem = "this is an override that `topsail inject` has made";
            let problem = Diagnostic::new(Code::InvalidValue, problem).at(start);
            self.problems.push(problem.help("name the project's own files alone"));
            return Vec::new();
        }
        let mut found = Vec::new();
        for document in split(&source) {
            let parsed = node::parse(&document);
            self.problems.extend(parsed.diagnostics);
            match parsed.root.map(|root| (place(&document, &root), root.value)) {
                Some((_, Value::Map(entries))) => found.push(Content { document, entries }),
                Some((_, Value::Null)) | None => {}
                Some((at, Value::Bool(..) | Value::Number(_) | Value::String(_) | Value::Seq(_))) => {
                    let problem = "a compose file is a map with `services`";
                    self.problems.push(Diagnostic::new(Code::InvalidValue, problem).at(at));
                }
            }
        }
        if found.is_empty() && self.problems.is_empty() {
            let problem = Diagnostic::new(Code::EmptyFile, "the compose file is empty");
            self.problems.push(problem.at(start));
        }
        found
    }

    /// Files of the first version of the format have services at the top.
    fn check_version(&mut self, content: &Content) {
        let version = content
            .get("version")
            .and_then(|(_, node)| spot(&content.document, node));
        if let Some(version) = &version
            && version.text.starts_with('1')
        {
            let problem = format!("version {} of the format has no networks of its own", version.text);
            let problem = Diagnostic::new(Code::InvalidValue, problem).at(version.place.clone());
            self.problems
                .push(problem.help("remove `version` and put the services under `services:`"));
            return;
        }
        let known = [
            "services", "networks", "volumes", "secrets", "configs", "include", "models",
        ];
        let has_any = content.entries.iter().any(|(key, _)| known.contains(&&*key.text));
        if has_any {
            return;
        }
        let Some((key, _)) = content.entries.first() else {
            return;
        };
        let problem = Diagnostic::new(Code::MissingField, "`services` is missing");
        let mut problem = problem.at(content.document.place(key.span.clone()));
        let misspelt = content
            .entries
            .iter()
            .find(|(key, _)| closest(&key.text, ["services"]).is_some());
        problem.help = Some(match misspelt {
            Some((meant, _)) => format!("did you mean `services` where `{}` stands?", meant.text.escape_debug()),
            None => "put the services under `services:`".to_owned(),
        });
        self.problems.push(problem);
    }

    fn includes(&mut self, path: &Path, content: &Content, depth: usize) {
        let Some((_, node)) = content.get("include") else {
            return;
        };
        let Value::Seq(items) = &node.value else {
            return self.wrong(content, node, "`include` is a list of files");
        };
        for node in items {
            let document = &content.document;
            let paths = match &node.value {
                Value::Map(entries) => match entries.iter().find(|(key, _)| *key.text == *"path") {
                    Some((_, node)) => several(document, node),
                    None => Vec::new(),
                },
                _ => several(document, node),
            };
            for included in paths {
                if depth == MAX_DEPTH {
                    let problem = format!("files include one another more than {MAX_DEPTH} times");
                    let problem = Diagnostic::new(Code::InvalidValue, problem);
                    return self.problems.push(problem.at(included.place));
                }
                if self.needs(&included, "the file that is included") {
                    self.file(&beside(path, &included.text), Some(&included.place), depth + 1);
                }
            }
        }
    }

    /// What a service's own entry says, after what those say that it extends.
    fn parts(&mut self, path: &Path, content: &Content, node: &Node, depth: usize) -> Vec<Part> {
        let entries = match &node.value {
            Value::Map(entries) => entries.clone(),
            Value::Null => Vec::new(),
            Value::Bool(..) | Value::Number(_) | Value::String(_) | Value::Seq(_) => {
                self.wrong(content, node, "a service is a map of fields");
                return Vec::new();
            }
        };
        let document = &content.document;
        let extends = entries.iter().find(|(key, _)| *key.text == *"extends");
        let item = extends.map(|(_, node)| Item { document, node });
        let mut parts = item.map_or_else(Vec::new, |item| self.extended(path, &item, depth));
        parts.push(Part {
            document: document.clone(),
            entries,
            included: false,
        });
        parts
    }

    fn extended(&mut self, path: &Path, extends: &Item<'_>, depth: usize) -> Vec<Part> {
        let Some(name) = extends.get("service").or_else(|| extends.spot()) else {
            let problem = Diagnostic::new(Code::MissingField, "`extends` names a `service`");
            self.problems.push(problem.at(extends.place()));
            return Vec::new();
        };
        if depth == MAX_DEPTH {
            let problem = format!("services extend one another more than {MAX_DEPTH} times");
            let problem = Diagnostic::new(Code::InvalidValue, problem);
            self.problems.push(problem.at(name.place));
            return Vec::new();
        }
        let file = extends.get("file");
        let path = match &file {
            Some(file) if !self.needs(file, "the file of the service that is extended") => return Vec::new(),
            Some(file) => beside(path, &file.text),
            None => path.to_owned(),
        };
        let contents = self.content(&path, file.as_ref().map(|file| &file.place));
        for content in &*contents {
            let found = content.services().iter().find(|(key, _)| *key.text == *name.text);
            if let Some((_, node)) = found {
                return self.parts(&path, content, node, depth + 1);
            }
        }
        if !contents.is_empty() {
            let names: BTreeSet<&str> = contents
                .iter()
                .flat_map(|content| content.services())
                .map(|(key, _)| &*key.text)
                .collect();
            let problem = format!("{} has no service `{}`", path.display(), name.text.escape_debug());
            let mut problem = Diagnostic::new(Code::ReferencedResourceNotFound, problem).at(name.place.clone());
            problem.help = closest(&name.text, names).map(|meant| format!("did you mean `{meant}`?"));
            self.problems.push(problem);
        }
        Vec::new()
    }

    /// Says so if a path cannot be known because compose would interpolate it.
    fn needs(&mut self, path: &Spot, what: &str) -> bool {
        if !path.is_interpolated() {
            return true;
        }
        let problem = format!("{what} cannot be known: its path has a variable in it, which is compose's to fill in");
        let problem = Diagnostic::new(Code::InvalidValue, problem).at(path.place.clone());
        self.problems.push(problem.help("write the path out"));
        false
    }

    fn wrong(&mut self, content: &Content, node: &Node, message: &str) {
        let problem = Diagnostic::new(Code::InvalidValue, message);
        self.problems.push(problem.at(place(&content.document, node)));
    }
}

fn map(node: &Node) -> Option<&[(Key, Node)]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        Value::Null => Some(&[]),
        Value::Bool(..) | Value::Number(_) | Value::String(_) | Value::Seq(_) => None,
    }
}

/// One text, or a list of them.
fn several(document: &Document, node: &Node) -> Vec<Spot> {
    match &node.value {
        Value::Seq(items) => items.iter().filter_map(|node| spot(document, node)).collect(),
        _ => spot(document, node).into_iter().collect(),
    }
}

/// A path as a file has it: relative to the file's own folder.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}
