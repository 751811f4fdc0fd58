//! The state directory, which persists server state across restarts.
//!
//! The directory has mode 0700 and its files 0600. Files are replaced atomically (temporary file,
//! fsync, rename), so readers and crashes see either the old or the new content. Several processes
//! may use it (`bootstrap` and `token create` while a server runs); writers are serialized by an
//! advisory lock, which is released when the process exits.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::name::TrustDomain;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// Lock file of writers; also marks a directory as a state directory.
const LOCK: &str = ".lock";
/// Lock file held by a running server.
const SERVER_LOCK: &str = ".server.lock";
/// File with the trust domain the directory belongs to.
const TRUST_DOMAIN: &str = "trust-domain";
/// Directory of the CA files, which an operator may provide before the first start.
pub(super) const CA_DIR: &str = "ca";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The path is not a directory.
    #[error("{} is not a directory: specify a separate directory with --state", .0.display())]
    NotADirectory(PathBuf),
    /// The directory is accessible to other users and does not look like a state directory, so its
    /// mode is not changed: this might lock others out of it.
    #[error(
        "{} is accessible to other users (mode {mode:04o}) and contains unrelated files: \
         specify a separate directory with --state, or make it private with `chmod 700`",
        path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file or directory with secrets is accessible to others and its mode cannot be changed.
    #[error(
        "{} is readable by other users (mode {mode:04o}) and its mode could not be changed ({reason}): \
         run as uid {owner}, its owner, or make it private with `chmod go=`",
        path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The uid of its owner.
        owner: u32,
        /// Why the mode could not be changed.
        reason: io::Error,
    },
    /// An I/O error.
    #[error("cannot {action} {}: {reason}{}", path.display(), hint(reason))]
    Io {
        /// The failed operation: `read`, `write`, ….
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error.
        reason: io::Error,
    },
    /// Another server is using it.
    #[error(
        "{} is in use by another `topsail serve`, and two would overwrite each other's last valid configuration: \
         stop that one, or specify another directory with --state",
        .0.display()
    )]
    InUse(PathBuf),
    /// It belongs to another trust domain.
    #[error(
        "{} was created for the trust domain `{made_for}`, not `{asked}`: use --trust-domain {made_for}, or specify another \
         directory with --state; to change the trust domain, remove {}/{TRUST_DOMAIN} and generate new bootstraps for \
         all proxies, since theirs contain the old one",
        path.display(), path.display()
    )]
    OtherTrustDomain {
        /// The directory.
        path: PathBuf,
        /// The trust domain it was created for.
        made_for: String,
        /// The requested trust domain.
        asked: TrustDomain,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => " (run as the user who owns the state directory)",
        ErrorKind::StorageFull => " (the file system is full)",
        ErrorKind::ReadOnlyFilesystem => " (the state directory must be writable)",
        _ => "",
    }
}

/// An open state directory. It may be opened several times, also by several processes.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Files that together identify a state directory, so that it can be skipped if it is within a
    /// configuration directory. They exist from its first use on; the last one is created last.
    pub const MARKS: &[&str] = &[LOCK, TRUST_DOMAIN];

    /// Opens or creates the directory, and removes other users' access to it.
    ///
    /// # Errors
    ///
    /// If the path is not a directory, cannot be created, or is accessible to others and should not
    /// or cannot be made private.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        make_dir(&path)?;
        let metadata = path.metadata().map_err(|e| io_error("open", &path, e))?;
        if !metadata.is_dir() {
            return Err(StateError::NotADirectory(path));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & OTHERS != 0 {
            if !may_close(&path, mode)? {
                return Err(StateError::Shared { path, mode });
            }
            set_mode(&path, DIR_MODE, &metadata)?;
        }
        close_ca_dir(&path.join(CA_DIR))?;
        Ok(Self { path })
    }

    /// Binds the directory to a trust domain, on first use: certificates, tokens and bootstraps
    /// made from it depend on it.
    ///
    /// # Errors
    ///
    /// [`StateError::OtherTrustDomain`] if it is bound to another one.
    pub fn belong_to(&self, trust_domain: &TrustDomain) -> Result<(), StateError> {
        let lock = self.lock()?;
        let Some(made_for) = self.read(TRUST_DOMAIN)? else {
            return lock.write(TRUST_DOMAIN, format!("{trust_domain}\n").as_bytes());
        };
        let made_for = String::from_utf8_lossy(&made_for).trim().to_owned();
        if made_for == trust_domain.as_str() {
            return Ok(());
        }
        Err(StateError::OtherTrustDomain {
            path: self.path.clone(),
            made_for,
            asked: trust_domain.clone(),
        })
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file; `None` if it does not exist. A file accessible to others, e.g. one copied by
    /// an operator, is made private first.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or made private.
    pub fn read(&self, relative: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(relative);
        let failed = |e| io_error("read", &path, e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.mode() & OTHERS != 0 {
            set_mode(&path, FILE_MODE, &metadata)?;
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// Writes a file atomically, creating parent directories. Blocks while another writer holds the
    /// lock.
    ///
    /// # Errors
    ///
    /// If writing fails; the old content is kept.
    pub fn write(&self, relative: &str, content: &[u8]) -> Result<(), StateError> {
        self.lock()?.write(relative, content)
    }

    /// Acquires the write lock, which is released when the guard is dropped. Readers are not
    /// blocked. Must not be held across an `await`, and is not reentrant.
    ///
    /// # Errors
    ///
    /// If the lock file cannot be opened or locked.
    pub fn lock(&self) -> Result<StateLock<'_>, StateError> {
        let (path, file) = self.lock_file(LOCK)?;
        while let Err(errno) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            if errno != rustix::io::Errno::INTR {
                return Err(io_error("lock", &path, errno.into()));
            }
        }
        Ok(StateLock {
            state: self,
            _file: file,
        })
    }

    /// Claims the directory for a server, of which there may be one at a time; other tools may
    /// still use it. Released on drop or when the process exits.
    ///
    /// # Errors
    ///
    /// [`StateError::InUse`] if another server holds it.
    pub fn claim(&self) -> Result<StateClaim, StateError> {
        let (path, file) = self.lock_file(SERVER_LOCK)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateClaim { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(self.path.clone())),
            Err(errno) => Err(io_error("lock", &path, errno.into())),
        }
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StateError> {
        let path = self.path.join(name);
        let opened = private_file().truncate(false).open(&path);
        let file = opened.map_err(|e| io_error("open", &path, e))?;
        Ok((path, file))
    }
}

/// A server's claim on a state directory.
#[derive(Debug)]
pub struct StateClaim {
    /// Closing it releases the lock.
    _file: File,
}

/// The write lock. Others may read meanwhile; each file is replaced atomically.
#[derive(Debug)]
pub struct StateLock<'a> {
    state: &'a StateDir,
    /// Closing it releases the lock.
    _file: File,
}

