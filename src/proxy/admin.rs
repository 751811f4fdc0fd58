//! Envoy's admin interface: what the proxy is, has and counts, over HTTP at the bootstrap's `admin.address`.
//!
//! It runs on the control thread. What workers publish is read directly; what only the owner of the configuration
//! knows, or may do, goes to it as an [`Ask`].

mod answer;
mod ask;
mod certs;
mod clusters;
mod commands;
mod config_dump;
mod listeners;
mod logging;
mod server_info;
mod stats;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::{Method, Uri};
use axum::response::Response;
use bytes::Bytes;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::config::{At, Compiled, Refusal, value};
use super::stats::ServerStats;
use super::stats::collect::State;
use super::stats::naming::Naming;
use super::store::Published;
use super::upstream::host::HostAddress;
use crate::xds::pb::bootstrap;
pub(crate) use ask::{Ask, Drain, Dump, Held, Unready};
use commands::Query;

/// What the interface answers from.
#[derive(Debug)]
pub(crate) struct Admin {
    /// What the proxy was started with.
    pub(crate) start: Start,
    /// What is in force.
    pub(crate) published: Arc<ArcSwap<Published>>,
    /// What is counted of the process.
    pub(crate) server: Arc<ServerStats>,
    /// How statistics are shown.
    pub(crate) naming: Naming,
    /// Whether the first configuration is in force.
    pub(crate) ready: Arc<AtomicBool>,
    /// Whether somebody wants the proxy to look unhealthy.
    pub(crate) failed: Arc<AtomicBool>,
    /// Where the owner of the configuration is asked.
    pub(crate) asks: mpsc::UnboundedSender<Ask>,
}

/// What a proxy was started with.
#[derive(Debug)]
pub(crate) struct Start {
    /// The bootstrap's path.
    pub(crate) path: String,
    /// The bootstrap, encoded.
    pub(crate) bootstrap: Bytes,
    /// Its node, encoded.
    pub(crate) node: Bytes,
    /// When.
    pub(crate) time: SystemTime,
    /// How many workers.
    pub(crate) concurrency: u64,
}

impl Start {
    /// Now, with this bootstrap.
    pub(crate) fn new(path: &Path, message: &bootstrap::Bootstrap, concurrency: u64) -> Self {
        Self {
            path: path.display().to_string(),
            bootstrap: message.encode_to_vec().into(),
            node: message
                .node
                .as_ref()
                .map(Message::encode_to_vec)
                .unwrap_or_default()
                .into(),
            time: SystemTime::now(),
            concurrency,
        }
    }
}

impl Admin {
    fn state(&self) -> State {
        match (self.ready.load(Relaxed), self.failed.load(Relaxed)) {
            (false, _) => State::Initializing,
            (true, true) => State::Draining,
            (true, false) => State::Live,
        }
    }
}

/// Where the bootstrap wants the interface; none: nowhere.
///
/// # Errors
/// When it wants it otherwise than it is offered.
pub(crate) fn address(message: Option<&bootstrap::Admin>) -> Compiled<Option<std::net::SocketAddr>> {
    let Some(message) = message.filter(|message| message.address.is_some()) else {
        return Ok(None);
    };
    let unused = [
        ("access_log", !message.access_log.is_empty()),
        ("socket_options", !message.socket_options.is_empty()),
        ("allow_paths", !message.allow_paths.is_empty()),
    ];
    if let Some((field, _)) = unused.iter().find(|(_, used)| *used) {
        return Err(Refusal::not_implemented(format!("`admin.{field}`")));
    }
    match value::host_address(message.address.as_ref()).at("admin.address")? {
        HostAddress::Ip(address) => Ok(Some(address)),
        HostAddress::Unix(_) => Err(Refusal::not_implemented("a pipe").within("admin.address")),
    }
}

/// Answers on a listener for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let router = Router::new().fallback(answer).with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin interface has ended");
    }
}

async fn answer(Extract(admin): Extract<Arc<Admin>>, method: Method, uri: Uri) -> Response {
    match Query::of(&uri) {
        Ok(query) => commands::answer(&admin, &method, uri.path(), &query)
            .await
            .into_response(),
        Err(answer) => answer.into_response(),
    }
}
