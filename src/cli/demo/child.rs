//! `topsail demo-child`: executes another program that is killed when the demo exits, even if the demo is
//! killed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process;

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, getppid};

use crate::cli::output::Output;
use crate::cli::{Command, Outcome};

const EXAMPLES: &str = "\
Examples:
  topsail demo-child --parent $$ -- envoy -c bootstrap.yaml";

/// Arguments of `topsail demo-child`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Arguments {
    /// PID of the parent process
    #[arg(long, value_name = "PID")]
    parent: i32,

    /// Program to execute, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Command for Arguments {
    fn run(self, _: &mut Output) -> anyhow::Result<Outcome> {
        die_with_parent().context("cannot set the parent death signal")?;
        // The parent may have exited before the death signal was set.
        if getppid() != Pid::from_raw(self.parent) {
            bail!("process {} is not the parent of this one", self.parent);
        }
        let Some((program, arguments)) = self.command.split_first() else {
            bail!("no program given");
        };
        let error = process::Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}

/// Sets the parent death signal to SIGKILL; it is preserved across `exec`. Linux only: elsewhere processes
/// remain if the demo does not exit cleanly.
fn die_with_parent() -> rustix::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
