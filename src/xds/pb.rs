//! Envoy's protobuf types under short names. All use of `envoy-types` goes through this module.

pub use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap;
pub use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub use envoy_types::pb::envoy::config::core::v3 as core;
pub use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub use envoy_types::pb::envoy::config::listener::v3 as listener;
pub use envoy_types::pb::envoy::config::metrics::v3 as metrics;
pub use envoy_types::pb::envoy::config::route::v3 as route;
pub use envoy_types::pb::envoy::extensions::clusters::common::dns::v3 as dns_lookup;
pub use envoy_types::pb::envoy::extensions::clusters::dns::v3 as dns_cluster;
pub use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
pub use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as filter_state;
pub use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3 as cares;
pub use envoy_types::pb::envoy::extensions::request_id::uuid::v3 as uuid_request_id;
pub use envoy_types::pb::envoy::extensions::retry;
pub use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
pub use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub use envoy_types::pb::envoy::r#type::v3 as types;
pub use envoy_types::pb::google::protobuf as wkt;
pub use envoy_types::pb::google::rpc;
pub use envoy_types::pb::validate;

/// Tracing configuration of connection managers and routes, and tracers.
pub mod trace {
    pub use envoy_types::pb::envoy::config::trace::v3::{OpenTelemetryConfig, tracing};
    pub use envoy_types::pb::envoy::extensions::tracers::opentelemetry::samplers::v3 as samplers;
    pub use envoy_types::pb::envoy::r#type::tracing::v3::*;
}

/// Overload manager.
pub mod overload {
    pub use envoy_types::pb::envoy::config::overload::v3::*;
    pub use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3 as downstream_connections;
}

/// Access loggers.
pub mod access_log {
    pub use envoy_types::pb::envoy::config::accesslog::v3::*;
    pub use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
    pub use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream;
}

/// Credential injector.
pub mod credentials {
    pub use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation as mutation;
    pub use envoy_types::pb::envoy::extensions::filters::http::credential_injector::v3::CredentialInjector;
    pub use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation;
    pub use envoy_types::pb::envoy::extensions::http::injected_credentials::generic::v3::Generic;
}

/// HTTP filter configurations.
pub mod http_filter {
    pub use envoy_types::pb::envoy::extensions::filters::http::buffer::v3 as buffer;
    pub use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
    pub use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
    pub use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
    pub use envoy_types::pb::envoy::extensions::filters::http::grpc_web::v3 as grpc_web;
    pub use envoy_types::pb::envoy::extensions::filters::http::health_check::v3 as health_check;
    pub use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as local_ratelimit;
    pub use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
    pub use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state;
}

/// Network filter configurations.
pub mod network_filter {
    pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as http_connection_manager;
    pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
}

/// Listener filter configurations.
pub mod listener_filter {
    pub use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
    pub use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
    pub use envoy_types::pb::envoy::extensions::filters::listener::original_src::v3 as original_src;
    pub use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3 as proxy_protocol;
    pub use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
}
