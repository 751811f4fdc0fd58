//! `topsail token`: manages join tokens.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::Output;
use super::state::StateArguments;
use super::workload::WorkloadArguments;
use super::{Command, Outcome, Usage, file, value};
use crate::pki::Bearer;

/// Arguments of `topsail token`.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a join token, with which a sidecar authenticates as its workload
    Create(Create),
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        match self.action {
            Action::Create(create) => create.run(output),
        }
    }
}

const EXAMPLES: &str = "\
The token is written to standard output or, with --out, to a file that is replaced with an atomic rename, so that a \
running Envoy reloads it (Envoy does not notice in-place writes). The server may be running; it is not contacted.

Anyone holding the token can join as the workload, or as a member of the group, until it expires. To revoke all \
tokens, delete token-key.pem in the state directory and restart the server.

Examples:
  Create or replace the token for `topsail bootstrap --token-file`:
    topsail token create --workload reviews-v1.default --service-account reviews --out /etc/token

  Create a token for all replicas of reviews-v1, which auto-register:
    topsail token create --group reviews-v1.default --service-account reviews \\
      --label app=reviews --label version=v1 --out /etc/token

  Create a short-lived token for a workload that has no WorkloadEntry with its labels and address:
    topsail token create --workload batch.jobs --label app=batch --ip 10.0.0.7 --ttl 12h > token";

/// Arguments of `topsail token create`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Create {
    #[command(flatten)]
    workload: WorkloadArguments,

    /// Lifetime of the token, from 1s to 3650d (units: s, m, h, d) [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    ttl: Option<Duration>,

    /// Write the token to this file (mode 0600) instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    state: StateArguments,
}

impl Command for Create {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        if matches!(self.workload.bearer()?, Bearer::Group(_)) && !self.workload.addresses.is_empty() {
            let why = "--ip cannot be used with --group: each member registers with the address it connects from";
            return Err(Usage(why.to_owned()).into());
        }
        let token = self.workload.token(&self.state, self.ttl)?;
        match &self.out {
            Some(path) => file::replace(path, token.text.as_bytes(), 0o600)?,
            // No trailing newline otherwise: Envoy up to 1.36 takes a newline at the end of the file as part
            // of the token.
            None if output.is_terminal => writeln!(output.out, "{}", token.text)?,
            None => write!(output.out, "{}", token.text)?,
        }
        let until = display(token.expires);
        let advice = match self.out {
            Some(_) => "",
            None => "; keep it secret: `chmod 600` the file you save it to",
        };
        output.note(&format!("valid until {until}{advice}"))?;
        Ok(Outcome::Fine)
    }
}

/// Formats a time as RFC 3339: `2027-02-14T08:00:00Z`.
pub(super) fn display(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}
