//! Logging flags.

use std::io;

use anyhow::Context;
use clap::Args;

use super::format::Form;
use super::output::color;
use crate::telemetry::{self, LogFilter, LogFormat, Logging};

/// `--log-level` and `--log-format`.
#[derive(Args)]
pub(super) struct LogArguments {
    /// Log level: error, warn, info, debug or trace, optionally per module as in info,topsail::xds=debug; logs go to
    /// standard error
    #[arg(
        long,
        value_name = "LEVEL",
        env = "TOPSAIL_LOG",
        hide_env_values = true,
        default_value = "info"
    )]
    log_level: LogFilter,

    /// Log format: human-readable text, or one JSON object per line
    #[arg(long, value_name = "FORMAT", env = "TOPSAIL_LOG_FORMAT", hide_env_values = true, value_enum, default_value_t = Form::Text)]
    log_format: Form,
}

impl LogArguments {
    /// Initializes logging.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        let logging = Logging {
            filter: self.log_level.clone(),
            format: match self.log_format {
                Form::Text => LogFormat::Text,
                Form::Json => LogFormat::Json,
            },
            color: color(&io::stderr()),
        };
        telemetry::start(&logging).context("failed to initialize logging")
    }
}
