//! Atomic file replacement.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::Context;

use super::value::Owner;

/// Replaces a file atomically by rename, so that readers see either the old or the new content.
///
/// # Errors
/// If the file cannot be written; the old content is unchanged.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    replace_for(path, content, mode, None)
}

/// Like [`replace`], with an owner set before the rename. Requires root.
///
/// # Errors
/// If the file cannot be written or its owner set; the old content is unchanged.
pub(super) fn replace_for(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> anyhow::Result<()> {
    write(path, content, mode, owner).with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = fill(&temporary, content, mode, owner).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Ignored: it may not have been created.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn fill(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    if let Some(Owner { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_atomically_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.token");
        fs::write(&path, "old").unwrap();
        let old = File::open(&path).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(io::read_to_string(old).unwrap(), "old");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn failures_name_the_file_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        for path in ["d", "missing/file"] {
            let error = replace(&folder.path().join(path), b"", 0o600).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
