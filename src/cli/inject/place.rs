//! Paths as compose understands them.

use std::io;
use std::path::{Component, Path, PathBuf};

/// A path in a compose file, where it is relative to the project's folder: `./mesh`, or absolute if it lies elsewhere.
///
/// # Errors
/// When the working directory cannot be told.
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

/// Without `.` and `..`.
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
    fn what_lies_in_the_project_is_relative_to_it() {
        let seen = |folder: &str, path: &str| seen_from(Path::new(folder), Path::new(path)).unwrap();
        assert_eq!(seen("", "mesh"), "./mesh");
        assert_eq!(seen("shop", "shop/mesh"), "./mesh");
        assert_eq!(seen("/a/b", "/a/b/../b/c/mesh"), "./c/mesh");
        assert_eq!(seen("/a/b", "/a/mesh"), "/a/mesh");
        assert_eq!(seen("..", "../mesh"), "./mesh");
    }
}
