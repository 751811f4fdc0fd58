//! Paths in Compose files.

use std::io;
use std::path::{Component, Path, PathBuf};

/// A path as written in a Compose file: relative to the project directory, as in `./mesh`, or absolute if it
/// is outside.
///
/// # Errors
/// If the working directory cannot be determined.
pub(super) fn seen_from(folder: &Path, path: &Path) -> io::Result<String> {
    let (folder, path) = (
        plain(&std::path::absolute(folder.join("."))?),
        plain(&std::path::absolute(path)?),
    );
    Ok(match path.strip_prefix(&folder) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => path.display().to_string(),
    })
}

/// Resolves `.` and `..` lexically.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(component),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_project_are_relative() {
        let seen = |folder: &str, path: &str| seen_from(Path::new(folder), Path::new(path)).unwrap();
        assert_eq!(seen("", "mesh"), "./mesh");
        assert_eq!(seen("shop", "shop/mesh"), "./mesh");
        assert_eq!(seen("/a/b", "/a/b/../b/c/mesh"), "./c/mesh");
        assert_eq!(seen("/a/b", "/a/mesh"), "/a/mesh");
        assert_eq!(seen("..", "../mesh"), "./mesh");
    }
}
