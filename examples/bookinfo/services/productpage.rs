//! `productpage`: the web page, as HTML and JSON.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::call::{Reply, call};
use super::{Config, Service};

/// Header with the user of a request. Routing rules match on it, as Istio's sample does for `jason`.
const END_USER: HeaderName = HeaderName::from_static("end-user");

const TITLE: &str = "The Comedy of Errors";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}\
    blockquote{margin:1rem 0;padding-left:1rem;border-left:3px solid #ccc}.error{color:#b00}dt{font-weight:600}";

pub(super) fn routes() -> Router<Arc<Config>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/productpage") }))
        .route("/productpage", get(page))
        .route("/login", get(login))
        .route("/logout", get(logout))
        .route("/api/v1/products", get(|| async { Json(json!([product()])) }))
        .route("/api/v1/products/{id}", get(details))
        .route("/api/v1/products/{id}/reviews", get(reviews))
        .route("/api/v1/products/{id}/ratings", get(ratings))
}

fn product() -> Value {
    json!({ "id": 0, "title": TITLE, "description": "A play of mistaken identities." })
}

async fn page(State(config): State<Arc<Config>>, headers: HeaderMap) -> Response {
    let headers = with_user(headers);
    let (details, reviews) = tokio::join!(
        call(&config, Service::Details, "/details/0", &headers),
        call(&config, Service::Reviews, "/reviews/0", &headers),
    );
    let mut served_by = details.served_by.clone();
    for (name, value) in &reviews.served_by {
        served_by.append(name, value.clone());
    }
    let wants_json = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept == "application/json");
    if wants_json {
        let body = json!({ "product": product(), "details": details.body, "reviews": reviews.body });
        return (served_by, Json(body)).into_response();
    }
    let user = headers.get(END_USER).and_then(|user| user.to_str().ok());
    (served_by, Html(html(user, &details, &reviews))).into_response()
}

async fn details(State(config): State<Arc<Config>>, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    hand_on(
        call(
            &config,
            Service::Details,
            &format!("/details/{id}"),
            &with_user(headers),
        )
        .await,
    )
}

async fn reviews(State(config): State<Arc<Config>>, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    hand_on(
        call(
            &config,
            Service::Reviews,
            &format!("/reviews/{id}"),
            &with_user(headers),
        )
        .await,
    )
}

async fn ratings(State(config): State<Arc<Config>>, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    hand_on(
        call(
            &config,
            Service::Ratings,
            &format!("/ratings/{id}"),
            &with_user(headers),
        )
        .await,
    )
}

fn hand_on(reply: Reply) -> Response {
    (reply.status, reply.served_by, Json(reply.body)).into_response()
}

#[derive(serde::Deserialize)]
struct Login {
    username: String,
}

async fn login(Query(login): Query<Login>) -> Response {
    let named = login.username.bytes().all(|b| b.is_ascii_alphanumeric()) && !login.username.is_empty();
    if !named {
        return (StatusCode::BAD_REQUEST, "a user name has letters and digits only").into_response();
    }
    set_user(&format!("user={}; Path=/; HttpOnly; SameSite=Lax", login.username))
}

async fn logout() -> Response {
    set_user("user=; Path=/; Max-Age=0")
}

fn set_user(cookie: &str) -> Response {
    match HeaderValue::try_from(cookie) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/productpage")).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// Sets [`END_USER`] to the signed-in user, unless the request has one.
fn with_user(mut headers: HeaderMap) -> HeaderMap {
    let cookies = headers
        .get(header::COOKIE)
        .and_then(|cookies| cookies.to_str().ok())
        .unwrap_or_default();
    let user = cookies
        .split(';')
        .find_map(|cookie| cookie.trim().strip_prefix("user="));
    if let Some(Ok(user)) = user.filter(|user| !user.is_empty()).map(HeaderValue::try_from) {
        headers.entry(END_USER).or_insert(user);
    }
    headers
}

fn html(user: Option<&str>, details: &Reply, reviews: &Reply) -> String {
    let login = match user {
        Some(user) => format!("Signed in as {} · <a href=\"/logout\">sign out</a>", escape(user)),
        None => "<a href=\"/login?username=jason\">Sign in as jason</a>".to_owned(),
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{TITLE}</title><style>{STYLE}</style>\
         <p>{login}</p><h1>{TITLE}</h1>{}{}</html>\n",
        details_html(details),
        reviews_html(reviews)
    )
}

fn details_html(details: &Reply) -> String {
    let facts = match &details.body {
        Value::Object(facts) if details.status.is_success() => facts,
        _ => return error_html("Error fetching product details!"),
    };
    let rows = facts
        .iter()
        .map(|(name, fact)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(&plain(fact))));
    format!("<h2>Details</h2><dl>{}</dl>", rows.collect::<String>())
}

fn reviews_html(reviews: &Reply) -> String {
    let list = match &reviews.body["reviews"] {
        Value::Array(list) if reviews.status.is_success() => list,
        _ => return error_html("Error fetching product reviews!"),
    };
    let quotes = list.iter().map(|review| {
        let (text, reviewer) = (escape(&plain(&review["text"])), escape(&plain(&review["reviewer"])));
        format!(
            "<blockquote>{text}<br>— {reviewer} {}</blockquote>",
            stars(&review["rating"])
        )
    });
    format!(
        "<h2>Reviews</h2>{}<p><small>by {}</small></p>",
        quotes.collect::<String>(),
        escape(&plain(&reviews.body["podname"]))
    )
}

fn stars(rating: &Value) -> String {
    match (rating["stars"].as_u64(), &rating["error"]) {
        (Some(stars), _) => {
            let shown = "★".repeat(usize::try_from(stars.min(5)).unwrap_or(5));
            format!(
                "<span style=\"color:{}\">{shown}</span>",
                escape(&plain(&rating["color"]))
            )
        }
        (None, Value::String(error)) => format!("<span class=\"error\">{}</span>", escape(error)),
        (None, _) => String::new(),
    }
}

fn error_html(text: &str) -> String {
    format!("<p class=\"error\">{text}</p>")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
