//! The admin HTTP server (15014): readiness, metrics, the current generation, diagnostics and
//! connected proxies.
//!
//! Everything is read-only and served from the published state, without involving the composer. The
//! listener is on loopback by default: responses have no secrets, but the whole configuration.

mod answer;
mod config_dump;
mod host;
mod metrics;
mod process;

use std::io;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::control::{Convergence, Generation, Published, Roster};
use crate::diag::render;
use answer::problem;

/// State of the request handlers.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The published state.
    pub published: Arc<Published>,
    /// Connected proxies.
    pub roster: Arc<Roster>,
    /// Time source.
    pub clock: Clock,
}

/// All paths, listed in responses to unknown ones.
const PATHS: [&str; 8] = [
    "/ready",
    "/healthz",
    "/metrics",
    "/api/v1/generation",
    "/api/v1/diagnostics",
    "/api/v1/proxies",
    "/api/v1/registered",
    "/debug/config_dump?proxy=NAME.NAMESPACE",
];

/// Serves until `stop` resolves, then completes pending responses.
///
/// # Errors
///
/// If the listener's local address is not available.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let guard = host::Guard::new(listener.local_addr()?);
    let app = router(admin).layer(middleware::from_fn_with_state(guard, host::check));
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/metrics",
            get(async |State(admin): State<Admin>| metrics::answer(&admin)),
        )
        .route("/api/v1/generation", get(generation))
        .route("/api/v1/diagnostics", get(diagnostics))
        .route("/api/v1/proxies", get(proxies))
        .route("/api/v1/registered", get(registered))
        .route("/debug/config_dump", get(dump))
        .method_not_allowed_fallback(async || problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered"))
        .fallback(async || {
            let message = format!("there is no such path; there are {}", PATHS.join(", "));
            problem(StatusCode::NOT_FOUND, &message)
        })
        .with_state(admin)
}

/// 200 once a generation is served.
async fn ready(State(admin): State<Admin>) -> Response {
    match admin.published.state().generation {
        Some(_) => "ready\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "loading\n").into_response(),
    }
}

/// The current generation and the proxies' progress.
#[derive(Serialize)]
struct GenerationAnswer<'g> {
    #[serde(flatten)]
    generation: &'g Generation,
    /// The last generation ACKed by all proxies, and when.
    converged: Option<Convergence>,
}

async fn generation(State(admin): State<Admin>) -> Response {
    let converged = admin.roster.converged();
    match &admin.published.state().generation {
        Some(generation) => Json(GenerationAnswer { generation, converged }).into_response(),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "nothing is served yet"),
    }
}

async fn diagnostics(State(admin): State<Admin>) -> Response {
    Json(render::json(&admin.published.state().diagnostics)).into_response()
}

async fn proxies(State(admin): State<Admin>) -> Response {
    Json(admin.roster.status(admin.clock.now())).into_response()
}

/// Auto-registered workloads.
async fn registered(State(admin): State<Admin>) -> Response {
    Json(&admin.published.state().registered).into_response()
}

#[derive(Deserialize)]
struct DumpQuery {
    /// Node id or `NAME.NAMESPACE`.
    proxy: String,
}

async fn dump(State(admin): State<Admin>, query: Result<Query<DumpQuery>, QueryRejection>) -> Response {
    let Ok(Query(DumpQuery { proxy })) = query else {
        return problem(
            StatusCode::BAD_REQUEST,
            "say which proxy: ?proxy=NAME.NAMESPACE or ?proxy=NODE_ID",
        );
    };
    let Some(snapshot) = admin.roster.target(&proxy) else {
        let message = format!("no proxy `{proxy}` is connected; /api/v1/proxies lists those that are");
        return problem(StatusCode::NOT_FOUND, &message);
    };
    // Building the descriptor pool takes too long for an async task.
    match tokio::task::spawn_blocking(move || config_dump::config_dump(&snapshot)).await {
        Ok(Ok(dump)) => answer::pretty(&dump),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests;
