//! Compiling HTTP filters and their per-route configuration: one file each.

mod buffer;
mod cors;
mod fault;
mod grpc_stats;
mod health_check;
mod local_rate_limit;
mod set_filter_state;

use std::collections::HashMap;
use std::sync::Arc;

use super::value::unpack;
use super::{At, Compiled, Names, Refusal};
use crate::proxy::http::filter::{HttpFilter, Overrides};
use crate::xds::pb::http_filter::router::Router;
use crate::xds::pb::network_filter::http_connection_manager as hcm;
use crate::xds::pb::wkt::Any;

const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
const BUFFER_PER_ROUTE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const GRPC_STATS: &str = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
const GRPC_WEB: &str = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb";
const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";
const LOCAL_RATE_LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const SET_FILTER_STATE: &str = "envoy.extensions.filters.http.set_filter_state.v3.Config";

/// The HTTP filters of a connection manager.
pub(super) struct Chain {
    /// Those before the router.
    pub(super) filters: Box<[HttpFilter]>,
    /// `start_child_span` of the router: whether each attempt has a span.
    pub(super) child_spans: bool,
    /// `suppress_envoy_headers` of the router.
    pub(super) suppress_envoy_headers: bool,
}

/// Compiles all filters, of which the router must be the last.
#[expect(deprecated, reason = "Envoy still reads it")]
pub(super) fn chain(filters: &[hcm::HttpFilter], names: &mut Names) -> Compiled<Chain> {
    let none = || Refusal::new("the router must be the last filter").within("http_filters");
    let (router, before) = filters.split_last().ok_or_else(none)?;
    let config = config_of(router).at("http_filters")?;
    if short(&config.type_url) != ROUTER {
        return Err(none());
    }
    let router: Router = unpack(config).at("http_filters")?;
    let compiled = before
        .iter()
        .enumerate()
        .map(|(index, one)| filter(one, names).at_index("http_filters", index));
    let compiled = compiled.filter_map(Result::transpose).collect::<Compiled<_>>()?;
    Ok(Chain {
        filters: compiled,
        child_spans: router.start_child_span,
        suppress_envoy_headers: router.suppress_envoy_headers,
    })
}

/// Compiles a `typed_per_filter_config`, by the types of its values.
pub(super) fn overrides(configs: &HashMap<String, Any>, names: &mut Names) -> Compiled<Overrides> {
    let mut overrides = Overrides::default();
    for (name, config) in configs {
        let put = match short(&config.type_url) {
            CORS_POLICY => unpack(config).and_then(|policy| cors::policy(&policy)).map(|policy| {
                overrides.cors = Some(Arc::new(policy));
            }),
            FAULT => unpack(config).and_then(|fault| fault::fault(&fault)).map(|fault| {
                overrides.fault = Some(Arc::new(fault));
            }),
            LOCAL_RATE_LIMIT => unpack(config)
                .and_then(|limit| local_rate_limit::limit(&limit, names))
                .map(|limit| {
                    overrides.rate_limit = Some(Arc::new(limit));
                }),
            BUFFER_PER_ROUTE => unpack(config).and_then(|said| buffer::per_route(&said)).map(|said| {
                overrides.buffer = Some(Arc::new(said));
            }),
            other => Err(Refusal::not_implemented(format!("`{other}`"))),
        };
        put.at(&format!("typed_per_filter_config[{name}]"))?;
    }
    Ok(overrides)
}

/// Compiles a filter; `None` if it is optional and unknown.
fn filter(message: &hcm::HttpFilter, names: &mut Names) -> Compiled<Option<HttpFilter>> {
    if message.disabled {
        return Err(Refusal::not_implemented("disabled"));
    }
    let config = config_of(message)?;
    Ok(Some(match short(&config.type_url) {
        CORS => HttpFilter::Cors,
        FAULT => {
            let fault = fault::fault(&unpack(config)?)?;
            let says_something = fault.delay.is_some() || fault.abort.is_some();
            HttpFilter::Fault(says_something.then(|| Arc::new(fault)))
        }
        GRPC_STATS => HttpFilter::GrpcStats(grpc_stats::by_method(&unpack(config)?)),
        GRPC_WEB => HttpFilter::GrpcWeb,
        LOCAL_RATE_LIMIT => HttpFilter::LocalRateLimit(Arc::new(local_rate_limit::limit(&unpack(config)?, names)?)),
        HEALTH_CHECK => HttpFilter::HealthCheck(health_check::check(&unpack(config)?, &names.node.cluster)?),
        BUFFER => HttpFilter::Buffer(buffer::limit(&unpack(config)?)?),
        SET_FILTER_STATE => HttpFilter::UpstreamAlpn(set_filter_state::upstream_alpn(&unpack(config)?)?),
        _ if message.is_optional => return Ok(None),
        other => return Err(Refusal::not_implemented(format!("the filter `{other}`"))),
    }))
}

fn config_of(message: &hcm::HttpFilter) -> Compiled<&Any> {
    match message.config_type.as_ref() {
        Some(hcm::http_filter::ConfigType::TypedConfig(config)) => Ok(config),
        Some(hcm::http_filter::ConfigType::ConfigDiscovery(_)) | None => Err(Refusal::not_implemented(format!(
            "`{}` without typed_config",
            message.name
        ))),
    }
}

/// The type name in an `Any`'s type URL.
fn short(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}
