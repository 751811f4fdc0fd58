//! `/server_info`: version, state and uptime.

use serde_json::json;

use super::Admin;
use super::answer::{Answer, message};
use crate::proxy::stats::collect::State;

const NODE: &str = "type.googleapis.com/envoy.config.core.v3.Node";

/// Envoy's name for a state.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Live => "LIVE",
        State::Draining => "DRAINING",
        State::Initializing => "INITIALIZING",
    }
}

/// `envoy.admin.v3.ServerInfo`.
pub(super) async fn answer(admin: &Admin) -> Result<Answer, Answer> {
    let uptime = format!("{}s", admin.server.started.elapsed().as_secs());
    let node = message(NODE, admin.start.node.clone()).await?;
    Ok(Answer::pretty(&json!({
        "version": version(),
        "state": word(admin.state()),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "concurrency": admin.start.concurrency,
            "config_path": admin.start.path,
            "mode": "Serve",
            "disable_hot_restart": true,
        },
        "node": node,
    })))
}

/// In Envoy's format: revision, version, status, build and TLS library.
fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("topsail/{}/Clean/{build}/rustls", env!("CARGO_PKG_VERSION"))
}
