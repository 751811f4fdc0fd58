//! A compose project: its services.

use std::io;
use std::path::{Path, PathBuf};

use super::fields::Fields;
use super::read::Reader;
use super::service::Service;
use crate::diag::Diagnostic;

/// What the files of a project say.
#[derive(Debug, Default)]
pub struct Project {
    /// The services, in the order in which they are first named.
    pub services: Vec<Service>,
    /// What is wrong with the files.
    pub problems: Vec<Diagnostic>,
}

/// Reads the files of a project, of which the later ones add to the earlier ones as compose merges them. `load` has
/// the text of a path; it is asked for the files that they include or extend, too. Paths are shown as given.
pub fn read(files: &[PathBuf], load: &mut dyn FnMut(&Path) -> io::Result<String>) -> Project {
    let mut reader = Reader::new(load);
    for file in files {
        reader.file(file, None, 0);
    }
    let mut problems = reader.problems;
    let services = reader.services.into_iter().map(|raw| {
        let fields = Fields {
            parts: &raw.parts,
            problems: &mut problems,
        };
        Service::read(raw.name, fields)
    });
    let services = services.collect();
    Project { services, problems }
}

impl Project {
    /// The service of a name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name.text == name)
    }

    /// The first service that links to one of this name.
    pub(super) fn linked_by(&self, name: &str) -> Option<&str> {
        let links = |service: &&Service| service.links.iter().any(|link| link.text == name);
        self.services.iter().find(links).map(|service| &*service.name.text)
    }
}
