//! `envoy.filters.http.local_ratelimit`.

use std::time::Instant;

use http::StatusCode;

use crate::proxy::config::value::{duration, number, runtime_per_million};
use crate::proxy::config::{At, Compiled, Names, Refusal, headers};
use crate::proxy::http::filter::local_rate_limit::{Bucket, LocalRateLimit};
use crate::xds::pb::http_filter::local_ratelimit;
use crate::xds::pb::types::TokenBucket;

/// Compiles a `LocalRateLimit` without descriptors.
pub(super) fn limit(message: &local_ratelimit::LocalRateLimit, names: &mut Names) -> Compiled<LocalRateLimit> {
    let unknown = [
        ("descriptors", !message.descriptors.is_empty()),
        ("rate_limits", !message.rate_limits.is_empty()),
        (
            "local_rate_limit_per_downstream_connection",
            message.local_rate_limit_per_downstream_connection,
        ),
        ("local_cluster_rate_limit", message.local_cluster_rate_limit.is_some()),
        ("enable_x_ratelimit_headers", message.enable_x_ratelimit_headers != 0),
        ("enable_retry_after_header", message.enable_retry_after_header),
    ];
    if let Some((field, _)) = unknown.into_iter().find(|(_, set)| *set) {
        return Err(Refusal::not_implemented(field));
    }
    let status = message
        .status
        .as_ref()
        .and_then(|status| u16::try_from(status.code).ok());
    let status = status
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.as_u16() >= 400);
    let not_enforced = &message.request_headers_to_add_when_not_enforced;
    Ok(LocalRateLimit {
        bucket: message
            .token_bucket
            .as_ref()
            .map(bucket)
            .transpose()
            .at("token_bucket")?,
        status: status.unwrap_or(StatusCode::TOO_MANY_REQUESTS),
        enabled: runtime_per_million(message.filter_enabled.as_ref()).unwrap_or(0),
        enforced: runtime_per_million(message.filter_enforced.as_ref()).unwrap_or(0),
        response_headers: headers::ops("response", &message.response_headers_to_add, &[])?,
        request_headers: headers::ops("request", not_enforced, &[])?,
        as_resource_exhausted: message.rate_limited_as_resource_exhausted,
        stats: names.stats.rate_limits.of(&message.stat_prefix),
    })
}

fn bucket(message: &TokenBucket) -> Compiled<Bucket> {
    let interval = message
        .fill_interval
        .as_ref()
        .ok_or_else(|| Refusal::new("fill_interval is required"))?;
    let per_fill = number(message.tokens_per_fill.as_ref(), 1);
    Ok(Bucket::new(
        message.max_tokens,
        per_fill,
        duration(interval),
        Instant::now(),
    ))
}
