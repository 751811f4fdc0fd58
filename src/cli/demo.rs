//! `topsail demo`: Bookinfo on this machine with one command, without root.
//!
//! The control plane (`topsail serve`) and the application and sidecar of each workload are processes of
//! their own, so that each can be killed to see the effect. They are stopped when the demo exits; if the demo
//! is killed, the kernel kills them (parent death signal).

mod child;
mod directory;
mod end;
mod hint;
mod instance;
mod measure;
mod part;
mod plane;
mod ports;
mod screen;
mod service;
mod setup;
mod show;
mod start;
mod terminal;
mod traffic;
mod view;
mod workloads;

pub(super) use child::Arguments as ChildArguments;
pub(super) use service::Arguments as ServiceArguments;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::output::Output;
use super::{Command, Outcome, value};
use end::End;
use instance::Instance;
use part::Parts;
use setup::Setup;
use show::Show;
use start::print_line;

const EXAMPLES: &str = "\
Starts a control plane with a live configuration directory, the Bookinfo services with one sidecar
each and a load generator, and shows how requests are routed. Edit the directory and watch traffic
shift. Everything listens on loopback addresses and runs as the current user. Press Ctrl-C to stop;
all processes and temporary files are removed.

Examples:
  Run with examples/bookinfo/config in a checkout, elsewhere with a temporary copy of it:
    topsail demo

  Run with your own directory, whose workloads have Bookinfo's `app` labels:
    cp -r examples/bookinfo/config mine && topsail demo --config mine

  Use stock Envoy as the sidecars:
    topsail demo --dataplane envoy

  In another terminal, show the sync status of the proxies, or kill the control plane:
    topsail status
    kill -9 $(pgrep -f 'serve --xds 127.0.0.1:15012')";

/// Arguments of `topsail demo`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Configuration directory [default: examples/bookinfo/config of the checkout, otherwise a copy of it]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,

    /// Requests per second; 0 for none
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=1000))]
    rate: u32,

    /// Stop after this time (units: s, m, h, d)
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    duration: Option<Duration>,

    /// Data plane of the sidecars
    #[arg(long, value_enum, default_value_t = DataPlane::Topsail)]
    dataplane: DataPlane,

    /// xDS address of the control plane
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15012")]
    xds: SocketAddr,

    /// Admin address of the control plane
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
}

/// Data plane of the demo's sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DataPlane {
    /// The bundled proxy
    Topsail,
    /// Stock Envoy, downloaded once if not installed
    Envoy,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        /// Bounds the wait for blocking tasks; only an Envoy download may still be running.
        const LAST_CALL: Duration = Duration::from_secs(2);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(self.run_demo(output));
        runtime.shutdown_timeout(LAST_CALL);
        result
    }
}

impl Arguments {
    async fn run_demo(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let mut end = End::listen()?;
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|folder| folder.is_dir());
        let mut instance = Instance::take(runtime.as_deref(), &std::env::temp_dir())?;
        let setup = self.setup(instance.folder())?;
        instance.announce(&setup.directory)?;
        ports::check(setup.wanted()).await?;
        let mut parts = Parts::new(&setup.this_program);
        let result = self.run_parts(&setup, &mut parts, &mut end, output).await;
        parts.stop().await;
        drop(instance);
        let said = result?;
        // The terminal may have been closed.
        let _ = print_line(output, &said);
        Ok(Outcome::Fine)
    }

    fn setup(&self, folder: &Path) -> anyhow::Result<Setup> {
        let directory = match &self.config {
            Some(directory) => directory.clone(),
            None => default_directory(folder).context("cannot copy the sample configuration directory")?,
        };
        Ok(Setup {
            this_program: std::env::current_exe()?,
            folder: folder.to_owned(),
            workloads: workloads::read(&directory)?,
            directory,
            xds: self.xds,
            admin: self.admin,
        })
    }

    /// Starts all processes, shows the demo until it ends and returns a summary.
    async fn run_parts(
        &self,
        setup: &Setup,
        parts: &mut Parts,
        end: &mut End,
        output: &mut Output,
    ) -> anyhow::Result<String> {
        tokio::select! {
            started = start::start(setup, self.dataplane, parts, output) => started?,
            why = end.reached() => return Ok(format!("{why} before startup completed; everything has been stopped and removed")),
        }
        end.after(self.duration);
        let mut show = Show::start(setup, self.rate)?;
        let why = show.run(parts, end, output).await?;
        Ok(format!(
            "{}; {why}; everything has been stopped and removed",
            show.summary()
        ))
    }
}

fn default_directory(folder: &Path) -> io::Result<PathBuf> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    match directory::of_checkout(&std::env::current_dir()?, built_in) {
        Some(directory) => Ok(directory),
        None => directory::copy_into(folder),
    }
}
