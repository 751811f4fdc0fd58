//! `topsail token`: join tokens.

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

/// What `topsail token` is called with.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a join token: what a sidecar shows to be let in as its workload
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
The token goes to standard output, or to a file that is replaced by rename, which a running Envoy notices \
(it does not notice a file that is written in place). This works beside a running server, which is not asked.

Who holds the token can join as the workload, or as a member of the group, until it expires. To revoke all tokens, delete token-key.pem in \
the state directory and restart the server.

Examples:
  A token for the bootstrap's --token-file, or a new one in its place:
    topsail token create --workload reviews-v1.default --service-account reviews --out /etc/token

  One for every replica of reviews-v1, each of which registers itself:
    topsail token create --group reviews-v1.default --service-account reviews \\
      --label app=reviews --label version=v1 --out /etc/token

  A short-lived one for a workload that has no WorkloadEntry to say its labels and address:
    topsail token create --workload batch.jobs --label app=batch --ip 10.0.0.7 --ttl 12h > token";

/// What `topsail token create` is called with.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Create {
    #[command(flatten)]
    workload: WorkloadArguments,

    /// How long the token is good, from 1s to 3650d; units are s, m, h and d [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    ttl: Option<Duration>,

    /// Write the token to this file, readable by its owner alone, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    state: StateArguments,
}

impl Command for Create {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        if matches!(self.workload.bearer()?, Bearer::Group(_)) && !self.workload.addresses.is_empty() {
            let why = "--ip says nothing of a group: each member registers the address that it connects from";
            return Err(Usage(why.to_owned()).into());
        }
        let token = self.workload.token(&self.state, self.ttl)?;
        match &self.out {
            Some(path) => file::replace(path, token.text.as_bytes(), 0o600)?,
            // Envoy up to 1.36 takes a line feed at the end of the file for a part of the token.
            None if output.is_terminal => writeln!(output.out, "{}", token.text)?,
            None => write!(output.out, "{}", token.text)?,
        }
        let until = display(token.expires);
        let advice = match self.out {
            Some(_) => "",
            None => "; keep it to its owner: `chmod 600` the file it goes to",
        };
        output.note(&format!("good until {until}{advice}"))?;
        Ok(Outcome::Fine)
    }
}

/// A time as people write it: `2027-02-14T08:00:00Z`.
pub(super) fn display(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}
