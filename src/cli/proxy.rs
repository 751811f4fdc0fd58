//! `topsail proxy`: runs the bundled data plane.

mod place;

use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::log::LogArguments;
use super::output::Output;
use super::{Command, Outcome};
use crate::proxy::{self, NodeOptions, Options, ProxyError};

/// Arguments of `topsail proxy`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    topsail bootstrap --workload reviews-v1.default --service-account reviews --ip 10.0.0.7 --state state/ > proxy.yaml\n  \
    topsail proxy --bootstrap proxy.yaml")]
pub(super) struct Arguments {
    /// Envoy bootstrap file, YAML or JSON
    #[arg(long, short = 'c', value_name = "FILE", visible_alias = "config-path")]
    bootstrap: PathBuf,
    /// Number of worker threads [default: the number of processors]
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZero<u64>>,
    /// Directory for the last configuration, used to start while the control plane is unavailable [default: next to the
    /// bootstrap]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    log: LogArguments,
    /// Drain time in seconds for the connections of a removed listener or filter chain
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    drain_time_s: u64,
    /// Serve, or only validate the bootstrap
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    /// Node ID, overrides the bootstrap's
    #[arg(long, value_name = "ID")]
    service_node: Option<String>,
    /// Node cluster, overrides the bootstrap's
    #[arg(long, value_name = "NAME")]
    service_cluster: Option<String>,
    /// Node zone, overrides the bootstrap's
    #[arg(long, value_name = "ZONE")]
    service_zone: Option<String>,
    /// No effect, as there is no hot restart; accepted for compatibility with Envoy's command line
    #[arg(long, hide = true)]
    disable_hot_restart: bool,
}

/// What to do with the bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Serve traffic
    Serve,
    /// Validate the bootstrap and exit
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

/// Formats the errors one per line, each with its location in the bootstrap.
fn placed(bootstrap: &Path, error: &ProxyError) -> anyhow::Error {
    let lines = error.mistakes().into_iter().map(|(field, message)| {
        match field.and_then(|field| place::place(bootstrap, field)) {
            Some(place) => format!("{place}: {message}"),
            None => message,
        }
    });
    // The first line gets its `error: ` prefix when it is printed.
    anyhow::anyhow!(lines.collect::<Vec<_>>().join("\nerror: "))
}
