//! `envoy.filters.http.cors`.

use http::HeaderValue;

use crate::proxy::config::value::runtime_per_million;
use crate::proxy::config::{At, Compiled, Refusal, matcher};
use crate::proxy::http::filter::cors::CorsPolicy;
use crate::xds::pb::http_filter::cors;

/// A `CorsPolicy`.
pub(super) fn policy(message: &cors::CorsPolicy) -> Compiled<CorsPolicy> {
    let origins = message.allow_origin_string_match.iter().enumerate();
    Ok(CorsPolicy {
        origins: origins
            .map(|(index, one)| matcher::text(one).at_index("allow_origin_string_match", index))
            .collect::<Compiled<_>>()?,
        methods: list(&message.allow_methods).at("allow_methods")?,
        headers: list(&message.allow_headers).at("allow_headers")?,
        expose: list(&message.expose_headers).at("expose_headers")?,
        max_age: list(&message.max_age).at("max_age")?,
        credentials: message.allow_credentials.map(|allow| allow.value),
        per_million: runtime_per_million(message.filter_enabled.as_ref()).unwrap_or(1_000_000),
        forward_unmatched: message.forward_not_matching_preflights.map(|forward| forward.value),
    })
}

fn list(text: &str) -> Compiled<Option<HeaderValue>> {
    if text.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(text)
        .map(Some)
        .map_err(|_| Refusal::new(format!("`{text}` is not a valid header value")))
}
