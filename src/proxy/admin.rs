//! Envoy's admin interface, over HTTP at the bootstrap's `admin.address`.
//!
//! It runs on the control thread. What is published to workers is read directly; questions and commands for the owner
//! of the configuration go to it as an [`Ask`].

mod answer;
mod ask;
mod certs;
mod clusters;
mod commands;
mod config_dump;
mod listeners;
mod logging;
mod mask;
mod runtime;
mod server_info;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::{Method, Uri};
use axum::response::Response;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::http::filter::health_check;
use super::stats::ServerStats;
use super::stats::collect::State;
use super::stats::naming::Naming;
use super::store::Published;
pub(crate) use ask::{Ask, Drain, Dump, Held, PendingTarget};
pub(crate) use certs::days_left;
use commands::Query;

/// The state behind the admin interface.
#[derive(Debug)]
pub(crate) struct Admin {
    /// How the proxy was started.
    pub(crate) start: Start,
    /// The configuration in force.
    pub(crate) published: Arc<ArcSwap<Published>>,
    /// Statistics of the process.
    pub(crate) server: Arc<ServerStats>,
    /// How statistics are named.
    pub(crate) naming: Naming,
    /// Whether the first configuration is in force.
    pub(crate) ready: Arc<AtomicBool>,
    /// The channel to the owner of the configuration.
    pub(crate) asks: mpsc::UnboundedSender<Ask>,
}

/// How a proxy was started.
#[derive(Debug)]
pub(crate) struct Start {
    /// The bootstrap's path.
    pub(crate) path: String,
    /// The bootstrap, encoded.
    pub(crate) bootstrap: Bytes,
    /// Its node, encoded.
    pub(crate) node: Bytes,
    /// The time of the start.
    pub(crate) time: SystemTime,
    /// The number of workers.
    pub(crate) concurrency: u64,
}

impl Admin {
    fn state(&self) -> State {
        match (self.ready.load(Relaxed), health_check::FAILING.load(Relaxed)) {
            (false, _) => State::Initializing,
            (true, true) => State::Draining,
            (true, false) => State::Live,
        }
    }
}

/// Serves the listener for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let router = Router::new().fallback(answer).with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin interface stopped");
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
