//! Responses of the admin interface, formatted as Envoy's are.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::xds::json::{JsonError, Printer};

/// Runs slow work on a blocking thread: describing all of Envoy's types takes tens of milliseconds, too long for the
/// control thread.
///
/// # Errors
/// If it fails.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JsonError> + Send + 'static,
) -> Result<T, Answer> {
    let done = tokio::task::spawn_blocking(work).await.map_err(Answer::internal)?;
    done.map_err(Answer::internal)
}

/// A message as JSON.
///
/// # Errors
/// If it cannot be decoded.
pub(super) async fn message(type_url: &'static str, message: Bytes) -> Result<Value, Answer> {
    aside(move || Printer::new()?.to_json(type_url, &message)).await
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The content type.
    pub(super) form: &'static str,
    /// The body.
    pub(super) body: String,
}

impl Answer {
    /// Plain text.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            form: "text/plain; charset=UTF-8",
            body: body.into(),
        }
    }

    /// An HTML page.
    pub(super) fn html(body: String) -> Self {
        Self {
            form: "text/html; charset=UTF-8",
            ..Self::text(body)
        }
    }

    /// A JSON value on one line.
    pub(super) fn json(value: &Value) -> Self {
        Self {
            form: "application/json",
            ..Self::text(value.to_string())
        }
    }

    /// A JSON value, indented by one space as Envoy does.
    pub(super) fn pretty(value: &Value) -> Self {
        let mut out = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b" "));
        // Writing to memory cannot fail, and the value is representable.
        let _ = value.serialize(&mut serializer);
        out.push(b'\n');
        Self {
            form: "application/json",
            ..Self::text(String::from_utf8_lossy(&out))
        }
    }

    /// The same with another status.
    pub(super) fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// 500.
    pub(super) fn internal(why: impl std::fmt::Display) -> Self {
        Self::text(why.to_string()).with(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 400.
    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self::text(why).with(StatusCode::BAD_REQUEST)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.form));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}
