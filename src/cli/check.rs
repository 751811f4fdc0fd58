//! `topsail check`: offline validation of a configuration.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::directory::{DirectoryArguments, config_root};
use super::output::Output;
use super::{Command, Outcome, Usage};
use crate::control::Offline;
use crate::diag::{Code, Diagnostic, Severity, render};

const EXAMPLES: &str = "\
All problems are reported in one run, as `path:line:column: severity[CODE]: message` with the affected lines and a \
hint on how to fix them; docs/diagnostics.md lists the codes. Findings are written to standard output, a summary to \
standard error. Exit codes: 0 no findings, 1 findings at or above the --fail-on severity, 2 usage error.

References are resolved against all checked files and, with --config, against that directory, as if the files \
replaced those in it that define the same objects. If only single files are given, referenced objects may be \
defined elsewhere, so an unresolved reference is reported as info.

Examples:
  Check a whole directory, as the server would read it:
    topsail check mesh/

  Check a new file before adding it to the directory:
    topsail check reviews.yaml --config mesh/

  Produce SARIF for code scanning in CI:
    topsail check mesh/ -o sarif --fail-on warning > topsail.sarif";

/// Arguments of `topsail check`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Files, and directories to read recursively
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Directory the files will be added to: references are resolved against it, but its own problems are not
    /// reported
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,

    #[command(flatten)]
    directory: DirectoryArguments,

    /// Output format
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Form::Text)]
    output: Form,

    /// Minimum severity that causes exit code 1
    #[arg(long, value_name = "SEVERITY", value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
    Sarif,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    Error,
    Warning,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        for path in self.paths.iter().chain(&self.config) {
            let unusable = |why: String| Usage(format!("cannot read {}: {why}", path.display()));
            let metadata = path.metadata().map_err(|error| unusable(error.to_string()))?;
            if !metadata.is_file() && !metadata.is_dir() {
                return Err(
                    unusable("not a regular file or directory; write the input to a file first".to_owned()).into(),
                );
            }
        }
        let surroundings = self.config.as_ref().map(|config| config_root([config]));
        let reading = self.directory.reading(config_root(&self.paths))?;
        let offline = Offline::read(&reading, surroundings.as_ref(), &self.directory.trust_domain);
        let mut found = offline.diagnostics();
        if self.config.is_none() && self.paths.iter().all(|path| path.is_file()) {
            found
                .iter_mut()
                .filter(|problem| is_unresolved(problem.code))
                .for_each(|problem| problem.severity = Severity::Info);
        }
        self.print(&found, output)?;
        writeln!(output.err, "{}", summary(&found, offline.file_count()))?;
        let limit = match self.fail_on {
            FailOn::Error => Severity::Error,
            FailOn::Warning => Severity::Warning,
        };
        let fails = found.iter().any(|problem| problem.severity >= limit);
        Ok(if fails { Outcome::Findings } else { Outcome::Fine })
    }
}

impl Arguments {
    fn print(&self, found: &[Diagnostic], output: &mut Output) -> anyhow::Result<()> {
        match self.output {
            Form::Text => {
                for problem in found {
                    writeln!(output.out, "{}", render::text(problem, output.color))?;
                }
            }
            Form::Json => writeln!(output.out, "{:#}", render::json(found))?,
            Form::Sarif => writeln!(output.out, "{:#}", render::sarif(found))?,
        }
        Ok(())
    }
}

/// Whether the problem may be resolved by an object that is not among the checked ones.
fn is_unresolved(code: Code) -> bool {
    matches!(
        code,
        Code::ReferencedResourceNotFound | Code::UnknownDestinationRuleHost | Code::DestinationRuleSubsetNotSelectPods
    )
}

/// For example `3 errors, 1 warning in 12 files`.
fn summary(found: &[Diagnostic], files: usize) -> String {
    let counts = [Severity::Error, Severity::Warning, Severity::Info].map(|severity| {
        let count = found.iter().filter(|problem| problem.severity == severity).count();
        (count, severity.as_str())
    });
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| many(count, name))
        .collect();
    let found = if counts.is_empty() {
        "no problems".to_owned()
    } else {
        counts.join(", ")
    };
    format!("{found} in {}", many(files, "file"))
}

fn many(count: usize, name: &str) -> String {
    let plural = if count == 1 || name == Severity::Info.as_str() {
        ""
    } else {
        "s"
    };
    format!("{count} {name}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_counts_by_severity() {
        let problem = |severity| Diagnostic::new(Code::InvalidValue, "").severity(severity);
        let (error, warning, info) = (
            problem(Severity::Error),
            problem(Severity::Warning),
            problem(Severity::Info),
        );
        let found = [error.clone(), error, warning, info.clone(), info];
        assert_eq!(summary(&found, 12), "2 errors, 1 warning, 2 info in 12 files");
        assert_eq!(summary(&[], 1), "no problems in 1 file");
    }
}
