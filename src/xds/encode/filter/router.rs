//! `envoy.filters.http.router`, the terminal filter of every HTTP chain.

use crate::xds::pb::http_filter::router::Router;

pub(super) const NAME: &str = "envoy.filters.http.router";

pub(super) fn config() -> Router {
    Router::default()
}
