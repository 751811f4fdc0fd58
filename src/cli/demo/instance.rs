//! Ensures that one demo runs at a time, with a lock file, and manages its temporary directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Prefix of the temporary directories' names.
const FOLDER: &str = "topsail-demo-";

/// Why a demo cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstanceError {
    /// Another demo runs.
    #[error("a demo is already running{}; stop it with Ctrl-C there{}", runs(.other), kill(.other))]
    Running {
        /// The other demo, if the lock file names it.
        other: Option<Other>,
    },
    /// The lock file or the temporary directory cannot be created.
    #[error("{}: {error}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

/// The demo that holds the lock, as described in the lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    /// Its process ID.
    pub pid: String,
    /// Its temporary directory.
    pub folder: PathBuf,
    /// Its configuration directory.
    pub config: String,
}

fn runs(other: &Option<Other>) -> String {
    other.as_ref().map_or_else(String::new, |other| {
        let Other { pid, folder, config } = other;
        format!(
            ": process {pid} on {config}, with its state and logs in {}",
            folder.display()
        )
    })
}

fn kill(other: &Option<Other>) -> String {
    other
        .as_ref()
        .map_or_else(String::new, |other| format!(" or with `kill {}`", other.pid))
}

/// Lock and temporary directory of a running demo, released and removed on drop.
#[derive(Debug)]
pub(super) struct Instance {
    lock: File,
    lock_path: PathBuf,
    folder: PathBuf,
}

impl Instance {
    /// Takes the lock in this user's runtime directory and creates a private directory in `temporary`.
    /// Removes the directory left behind by a demo that was killed.
    ///
    /// # Errors
    /// If another demo is running, or a file cannot be created.
    pub(super) fn take(runtime: Option<&Path>, temporary: &Path) -> Result<Self, InstanceError> {
        let user = rustix::process::getuid().as_raw();
        let lock_path = runtime.unwrap_or(temporary).join(format!("topsail-demo-{user}.lock"));
        let failed = |path: &Path, error| InstanceError::File {
            path: path.to_owned(),
            error,
        };
        let mut lock = loop {
            match locked(&lock_path).map_err(|error| failed(&lock_path, error))? {
                Locked::Ours(lock) => break lock,
                Locked::Removed => {}
                Locked::Others(other) => return Err(InstanceError::Running { other }),
            }
        };
        if let Some(killed) = read(&mut lock).filter(|killed| is_folder(&killed.folder, temporary)) {
            remove(&killed.folder).map_err(|error| failed(&killed.folder, error))?;
        }
        let folder = make_folder(temporary).map_err(|error| failed(temporary, error))?;
        Ok(Self {
            lock,
            lock_path,
            folder,
        })
    }

    /// Describes this demo in the lock file, for the error message of a second one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn announce(&mut self, config: &Path) -> io::Result<()> {
        let text = format!(
            "{}\n{}\n{}\n",
            std::process::id(),
            self.folder.display(),
            config.display()
        );
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(text.as_bytes())
    }

    /// The temporary directory, which only this user can access.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next demo; the lock ends with the process.
        let _ = remove(&self.folder).and_then(|()| fs::remove_file(&self.lock_path));
    }
}

enum Locked {
    Ours(File),
    /// The lock file was removed concurrently.
    Removed,
    Others(Option<Other>),
}

fn locked(path: &Path) -> io::Result<Locked> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(Locked::Others(read(&mut file))),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let (opened, there) = (file.metadata()?, fs::symlink_metadata(path));
    let is_there = there.is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()));
    Ok(if is_there { Locked::Ours(file) } else { Locked::Removed })
}

fn read(lock: &mut File) -> Option<Other> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    let mut lines = text.lines().map(str::to_owned);
    Some(Other {
        pid: lines.next()?,
        folder: lines.next()?.into(),
        config: lines.next()?,
    })
}

/// Whether a path is a demo's temporary directory. The content of the lock file is not trusted.
fn is_folder(path: &Path, temporary: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.parent() == Some(temporary)
        && name
            .strip_prefix(FOLDER)
            .is_some_and(|number| number.parse::<u64>().is_ok())
}

fn make_folder(temporary: &Path) -> io::Result<PathBuf> {
    let mut number = u64::from(std::process::id());
    loop {
        let folder = temporary.join(format!("{FOLDER}{number}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1 << 32,
            Err(error) => return Err(error),
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_demo_is_refused_and_names_the_first() {
        let (runtime, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let take = || Instance::take(Some(runtime.path()), temporary.path());
        let mut first = take().unwrap();
        let InstanceError::Running { other: None } = take().unwrap_err() else {
            panic!("the lock says who before anybody wrote")
        };
        first.announce(Path::new("here/config")).unwrap();
        let text = take().unwrap_err().to_string();
        let pid = std::process::id();
        assert!(text.contains(&format!("process {pid} on here/config")), "{text}");
        assert!(
            text.contains(&first.folder().display().to_string()) && text.contains(&format!("kill {pid}")),
            "{text}"
        );
        drop(first);
        drop(take().unwrap());
    }

    #[test]
    fn the_directory_is_private_and_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let instance = Instance::take(None, temporary.path()).unwrap();
        assert_eq!(
            instance.folder().metadata().unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::write(instance.folder().join("file"), "").unwrap();
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 2);
        drop(instance);
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_of_a_killed_demo_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let mut killed = Instance::take(None, temporary.path()).unwrap();
        killed.announce(Path::new("config")).unwrap();
        let left = killed.folder().join("file");
        fs::write(&left, "").unwrap();
        // As after `kill -9`: the lock is released, but the files remain.
        killed.lock.unlock().unwrap();
        std::mem::forget(killed);
        let next = Instance::take(None, temporary.path()).unwrap();
        assert!(!left.exists() && next.folder().exists());
    }

    #[test]
    fn only_demo_directories_are_removed() {
        let temporary = Path::new("/tmp");
        assert!(is_folder(Path::new("/tmp/topsail-demo-12"), temporary));
        for path in [
            "/tmp",
            "/tmp/topsail-demo-",
            "/tmp/topsail-demo-a/..",
            "/tmp/x/topsail-demo-12",
            "/topsail-demo-12",
        ] {
            assert!(!is_folder(Path::new(path), temporary), "{path}");
        }
    }
}
