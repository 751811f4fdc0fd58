//! `topsail proxy`: the bundled data plane.

mod place;

use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::log::LogArguments;
use super::output::Output;
use super::{Command, Outcome};
use crate::proxy::{self, NodeOptions, Options, ProxyError};

/// Reads the same bootstrap and the same xDS as Envoy.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    topsail bootstrap --workload reviews-v1.default --service-account reviews --ip 10.0.0.7 --state state/ > proxy.yaml\n  \
    topsail proxy --bootstrap proxy.yaml")]
pub(super) struct Arguments {
    /// Envoy's bootstrap file, YAML or JSON
    #[arg(long, short = 'c', value_name = "FILE", visible_alias = "config-path")]
    bootstrap: PathBuf,
    /// How many worker threads; as many as there are processors unless said otherwise
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZero<u64>>,
    /// Where the last configuration is kept for a start without the control plane; beside the bootstrap unless said
    /// otherwise
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    log: LogArguments,
    /// Seconds that connections of a listener or chain that is gone may go on
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    drain_time_s: u64,
    /// Whether to serve, or only to see whether the bootstrap is good
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    /// The node's id, in the place of the bootstrap's
    #[arg(long, value_name = "ID")]
    service_node: Option<String>,
    /// The node's cluster, in the place of the bootstrap's
    #[arg(long, value_name = "NAME")]
    service_cluster: Option<String>,
    /// The node's zone, in the place of the bootstrap's
    #[arg(long, value_name = "ZONE")]
    service_zone: Option<String>,
    /// Changes nothing: there is no hot restart. Taken where Envoy's command line is
    #[arg(long, hide = true)]
    disable_hot_restart: bool,
}

/// What is done with the bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// It is served by.
    Serve,
    /// It is looked at.
    Validate,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        self.log.start()?;
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let options = Options {
            bootstrap: self.bootstrap.clone(),
            concurrency: self.concurrency.map_or_else(processors, NonZero::get),
            state: self.state,
            drain_time: Duration::from_secs(self.drain_time_s),
            node: NodeOptions {
                id: self.service_node,
                cluster: self.service_cluster,
                zone: self.service_zone,
            },
        };
        if self.mode == Mode::Validate {
            proxy::validate(&options).map_err(|error| placed(&self.bootstrap, &error))?;
            writeln!(output.out, "configuration '{}' OK", self.bootstrap.display())?;
            return Ok(Outcome::Fine);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let end = runtime.block_on(proxy::run(options));
        end.map_err(|error| placed(&self.bootstrap, &error))?;
        Ok(Outcome::Fine)
    }
}

/// The error, mistake by mistake, each behind the place in the bootstrap that it is about.
fn placed(bootstrap: &Path, error: &ProxyError) -> anyhow::Error {
    let lines = error.mistakes().into_iter().map(|(field, message)| {
        match field.and_then(|field| place::place(bootstrap, field)) {
            Some(place) => format!("{place}: {message}"),
            None => message,
        }
    });
    // The first gets its `error: ` where it is printed.
    anyhow::anyhow!(lines.collect::<Vec<_>>().join("\nerror: "))
}
