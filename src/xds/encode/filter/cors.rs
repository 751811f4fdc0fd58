//! `envoy.filters.http.cors`: configured by route.

use crate::mesh::virtual_service;
use crate::name::Percent;
use crate::xds::encode::value::{boolean, runtime_fraction, string_matcher};
use crate::xds::pb::http_filter::cors::{Cors, CorsPolicy};

pub(super) const NAME: &str = "envoy.filters.http.cors";

/// Nothing by itself.
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
