//! `envoy.filters.http.cors`, configured per route.

use crate::mesh::virtual_service;
use crate::name::Percent;
use crate::xds::encode::value::{boolean, runtime_fraction, string_matcher};
use crate::xds::pb::http_filter::cors::{Cors, CorsPolicy};

pub(super) const NAME: &str = "envoy.filters.http.cors";

/// The filter itself has no configuration.
pub(super) fn config() -> Cors {
    Cors {}
}

/// The policy of a route.
pub(super) fn per_route(cors: &virtual_service::Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: cors.allow_origins.iter().map(string_matcher).collect(),
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials.map(boolean),
        filter_enabled: Some(runtime_fraction(Percent::FULL)),
        forward_not_matching_preflights: Some(boolean(cors.forward_unmatched_preflights)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::mesh::virtual_service::StringMatch;
    use crate::xds::encode::testing::printed;

    #[test]
    fn the_policy_is_enabled_for_every_request() {
        let cors = virtual_service::Cors {
            allow_origins: vec![StringMatch::Exact("https://a".into())],
            allow_methods: vec!["GET".into(), "POST".into()],
            allow_headers: vec!["x-a".into()],
            expose_headers: vec!["x-b".into(), "x-c".into()],
            max_age: Some(Duration::from_secs(86400)),
            allow_credentials: Some(false),
            forward_unmatched_preflights: true,
        };
        assert_eq!(
            printed(&per_route(&cors)),
            json!({
                "allow_methods": "GET,POST",
                "allow_headers": "x-a",
                "expose_headers": "x-b,x-c",
                "max_age": "86400",
                "allow_credentials": false,
                "filter_enabled": {"default_value": {"numerator": 1_000_000, "denominator": "MILLION"}},
                "allow_origin_string_match": [{"exact": "https://a"}],
                "forward_not_matching_preflights": true,
            })
        );
    }
}
