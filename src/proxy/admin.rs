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
pub(crate) use ask::{Ask, Drain, Dump, Held, Unready};
pub(crate) use certs::days_left;
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

impl Admin {
    fn state(&self) -> State {
        match (self.ready.load(Relaxed), health_check::FAILING.load(Relaxed)) {
            (false, _) => State::Initializing,
            (true, true) => State::Draining,
            (true, false) => State::Live,
        }
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