impl StateLock<'_> {
    /// Writes a file atomically, creating parent directories.
    ///
    /// # Errors
    ///
    /// If writing fails; the old content is kept.
    pub fn write(&self, relative: &str, content: &[u8]) -> Result<(), StateError> {
        let target = self.state.path.join(relative);
        let (dir, temporary) = beside(&target);
        make_dir(&dir)?;
        write_synced(&temporary, content)?;
        std::fs::rename(&temporary, &target).map_err(|e| io_error("replace", &target, e))?;
        sync_dir(&dir)
    }

    /// Creates a directory with all its files atomically. An existing empty directory is replaced.
    ///
    /// # Errors
    ///
    /// If writing fails, or the directory is not empty.
    pub fn write_dir(&self, relative: &str, files: &[(&str, &[u8])]) -> Result<(), StateError> {
        let target = self.state.path.join(relative);
        let (parent, temporary) = beside(&target);
        match std::fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error("remove", &temporary, error)),
            Ok(()) | Err(_) => make_dir(&temporary)?,
        }
        for (name, content) in files {
            write_synced(&temporary.join(name), content)?;
        }
        sync_dir(&temporary)?;
        std::fs::rename(&temporary, &target).map_err(|e| io_error("make", &target, e))?;
        sync_dir(&parent)
    }
}

/// The parent of a path, and the path of its temporary file. The name is fixed, so that a file left
/// by a killed process is overwritten.
fn beside(target: &Path) -> (PathBuf, PathBuf) {
    let dir = target.parent().unwrap_or(Path::new("/")).to_owned();
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    (dir, temporary)
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let failed = |e| io_error("write", path, e);
    let mut file = private_file().truncate(true).open(path).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(FILE_MODE);
    options
}

fn make_dir(path: &Path) -> Result<(), StateError> {
    match DirBuilder::new().recursive(true).mode(DIR_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(StateError::NotADirectory(path.to_owned())),
        made => made.map_err(|e| io_error("make", path, e)),
    }
}

fn sync_dir(path: &Path) -> Result<(), StateError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| io_error("sync", path, e))
}

/// Makes the CA directory private, since `mkdir` and `cp` by an operator create it with default
/// modes.
fn close_ca_dir(path: &Path) -> Result<(), StateError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() && metadata.mode() & OTHERS != 0 => set_mode(path, DIR_MODE, &metadata),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether the directory can be made private safely: it is empty or already a state directory,
/// unlike `/tmp` or a home directory.
fn may_close(path: &Path, mode: u32) -> Result<bool, StateError> {
    const STICKY: u32 = 0o1000;
    if mode & STICKY != 0 {
        return Ok(false);
    }
    // List first, check afterwards: another process may be creating its first file, the lock,
    // meanwhile.
    let mut entries = path.read_dir().map_err(|e| io_error("list", path, e))?;
    Ok(entries.next().is_none() || path.join(LOCK).exists() || path.join(CA_DIR).is_dir())
}

fn set_mode(path: &Path, mode: u32, was: &std::fs::Metadata) -> Result<(), StateError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|reason| StateError::Exposed {
        path: path.to_owned(),
        mode: was.mode() & 0o7777,
        owner: was.uid(),
        reason,
    })
}

