//! The command line: one module per command.
//!
//! A command prints its result on standard output and everything else on standard error. Exit codes: 0
//! success, 1 failure or findings, 2 usage error.

mod bootstrap;
mod check;
mod demo;
mod directory;
mod file;
mod format;
mod init;
mod inject;
mod iptables;
mod join;
mod log;
mod output;
mod proxy;
mod render;
mod serve;
mod sidecar;
mod state;
mod status;
mod token;
mod value;
mod workload;

use std::io;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use output::{Output, color};

/// Outcome of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Exit code 0.
    Fine,
    /// Success, but with findings: exit code 1.
    Findings,
    /// It ran another program and exits with that program's exit code.
    Ended(u8),
}

/// A usage error that clap cannot detect: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The arguments of a command, and its implementation.
trait Command: Args {
    /// Runs the command to completion.
    ///
    /// # Errors
    /// Any failure; printed once, by [`main`].
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome>;
}

/// Defines the table of commands. Each entry has the `--help` text, the name, and the type of the arguments,
/// which implements the command.
macro_rules! commands {
    ($($(#[$attribute:meta])+ $name:ident($arguments:ty),)+) => {
        #[derive(Subcommand)]
        enum Commands { $($(#[$attribute])+ $name($arguments),)+ }

        impl Commands {
            fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
                match self { $(Commands::$name(arguments) => arguments.run(output),)+ }
            }
        }
    };
}

commands! {
    /// Run the control plane: serve a directory of Istio YAML to proxies over xDS
    Serve(serve::Arguments),
    /// Validate a configuration directory or files, offline
    Check(check::Arguments),
    /// Print the xDS resources a proxy would receive, offline
    Render(render::Arguments),
    /// Generate the Envoy bootstrap for a workload
    Bootstrap(bootstrap::Arguments),
    /// Run the bundled proxy, a data plane that takes Envoy's bootstrap and xDS
    Proxy(proxy::Arguments),
    /// Run a sidecar: join the mesh, set up interception, run the data plane, drain on shutdown (container entry point)
    Sidecar(Box<sidecar::Arguments>),
    /// Add sidecars to the services of a Compose project
    Inject(inject::Arguments),
    /// Set up or remove iptables rules that redirect traffic to the sidecar
    Iptables(iptables::Arguments),
    /// Show the xDS sync status of each proxy
    Status(status::Arguments),
    /// Provision join tokens and the root certificate for sidecars
    Init(init::Arguments),
    /// Manage join tokens
    Token(token::Arguments),
    /// Run the Bookinfo demo mesh on this machine
    Demo(demo::Arguments),
    /// Execute a program that is killed when the demo exits
    #[command(hide = true)]
    DemoChild(demo::ChildArguments),
    /// Run one Bookinfo service
    #[command(hide = true)]
    DemoService(demo::ServiceArguments),
}

/// A service mesh control plane without Kubernetes: a directory of Istio YAML in, Envoy xDS out.
#[derive(Parser)]
#[command(
    name = "topsail",
    version,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Run `topsail help COMMAND` for details and examples.\n\
                  Exit codes: 0 success, 1 failure or findings, 2 usage error."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Commands,
}

/// Entry point of the binary: parses the command line, runs the command and prints the error, if any.
pub fn main() -> ExitCode {
    let result = match CommandLine::try_parse() {
        Ok(line) => {
            let mut output = Output::standard();
            let result = line.command.run(&mut output);
            // Flushing can fail, for example on a full disk.
            result.and_then(|outcome| Ok(output.out.flush().map(|()| outcome)?))
        }
        Err(shown) => return after_parsing(&shown),
    };
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Ok(Outcome::Ended(code)) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

/// Prints help, version or a usage error.
fn after_parsing(shown: &clap::Error) -> ExitCode {
    // Errors are ignored: the reader has closed the stream.
    let _ = shown.print();
    ExitCode::from(u8::try_from(shown.exit_code()).unwrap_or(2))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // A broken pipe, as in `topsail … | head`, is not a failure.
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let (bold, plain) = if color(&io::stderr()) {
        ("\u{1b}[1;31m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    // If standard error is closed as well, the error cannot be reported.
    let _ = io::Write::write_all(&mut io::stderr(), format!("{bold}error{plain}: {error:#}\n").as_bytes());
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_accepts_the_command_table() {
        CommandLine::command().debug_assert();
    }

    /// Every command and every argument has a help text, and every leaf command has examples.
    #[test]
    fn every_command_and_argument_has_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
            }
            let is_leaf = !command.has_subcommands();
            assert!(!is_leaf || command.get_after_help().is_some(), "{path} has no examples");
            command.get_subcommands().for_each(|command| check(command, &path));
        }
        check(&CommandLine::command(), "");
    }
}
