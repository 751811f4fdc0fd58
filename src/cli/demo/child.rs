//! `topsail demo-child`: becomes another program, which ends when the demo does, however that ends.

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

/// What `topsail demo-child` is called with.
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
        // The parent may have been gone before there was anything to be told about it.
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

/// Has the system kill this process when its parent is gone; that outlives `exec`. Elsewhere than on
/// Linux only an orderly end of the demo ends its parts.
fn die_with_parent() -> rustix::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
