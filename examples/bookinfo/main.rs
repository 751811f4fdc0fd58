//! One Bookinfo service: `cargo run --example bookinfo -- reviews --version v2 --listen 127.0.0.1:9080
//! --call ratings=127.0.0.1:9081`. `topsail demo` runs all of them, each behind its sidecar.

pub mod services;
#[cfg(test)]
mod tests;

use clap::Parser;
use topsail::lifecycle::StopSignals;

/// One service of the Bookinfo sample application.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    config: services::Config,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let config = Arguments::parse().config;
    println!("{} {} on http://{}", config.service, config.version, config.listen);
    let mut signals = StopSignals::catch()?;
    services::serve(config, async move {
        signals.next().await;
    })
    .await
}
