//! `topsail demo-service`: a Bookinfo service, as started by `topsail demo`.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::output::Output;
use crate::cli::{Command, Outcome};

#[path = "../../../examples/bookinfo/services.rs"]
#[expect(
    unreachable_pub,
    reason = "the source is that of the example, where these are the API"
)]
pub(in crate::cli) mod services;

const EXAMPLES: &str = "\
Examples:
  topsail demo-service reviews --version v2 --listen 127.0.0.1:19084 --call ratings=127.0.11.4:9080";

/// Arguments of `topsail demo-service`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    config: services::Config,
}

impl Command for Arguments {
    fn run(self, _: &mut Output) -> anyhow::Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let asked = async move {
                terminate.recv().await;
            };
            services::serve(self.config, asked).await
        })?;
        Ok(Outcome::Fine)
    }
}
