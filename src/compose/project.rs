//! A compose project.

use std::io;
use std::path::{Path, PathBuf};

use super::fields::Fields;
use super::read::Reader;
use super::service::Service;
use crate::diag::Diagnostic;

/// The content of a project's files.
#[derive(Debug, Default)]
pub struct Project {
    /// Services, in the order of their first definition.
    pub services: Vec<Service>,
    /// Problems of the files.
    pub problems: Vec<Diagnostic>,
}

/// Reads the files of a project, merged like in Compose. `load` returns the text of a path and is
/// also called for files that are included or extended. Paths are displayed as given.
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
    /// The service with a name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name.text == name)
    }

    /// The first service with a link to this one.
    pub(super) fn linked_by(&self, name: &str) -> Option<&str> {
        let links = |service: &&Service| service.links.iter().any(|link| link.text == name);
        self.services.iter().find(links).map(|service| &*service.name.text)
    }
}
