//! `envoy.filters.listener.http_inspector`: whether it is HTTP, and which version.

use crate::xds::pb::listener_filter::http_inspector::HttpInspector;

pub(super) const NAME: &str = "envoy.filters.listener.http_inspector";

pub(super) fn config() -> HttpInspector {
    HttpInspector::default()
}
