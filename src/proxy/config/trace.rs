//! Compiling tracing.

use std::sync::Arc;

use http::HeaderMap;
use http::uri::{PathAndQuery, Uri};

use super::headers::{fixed, name_of};
use super::value::{self, number, truth, unpack};
use super::{At, Compiled, Names, Refusal};
use crate::proxy::format::Format;
use crate::proxy::listener::Direction;
use crate::proxy::trace::decision::{Sampling, Share};
use crate::proxy::trace::export::Exporter;
use crate::proxy::trace::sampler::Sampler;
use crate::proxy::trace::{NodeNames, RouteTracing, Tag, TagValue, Tracer, TracerStats, Tracing};
use crate::xds::otlp::{self, text};
use crate::xds::pb::core::grpc_service::TargetSpecifier;
use crate::xds::pb::core::http_uri::HttpUpstreamType;
use crate::xds::pb::core::{GrpcService, HttpService, TypedExtensionConfig};
use crate::xds::pb::network_filter::http_connection_manager::http_connection_manager as hcm;
use crate::xds::pb::route;
use crate::xds::pb::trace::samplers::{ParentBasedSamplerConfig, TraceIdRatioBasedSamplerConfig};
use crate::xds::pb::trace::{CustomTag, OpenTelemetryConfig, custom_tag, tracing};
use crate::xds::pb::types::fractional_percent::DenominatorType;
use crate::xds::pb::types::{FractionalPercent, Percent};

/// Envoy's default.
const MAX_PATH: u32 = 256;
const MAX_WAITING: u32 = 1024;
const ALWAYS_ON: &str = "envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig";
const PARENT_BASED: &str = "envoy.extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig";
const TRACE_ID_RATIO: &str = "envoy.extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig";
const SERVICE_NAME: &str = "unknown_service:envoy";

/// Compiles a connection manager's tracing. `child_spans`: whether the router makes a span for each attempt.
pub(super) fn tracing(
    message: &hcm::Tracing,
    direction: Direction,
    child_spans: bool,
    names: &mut Names,
) -> Compiled<Tracing> {
    if message.verbose {
        return Err(Refusal::not_implemented("this")).at("verbose");
    }
    let own_hop = truth(message.spawn_upstream_span.as_ref(), false);
    let ten_thousandths = |percent: Option<&Percent>| Share {
        numerator: percent.map_or(10_000, |percent| (percent.value * 100.0).round() as u64),
        denominator: 10_000,
    };
    Ok(Tracing {
        sampling: Sampling {
            client: Share {
                numerator: message
                    .client_sampling
                    .as_ref()
                    .map_or(100, |percent| percent.value as u64),
                denominator: 100,
            },
            random: ten_thousandths(message.random_sampling.as_ref()),
            overall: ten_thousandths(message.overall_sampling.as_ref()),
        },
        tags: tags(&message.custom_tags)?,
        max_path: number(message.max_path_tag_length.as_ref(), MAX_PATH) as usize,
        egress: direction == Direction::Outbound,
        own_hop,
        upstream_spans: own_hop || child_spans,
        operation: operation(&message.operation).at("operation")?,
        upstream_operation: operation(&message.upstream_operation).at("upstream_operation")?,
        propagate: !message.no_context_propagation,
        tracer: message
            .provider
            .as_ref()
            .map(|provider| tracer(provider, names))
            .transpose()
            .at("provider")?,
    })
}

/// Compiles a route's tracing; `None`: it has none.
pub(super) fn route(message: &route::Route) -> Compiled<Option<Arc<RouteTracing>>> {
    let mut compiled = RouteTracing::default();
    if let Some(decorator) = &message.decorator {
        compiled.decorator = decorator.operation.as_str().into();
        compiled.propagate = truth(decorator.propagate.as_ref(), true);
    }
    if let Some(tracing) = &message.tracing {
        let share = |fraction: Option<&FractionalPercent>| {
            fraction.map_or(Share::ALL, |fraction| Share::per_million(value::per_million(fraction)))
        };
        compiled.sampling = Some(Sampling {
            client: share(tracing.client_sampling.as_ref()),
            random: share(tracing.random_sampling.as_ref()),
            overall: share(tracing.overall_sampling.as_ref()),
        });
        compiled.tags = tags(&tracing.custom_tags).at("tracing")?;
        compiled.operation = operation(&tracing.operation).at("tracing.operation")?;
        compiled.upstream_operation = operation(&tracing.upstream_operation).at("tracing.upstream_operation")?;
    }
    let says = message.tracing.is_some() || message.decorator.is_some();
    Ok(says.then(|| Arc::new(compiled)))
}

fn operation(format: &str) -> Compiled<Option<Format>> {
    (!format.is_empty())
        .then(|| Format::parse(format).map_err(Refusal::from))
        .transpose()
}

