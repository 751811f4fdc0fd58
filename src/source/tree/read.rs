//! Reads a single file.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::Content;
use crate::diag::{Code, Diagnostic, Place, SourceText};

/// Maximum file size: 256 MiB.
const MAX_FILE: u64 = 256 << 20;

/// Writes within this time may have the same time stamp. Kernels use ticks of up to 10 ms, some
/// file systems whole seconds.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// Bytes of an invalid line that are kept for display in a diagnostic.
const SHOWN_AFTER_BREAK: usize = 80;

/// The result of reading a path.
pub(super) enum Reading {
    /// It does not exist.
    Absent,
    /// It changed during every attempt to read it.
    Torn {
        /// Content of the last attempt.
        content: Content,
    },
    /// It was read, or failed with an error.
    File {
        /// Its content.
        content: Content,
        /// Metadata to detect later changes; `None` if it must always be read.
        stamp: Option<Stamp>,
    },
}

/// Metadata of a file that changes when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file at `path` has the same metadata.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| Self::of(&metadata) == *self)
    }

    /// Whether a later write, at `now` or after, would change the time stamp.
    fn is_telling(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let age = now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        age.is_ok_and(|age| age > CLOCK_STEP)
    }
}

/// Reads the file at `path`, following links.
pub(super) fn read(path: &Path) -> Reading {
    let mut last = Content::Unreadable(problem(path, "it keeps changing"));
    for _ in 0..ATTEMPTS {
        match attempt(path) {
            Ok(Attempt::Whole(content, stamp)) => {
                let stamp = stamp.is_telling(SystemTime::now()).then_some(stamp);
                return Reading::File { content, stamp };
            }
            Ok(Attempt::Torn(content)) => last = content,
            Err(error) => return failed(path, &error),
        }
    }
    Reading::Torn { content: last }
}

enum Attempt {
    Whole(Content, Stamp),
    Torn(Content),
}

fn attempt(path: &Path) -> io::Result<Attempt> {
    let mut file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let before = Stamp::of(&metadata);
    if before.length > MAX_FILE {
        return Ok(Attempt::Whole(too_large(path), before));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.length).unwrap_or(0) + 1);
    Read::by_ref(&mut file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    let after = Stamp::of(&file.metadata()?);
    let content = content(path, bytes);
    Ok(match before == after {
        true => Attempt::Whole(content, after),
        false => Attempt::Torn(content),
    })
}

/// Opens with `O_NONBLOCK`, so that a FIFO does not block.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn failed(path: &Path, error: &io::Error) -> Reading {
    let absent = match error.kind() {
        io::ErrorKind::NotFound => fs::symlink_metadata(path).is_err(),
        io::ErrorKind::NotADirectory => true,
        _ => path.is_dir(),
    };
    if absent {
        return Reading::Absent;
    }
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "it is a dangling symbolic link".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    Reading::File {
        content: Content::Unreadable(problem(path, &reason)),
        stamp: None,
    }
}

fn content(path: &Path, bytes: Vec<u8>) -> Content {
    if bytes.len() as u64 > MAX_FILE {
        return too_large(path);
    }
    let hash = Sha256::digest(&bytes).into();
    match String::from_utf8(bytes) {
        Ok(text) => Content::Text {
            source: SourceText::new(&*path.to_string_lossy(), text),
            hash,
        },
        Err(error) => Content::Unreadable(not_utf8(path, error.as_bytes(), error.utf8_error().valid_up_to())),
    }
}

fn too_large(path: &Path) -> Content {
    Content::Unreadable(problem(path, "it is larger than 256 MiB"))
}

fn problem(path: &Path, reason: &str) -> Diagnostic {
    let origin = path.to_string_lossy();
    let place = Place {
        source: SourceText::new(&*origin, ""),
        span: 0..0,
    };
    Diagnostic::new(Code::UnreadableFile, format!("the file cannot be read: {reason}")).at(place)
}

fn not_utf8(path: &Path, bytes: &[u8], offset: usize) -> Diagnostic {
    let shown = &bytes[..bytes.len().min(offset + SHOWN_AFTER_BREAK)];
    let place = Place {
        source: SourceText::new(&*path.to_string_lossy(), String::from_utf8_lossy(shown)),
        span: offset..offset + '\u{fffd}'.len_utf8(),
    };
    let help = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this is UTF-16: save the file as UTF-8",
        _ => "save the file as UTF-8",
    };
    let byte = bytes.get(offset).copied().unwrap_or(0);
    let message = format!("the file is not valid UTF-8: byte 0x{byte:02x} at offset {offset}");
    Diagnostic::new(Code::UnreadableFile, message).at(place).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(path: &Path) -> Diagnostic {
        match read(path) {
            Reading::File {
                content: Content::Unreadable(diagnostic),
                ..
            } => diagnostic,
            _ => panic!("{} should be a problem", path.display()),
        }
    }

    #[test]
    fn invalid_utf8_is_placed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, b"a: \xc3\xa4\nb: \xff\nc: d\n").unwrap();
        let diagnostic = unreadable(&path);
        assert_eq!(diagnostic.code, Code::UnreadableFile);
        assert_eq!(diagnostic.message, "the file is not valid UTF-8: byte 0xff at offset 9");
        assert_eq!(diagnostic.place().unwrap().position(), (2, 4));
    }

    #[test]
    fn utf16_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, b"\xff\xfea\0").unwrap();
        assert_eq!(
            unreadable(&path).help.unwrap(),
            "this is UTF-16: save the file as UTF-8"
        );
    }

    #[test]
    fn non_regular_files_do_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("a.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(
            unreadable(&fifo).message,
            "the file cannot be read: it is not a regular file"
        );
        assert!(matches!(read(directory.path()), Reading::Absent));
        assert!(matches!(read(&directory.path().join("none/a.yaml")), Reading::Absent));
    }

    #[test]
    fn oversized_files_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(
            unreadable(&path).message,
            "the file cannot be read: it is larger than 256 MiB"
        );
    }

    #[test]
    fn recent_time_stamps_are_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, "a").unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        assert!(stamp.is_current(&path));
        assert!(!stamp.is_telling(SystemTime::now()));
        assert!(stamp.is_telling(SystemTime::now() + Duration::from_secs(4)));
        assert!(!stamp.is_telling(SystemTime::UNIX_EPOCH));
    }
}
