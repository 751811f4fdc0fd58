//! `envoy.filters.http.grpc_web`.

use crate::xds::pb::http_filter::grpc_web::GrpcWeb;

pub(super) const NAME: &str = "envoy.filters.http.grpc_web";

pub(super) fn config() -> GrpcWeb {
    GrpcWeb::default()
}