fn tags(messages: &[CustomTag]) -> Compiled<Vec<Tag>> {
    let tags = messages.iter().enumerate();
    tags.map(|(index, message)| {
        Ok(Tag {
            name: message.tag.as_str().into(),
            value: tag_value(message.r#type.as_ref()).at_index("custom_tags", index)?,
        })
    })
    .collect()
}

fn tag_value(message: Option<&custom_tag::Type>) -> Compiled<TagValue> {
    Ok(match message {
        Some(custom_tag::Type::Literal(literal)) => TagValue::Fixed(literal.value.as_str().into()),
        Some(custom_tag::Type::Environment(variable)) => {
            let value = std::env::var(&variable.name).unwrap_or_else(|_| variable.default_value.clone());
            TagValue::Fixed(value.into())
        }
        Some(custom_tag::Type::RequestHeader(header)) => TagValue::Header(
            name_of(&header.name).at("request_header")?,
            header.default_value.as_str().into(),
        ),
        Some(custom_tag::Type::Value(format)) => TagValue::Format(Format::parse(format).at("value")?),
        Some(custom_tag::Type::Metadata(_)) => return Err(Refusal::not_implemented("a tag of metadata")),
        None => return Err(Refusal::new("a value is required")),
    })
}

fn tracer(provider: &tracing::Http, names: &mut Names) -> Compiled<Arc<Tracer>> {
    let Some(tracing::http::ConfigType::TypedConfig(any)) = provider.config_type.as_ref() else {
        return Err(Refusal::new("a configuration is required"));
    };
    let config: OpenTelemetryConfig = unpack(any)?;
    let exporter = exporter(&config, names)?;
    let node = names.node.clone();
    names
        .tracers
        .of(&any.value, |stats| open_telemetry(&config, exporter, node, stats))
}

fn open_telemetry(
    config: &OpenTelemetryConfig,
    exporter: Exporter,
    node: NodeNames,
    stats: Arc<TracerStats>,
) -> Compiled<Tracer> {
    let version = env!("CARGO_PKG_VERSION");
    let mut resource = Vec::new();
    if truth(config.set_service_name_resource_attribute.as_ref(), true) {
        let name = Some(config.service_name.as_str()).filter(|name| !name.is_empty());
        resource.push(text("service.name", name.unwrap_or(SERVICE_NAME)));
    }
    if truth(config.set_telemetry_sdk_resource_attributes.as_ref(), true) {
        let sdk = [("language", "rust"), ("name", "topsail"), ("version", version)];
        resource.extend(sdk.map(|(key, value)| text(format!("telemetry.sdk.{key}"), value)));
    }
    let scope = otlp::Scope {
        name: "topsail".to_owned(),
        version: version.to_owned(),
    };
    Ok(Tracer {
        sampler: config.sampler.as_ref().map(sampler).transpose().at("sampler")?,
        exporter,
        resource,
        scope: truth(config.set_instrumentation_scope.as_ref(), true).then_some(scope),
        node,
        max_waiting: number(config.max_cache_size.as_ref(), MAX_WAITING) as usize,
        stats,
    })
}

fn sampler(message: &TypedExtensionConfig) -> Compiled<Sampler> {
    let config = message.typed_config.as_ref();
    let config = config.ok_or_else(|| Refusal::new("a configuration is required"))?;
    Ok(match config.type_url.rsplit('/').next() {
        Some(ALWAYS_ON) => Sampler::AlwaysOn,
        Some(TRACE_ID_RATIO) => {
            let ratio: TraceIdRatioBasedSamplerConfig = unpack(config)?;
            let share = ratio.sampling_percentage.unwrap_or_default();
            Sampler::TraceIdRatio(Share {
                numerator: share.numerator.into(),
                denominator: match share.denominator() {
                    DenominatorType::Hundred => 100,
                    DenominatorType::TenThousand => 10_000,
                    DenominatorType::Million => 1_000_000,
                },
            })
        }
        Some(PARENT_BASED) => {
            let parent: ParentBasedSamplerConfig = unpack(config)?;
            let wrapped = parent.wrapped_sampler.as_ref();
            let wrapped = wrapped.ok_or_else(|| Refusal::new("a sampler is required"));
            Sampler::ParentBased(Box::new(wrapped.and_then(sampler).at("wrapped_sampler")?))
        }
        _ => return Err(Refusal::not_implemented(format!("the sampler `{}`", message.name))),
    })
}

fn exporter(config: &OpenTelemetryConfig, names: &mut Names) -> Compiled<Exporter> {
    match (&config.grpc_service, &config.http_service) {
        (Some(service), None) => grpc(service, names).at("grpc_service"),
        (None, Some(service)) => http(service, names).at("http_service"),
        (Some(_), Some(_)) => Err(Refusal::new("only one collector is allowed")),
        (None, None) => Err(Refusal::not_implemented("a tracer without a collector")),
    }
}

fn grpc(service: &GrpcService, names: &mut Names) -> Compiled<Exporter> {
    let Some(TargetSpecifier::EnvoyGrpc(target)) = service.target_specifier.as_ref() else {
        return Err(Refusal::not_implemented("other than envoy_grpc"));
    };
    let mut headers = HeaderMap::new();
    for (index, header) in service.initial_metadata.iter().enumerate() {
        let (name, value) = fixed(&header.key, &header.value).at_index("initial_metadata", index)?;
        headers.insert(name, value);
    }
    let authority = Some(&target.authority).filter(|authority| !authority.is_empty());
    Ok(Exporter {
        cluster: names.clusters.of(&target.cluster_name),
        grpc: true,
        authority: authority.unwrap_or(&target.cluster_name).as_str().into(),
        path: PathAndQuery::from_static(otlp::EXPORT_PATH),
        headers,
        timeout: value::limit(service.timeout.as_ref(), None),
    })
}

fn http(service: &HttpService, names: &mut Names) -> Compiled<Exporter> {
    let uri = service.http_uri.as_ref();
    let uri = uri.ok_or_else(|| Refusal::new("a URI is required").within("http_uri"))?;
    let Some(HttpUpstreamType::Cluster(cluster)) = uri.http_upstream_type.as_ref() else {
        return Err(Refusal::new("a cluster is required").within("http_uri"));
    };
    let parsed: Uri = uri
        .uri
        .parse()
        .map_err(|_| Refusal::new(format!("`{}` is not a valid URI", uri.uri)).within("http_uri"))?;
    let mut headers = HeaderMap::new();
    for (index, option) in service.request_headers_to_add.iter().enumerate() {
        if let Some(header) = &option.header {
            let (name, value) = fixed(&header.key, &header.value).at_index("request_headers_to_add", index)?;
            headers.append(name, value);
        }
    }
    Ok(Exporter {
        cluster: names.clusters.of(cluster),
        grpc: false,
        authority: parsed.authority().map_or("", |authority| authority.as_str()).into(),
        path: parsed
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
        headers,
        timeout: value::limit(uri.timeout.as_ref(), None),
    })
}

/// The names of the node that spans carry.
pub(crate) fn node(bootstrap: &crate::xds::pb::bootstrap::Bootstrap) -> NodeNames {
    let node = bootstrap.node.as_ref();
    let zone = node
        .and_then(|node| node.locality.as_ref())
        .map(|locality| &*locality.zone);
    NodeNames {
        id: node.map_or("", |node| &node.id).into(),
        cluster: node.map_or("", |node| &node.cluster).into(),
        zone: zone.unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::proxy::store::Store;
    use crate::xds::transcode::to_wire;

    /// Why a listener is refused that says this of tracing.
    fn refusal(tracing: &Value) -> String {
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "a", "route_config": {"name": "a"}, "tracing": tracing,
            "http_filters": [{"name": "router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            }}],
        });
        let listener = json!({
            "name": "a", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
            "filter_chains": [{"filters": [{"name": "a", "typed_config": manager}]}],
        });
        let bytes = to_wire("envoy.config.listener.v3.Listener", &listener).unwrap();
        Store::default().listener(None, &bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_would_be_missing_in_spans_is_refused() {
        let of_metadata = json!({"tag": "a", "metadata": {
            "kind": {"request": {}}, "metadata_key": {"key": "a", "path": [{"key": "b"}]},
        }});
        let detector = json!({"name": "a", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig",
        }});
        let provider = |message: &str, mut config: Value| {
            config["@type"] = format!("type.googleapis.com/envoy.config.trace.v3.{message}").into();
            json!({"provider": {"name": "a", "typed_config": config}})
        };
        let collector = json!({"envoy_grpc": {"cluster_name": "a"}});
        for (tracing, place) in [
            (json!({"custom_tags": [of_metadata]}), "tracing.custom_tags[0]"),
            (
                provider(
                    "OpenTelemetryConfig",
                    json!({"grpc_service": collector, "resource_detectors": [detector]}),
                ),
                "resource_detectors",
            ),
            (
                provider(
                    "ZipkinConfig",
                    json!({"collector_cluster": "a", "collector_endpoint": "/a", "collector_endpoint_version": "HTTP_JSON"}),
                ),
                "tracing.provider",
            ),
        ] {
            let refusal = refusal(&tracing);
            assert!(
                refusal.contains(place) && refusal.contains("not implemented"),
                "{refusal}"
            );
        }
    }
}