fn io_error(action: &'static str, path: &Path, reason: io::Error) -> StateError {
    StateError::Io {
        action,
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn everything_made_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("a/state")).unwrap();
        state.write("generation/last.json", b"{}").unwrap();
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("generation")), 0o700);
        assert_eq!(mode(&state.path().join("generation/last.json")), 0o600);
        assert_eq!(state.read("generation/last.json").unwrap().unwrap(), b"{}");
        assert_eq!(state.read("generation/other.json").unwrap(), None);
    }

    #[test]
    fn group_and_other_permissions_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o755);
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        state.write("a", b"secret").unwrap();
        chmod(dir.path(), 0o750);
        chmod(&dir.path().join("a"), 0o644);
        std::fs::create_dir(dir.path().join("ca")).unwrap();
        chmod(&dir.path().join("ca"), 0o755);
        let again = StateDir::open(dir.path()).unwrap();
        assert_eq!(again.read("a").unwrap().unwrap(), b"secret");
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join("a")), 0o600);
        assert_eq!(mode(&dir.path().join("ca")), 0o700);
    }

    #[test]
    fn only_one_server_can_claim_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let claim = state.claim().unwrap();
        let refusal = StateDir::open(dir.path()).unwrap().claim().unwrap_err();
        assert!(matches!(refusal, StateError::InUse(_)), "{refusal}");
        state.write("a", b"1").unwrap();
        drop(claim);
        state.claim().unwrap();
    }

    #[test]
    fn a_directory_is_for_one_trust_domain() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (mine, other) = ("a.example".parse().unwrap(), "b.example".parse().unwrap());
        state.belong_to(&mine).unwrap();
        state.belong_to(&mine).unwrap();
        let refusal = state.belong_to(&other).unwrap_err().to_string();
        assert!(refusal.contains("use --trust-domain a.example"), "{refusal}");
        std::fs::remove_file(dir.path().join(TRUST_DOMAIN)).unwrap();
        state.belong_to(&other).unwrap();
    }

    #[test]
    fn the_reason_is_not_repeated() {
        let error = anyhow::Error::from(StateDir::open("/proc/none").unwrap_err());
        assert_eq!(format!("{error:#}").matches("os error").count(), 1, "{error:#}");
    }

    #[test]
    fn an_empty_directory_can_be_opened_concurrently() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            chmod(dir.path(), 0o755);
            std::thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(|| StateDir::open(dir.path()).unwrap().write("a", b"").unwrap());
                }
            });
            assert_eq!(mode(dir.path()), 0o700);
        }
    }

    #[test]
    fn a_shared_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("holiday.jpg"), b"").unwrap();
        chmod(dir.path(), 0o755);
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, StateError::Shared { mode: 0o755, .. }), "{error}");
        assert_eq!(mode(dir.path()), 0o755);

        let sticky = tempfile::tempdir().unwrap();
        chmod(sticky.path(), 0o1777);
        assert!(StateDir::open(sticky.path()).is_err());
        assert_eq!(mode(sticky.path()), 0o1777);
    }

    #[test]
    fn a_file_is_no_state_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateDir::open(file.path()).unwrap_err();
        assert!(matches!(error, StateError::NotADirectory(_)), "{error}");
        let below = StateDir::open(file.path().join("state")).unwrap_err();
        assert!(
            below.to_string().contains(&file.path().display().to_string()),
            "{below}"
        );
    }

    #[test]
    fn leftovers_of_a_killed_writer_are_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let leftover = dir.path().join(".a.new");
        std::fs::write(&leftover, b"a much longer text that was being written").unwrap();
        chmod(&leftover, 0o644);
        state.write("a", b"new").unwrap();
        assert_eq!(state.read("a").unwrap().unwrap(), b"new");
        assert_eq!(mode(&dir.path().join("a")), 0o600);
        assert!(!leftover.exists());
    }

    #[test]
    fn directories_are_created_atomically() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join(".ca.new")).unwrap();
        std::fs::write(dir.path().join(".ca.new/half"), b"").unwrap();
        std::fs::create_dir(dir.path().join("ca")).unwrap();
        let lock = state.lock().unwrap();
        lock.write_dir("ca", &[("a", b"1"), ("b", b"2")]).unwrap();
        assert!(!dir.path().join("ca/half").exists());
        assert_eq!(state.read("ca/b").unwrap().unwrap(), b"2");
        assert!(lock.write_dir("ca", &[("a", b"3")]).is_err());
        assert_eq!(state.read("ca/a").unwrap().unwrap(), b"1");
    }

    #[test]
    fn writers_are_serialized() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.write("counter", b"0").unwrap();
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..10 {
                        let lock = state.lock().unwrap();
                        let text = String::from_utf8(state.read("counter").unwrap().unwrap()).unwrap();
                        let next = text.parse::<u32>().unwrap() + 1;
                        lock.write("counter", next.to_string().as_bytes()).unwrap();
                    }
                });
            }
        });
        assert_eq!(state.read("counter").unwrap().unwrap(), b"80");
    }
}
