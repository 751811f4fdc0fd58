//! `ratings`: the stars of each reviewer.

use std::sync::Arc;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Config;

pub(super) fn routes() -> Router<Arc<Config>> {
    Router::new().route("/ratings/{id}", get(ratings))
}

async fn ratings(Path(id): Path<u32>) -> Json<Value> {
    Json(json!({ "id": id, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } }))
}
