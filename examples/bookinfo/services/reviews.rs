//! `reviews`: readers' reviews. v1 shows no ratings, v2 black stars, v3 red stars.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::call::{Reply, call};
use super::{Config, Service};

const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one town, and not a dull page: I laughed until the last reunion.",
    ),
    (
        "Reviewer2",
        "Light and quick, if not his deepest. The mix-ups are worth the evening all the same.",
    ),
];

pub(super) fn routes() -> Router<Arc<Config>> {
    Router::new().route("/reviews/{id}", get(reviews))
}

async fn reviews(State(config): State<Arc<Config>>, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    let Some(colour) = star_colour(&config.version) else {
        return Json(body(&config, id, |_| None)).into_response();
    };
    let ratings = call(&config, Service::Ratings, &format!("/ratings/{id}"), &headers).await;
    let rating = |reviewer: &str| {
        let stars = ratings.body.pointer(&format!("/ratings/{reviewer}"));
        Some(match stars {
            Some(stars) if ratings.status.is_success() => json!({ "stars": stars, "color": colour }),
            Some(_) | None => json!({ "error": unavailable(&ratings) }),
        })
    };
    (ratings.served_by.clone(), Json(body(&config, id, rating))).into_response()
}

/// Why there are no stars, with what the sidecar says, if it answered.
fn unavailable(ratings: &Reply) -> String {
    let why = ratings.body["error"].as_str().unwrap_or("no ratings in the response");
    format!(
        "Ratings service is currently unavailable ({}: {why})",
        ratings.status.as_u16()
    )
}

fn star_colour(version: &str) -> Option<&'static str> {
    match version {
        "v2" => Some("black"),
        "v3" => Some("red"),
        _ => None,
    }
}

fn body(config: &Config, id: u32, rating: impl Fn(&str) -> Option<Value>) -> Value {
    let reviews: Vec<Value> = REVIEWS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({ "reviewer": reviewer, "text": text });
            if let Some(rating) = rating(reviewer) {
                review["rating"] = rating;
            }
            review
        })
        .collect();
    json!({ "id": id.to_string(), "podname": format!("reviews-{}", config.version), "reviews": reviews })
}
