//! HTTP for operators (15014): readiness, metrics, what is in force, what is wrong, who is connected.
//!
//! Everything is read-only and answered from what is published; nothing here waits for the composer
//! or holds anybody up. The listener is on loopback unless an operator says otherwise: there are no
//! secrets in the answers, but the whole configuration is.

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

/// What the listener answers from.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What is in force.
    pub published: Arc<Published>,
    /// Who is connected.
    pub roster: Arc<Roster>,
    /// The time.
    pub clock: Clock,
}

/// The paths there are, for the answer to those there are not.
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

/// Answers on a listener until `stop` resolves, and finishes the answers that are on their way then.
///
/// # Errors
/// When the listener's own address cannot be had.
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

/// 200 from the moment a generation is served.
async fn ready(State(admin): State<Admin>) -> Response {
    match admin.published.state().generation {
        Some(_) => "ready\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "loading\n").into_response(),
    }
}

/// What is in force, and how far the proxies are with it.
#[derive(Serialize)]
struct GenerationAnswer<'g> {
    #[serde(flatten)]
    generation: &'g Generation,
    /// The last generation that all proxies have ACKed, and when the last of them did.
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

/// The workloads that registered themselves.
async fn registered(State(admin): State<Admin>) -> Response {
    Json(&admin.published.state().registered).into_response()
}

#[derive(Deserialize)]
struct DumpQuery {
    /// A node id or `NAME.NAMESPACE`.
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
    // Messages are described anew for each dump, which takes longer than a task should.
    match tokio::task::spawn_blocking(move || config_dump::config_dump(&snapshot)).await {
        Ok(Ok(dump)) => answer::pretty(&dump),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests;
