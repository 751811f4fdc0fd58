//! `envoy.filters.listener.http_inspector`: detects HTTP and its version.

use crate::xds::pb::listener_filter::http_inspector::HttpInspector;

pub(super) const NAME: &str = "envoy.filters.listener.http_inspector";

pub(super) fn config() -> HttpInspector {
    HttpInspector::default()
}
