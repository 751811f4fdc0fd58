//! `envoy.filters.http.grpc_stats`.

use crate::xds::encode::value::boolean;
use crate::xds::pb::http_filter::grpc_stats::FilterConfig;
use crate::xds::pb::http_filter::grpc_stats::filter_config::PerMethodStatSpecifier;

pub(super) const NAME: &str = "envoy.filters.http.grpc_stats";

/// As in Istio: message counts for access logs, no per-method statistics.
pub(super) fn config() -> FilterConfig {
    FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(boolean(false))),
        ..Default::default()
    }
}
