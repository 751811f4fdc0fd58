//! `envoy.filters.http.health_check`.

use http::HeaderValue;

use crate::proxy::config::{At, Compiled, Refusal, matcher};
use crate::proxy::http::filter::health_check::HealthCheck;
use crate::xds::pb::http_filter::health_check;

/// Compiles a `HealthCheck` for a node of this cluster; only without pass-through.
pub(super) fn check(message: &health_check::HealthCheck, cluster: &str) -> Compiled<HealthCheck> {
    if message.pass_through_mode.as_ref().is_none_or(|pass| pass.value) {
        return Err(Refusal::not_implemented("pass_through_mode: true"));
    }
    if !message.cluster_min_healthy_percentages.is_empty() {
        return Err(Refusal::not_implemented("cluster_min_healthy_percentages"));
    }
    let headers = message.headers.iter().enumerate();
    Ok(HealthCheck {
        cluster: HeaderValue::from_str(cluster)
            .map_err(|_| Refusal::new("the node's cluster is not a valid header value"))?,
        headers: headers
            .map(|(index, one)| matcher::header(one).at_index("headers", index))
            .collect::<Compiled<_>>()?,
    })
}
