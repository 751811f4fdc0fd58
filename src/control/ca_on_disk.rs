//! Watches the CA files in the state directory. The server loads its CA once at startup; files
//! replaced later take effect only after a restart, so a difference is reported once.

use crate::pki::{Ca, StateDir};

/// The CA files as loaded at startup, and the result of the last check.
#[derive(Debug)]
pub(super) struct CaOnDisk {
    state: StateDir,
    in_use: Option<[Vec<u8>; 3]>,
    last: Found,
}

/// State of the files on disk relative to the CA in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Same,
    Others,
    Missing,
}

impl CaOnDisk {
    /// Takes the current files as the CA in use.
    pub(super) fn new(state: StateDir) -> Self {
        Self {
            in_use: Ca::certificates_on_disk(&state),
            last: Found::Same,
            state,
        }
    }

    /// Checks the files and logs a change of their state once.
    pub(super) fn look(&mut self) {
        let dir = self.state.path().display().to_string();
        match self.news() {
            None => {}
            Some(Found::Same) => tracing::info!(%dir, "the CA files match those in use again"),
            Some(Found::Others) => {
                tracing::warn!(%dir, "the CA files have changed: restart the server to use them");
            }
            Some(Found::Missing) => tracing::error!(
                %dir,
                "CA files are missing: restore them before the server is restarted; if all are missing, it will create a \
                 new CA, which running proxies do not trust"
            ),
        }
    }

    fn news(&mut self) -> Option<Found> {
        let found = match Ca::certificates_on_disk(&self.state) {
            None => Found::Missing,
            now if now == self.in_use => Found::Same,
            Some(_) => Found::Others,
        };
        let before = std::mem::replace(&mut self.last, found);
        (found != before).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn changes_of_the_files_are_reported_once() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &other] {
            let state = StateDir::open(dir.path()).unwrap();
            Ca::load_or_create(&state, &Default::default(), &Clock::system()).unwrap();
        }
        let (ca, away) = (one.path().join("ca"), one.path().join("away"));
        let mut on_disk = CaOnDisk::new(StateDir::open(one.path()).unwrap());
        assert_eq!(on_disk.news(), None);
        std::fs::rename(&ca, &away).unwrap();
        assert_eq!((on_disk.news(), on_disk.news()), (Some(Found::Missing), None));
        std::fs::rename(other.path().join("ca"), &ca).unwrap();
        assert_eq!((on_disk.news(), on_disk.news()), (Some(Found::Others), None));
        std::fs::remove_dir_all(&ca).unwrap();
        std::fs::rename(&away, &ca).unwrap();
        assert_eq!((on_disk.news(), on_disk.news()), (Some(Found::Same), None));
    }
}
