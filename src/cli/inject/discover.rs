//! Finds the Compose files of a project, as Compose does.

use std::env;
use std::path::{Path, PathBuf};

use crate::cli::Usage;

/// Default file names, in order of preference.
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];

/// Default names of the override file next to it.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// The files of a project, and the directory that relative paths in them refer to.
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) folder: PathBuf,
}

/// The given files, otherwise those of `COMPOSE_FILE` without the override that is to be written, otherwise
/// those in the current directory or the nearest parent that has any.
///
/// # Errors
/// If there are none.
pub(super) fn files(given: &[PathBuf], out: Option<&Path>) -> Result<Found, Usage> {
    let files = match given {
        [] => of_environment(out).or_else(|| env::current_dir().ok().and_then(|folder| nearest(&folder))),
        given => Some(given.to_vec()),
    };
    let files = files.filter(|files| !files.is_empty()).ok_or_else(|| {
        let names = FILES.join(", ");
        Usage(format!(
            "no Compose file found in this directory or a parent ({names}): specify one with --file"
        ))
    })?;
    let folder = files[0].parent().unwrap_or(Path::new("")).to_owned();
    Ok(Found { files, folder })
}

fn of_environment(out: Option<&Path>) -> Option<Vec<PathBuf>> {
    let value = env::var("COMPOSE_FILE").ok().filter(|value| !value.is_empty())?;
    let separator = env::var("COMPOSE_PATH_SEPARATOR").unwrap_or_else(|_| ":".to_owned());
    let ours = out.unwrap_or(Path::new(super::OVERRIDE));
    let paths = value.split(&*separator).map(PathBuf::from);
    Some(paths.filter(|path| path.file_name() != ours.file_name()).collect())
}

/// Searches the current directory and its parents. Files in the current directory are returned without a
/// directory, for short messages.
fn nearest(here: &Path) -> Option<Vec<PathBuf>> {
    let mut shown = PathBuf::new();
    for folder in here.ancestors() {
        let exists = |name: &&&str| folder.join(name).is_file();
        if let Some(first) = FILES.iter().find(exists) {
            let more = OVERRIDES.iter().find(exists);
            return Some([first].into_iter().chain(more).map(|name| shown.join(name)).collect());
        }
        shown.push("..");
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_discovered_as_by_compose() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        for name in [
            "docker-compose.yml",
            "docker-compose.override.yml",
            "compose.topsail.yml",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |here: &Path| nearest(here).unwrap();
        assert_eq!(
            found(folder.path()),
            [
                Path::new("docker-compose.yml"),
                Path::new("docker-compose.override.yml")
            ]
        );
        assert_eq!(found(&inner)[0], Path::new("../../docker-compose.yml"));
        fs::write(inner.join("compose.yaml"), "").unwrap();
        fs::write(inner.join("docker-compose.yml"), "").unwrap();
        assert_eq!(found(&inner), [Path::new("compose.yaml")]);
    }
}
