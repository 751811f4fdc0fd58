//! Connection managers: HTTP filters, tracing, access logs.

use super::{NAME, RUNTIME, Row};

pub(super) const ROWS: &[Row] = &[
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type stat_prefix rds route_config http_filters server_name server_header_transformation \
         common_http_protocol_options http_protocol_options http2_protocol_options use_remote_address \
         xff_num_trusted_hops skip_xff_append via generate_request_id proxy_100_continue preserve_external_request_id \
         always_set_request_id_in_response forward_client_cert_details set_current_client_cert_details normalize_path \
         merge_slashes path_with_escaped_slashes_action max_request_headers_kb stream_idle_timeout request_timeout \
         request_headers_timeout drain_timeout delayed_close_timeout upgrade_configs access_log access_log_options \
         tracing request_id_extension internal_address_config strip_any_host_port strip_matching_host_port \
         strip_trailing_host_dot",
        &[],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        "config_source route_config_name",
        &[],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        "typed_config is_optional disabled",
        &[("name", NAME)],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails",
        "subject cert chain dns uri",
        &[],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        "upgrade_type enabled",
        &[],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension",
        "typed_config",
        &[],
    ),
    (
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
        "pack_trace_reason use_request_id_for_trace_sampling",
        &[],
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers start_child_span",
        &[("dynamic_stats", "responses are always counted")],
    ),
    ("envoy.extensions.filters.http.cors.v3.Cors", "", &[]),
    (
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials \
         filter_enabled forward_not_matching_preflights",
        &[],
    ),
    (
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay abort headers",
        &[],
    ),
    (
        "envoy.extensions.filters.common.fault.v3.FaultDelay",
        "fixed_delay percentage",
        &[],
    ),
    (
        "envoy.extensions.filters.http.fault.v3.FaultAbort",
        "http_status grpc_status percentage",
        &[],
    ),
    (
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        "stats_for_all_methods individual_method_stats_allowlist",
        &[(
            "emit_filter_state",
            "only visible in access logs of filter state, which are rejected",
        )],
    ),
    ("envoy.config.core.v3.GrpcMethodList", "services", &[]),
    ("envoy.config.core.v3.GrpcMethodList.Service", "name method_names", &[]),
    ("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", "", &[]),
    (
        "envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes",
        &[],
    ),
    (
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        "disabled buffer",
        &[],
    ),
    (
        "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode headers",
        &[],
    ),
    (
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix status token_bucket filter_enabled filter_enforced request_headers_to_add_when_not_enforced \
         response_headers_to_add local_rate_limit_per_downstream_connection rate_limited_as_resource_exhausted",
        &[],
    ),
    (
        "envoy.type.v3.TokenBucket",
        "max_tokens tokens_per_fill fill_interval",
        &[],
    ),
    ("envoy.type.v3.HttpStatus", "code", &[]),
    (
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers",
        &[],
    ),
    (
        "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue",
        "object_key format_string shared_with_upstream",
        &[],
    ),
    (
        "envoy.config.core.v3.SubstitutionFormatString",
        "text_format text_format_source json_format omit_empty_values formatters",
        &[
            ("json_format_options", "keys are always sorted"),
            ("content_type", "log lines have no content type"),
        ],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "client_sampling random_sampling overall_sampling verbose max_path_tag_length custom_tags provider \
         spawn_upstream_span operation upstream_operation no_context_propagation",
        &[],
    ),
    (
        "envoy.config.route.v3.Tracing",
        "client_sampling random_sampling overall_sampling custom_tags operation upstream_operation",
        &[],
    ),
    (
        "envoy.type.tracing.v3.CustomTag",
        "tag literal environment request_header value",
        &[],
    ),
    ("envoy.type.tracing.v3.CustomTag.Literal", "value", &[]),
    ("envoy.type.tracing.v3.CustomTag.Environment", "name default_value", &[]),
    ("envoy.type.tracing.v3.CustomTag.Header", "name default_value", &[]),
    ("envoy.config.trace.v3.Tracing.Http", "typed_config", &[("name", NAME)]),
    (
        "envoy.config.trace.v3.OpenTelemetryConfig",
        "grpc_service http_service service_name max_cache_size set_telemetry_sdk_resource_attributes \
         set_service_name_resource_attribute set_instrumentation_scope sampler",
        &[],
    ),
    (
        "envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig",
        "",
        &[],
    ),
    (
        "envoy.extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig",
        "wrapped_sampler",
        &[],
    ),
    (
        "envoy.extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig",
        "sampling_percentage",
        &[],
    ),
    (
        "envoy.config.core.v3.HttpService",
        "http_uri request_headers_to_add",
        &[],
    ),
    ("envoy.config.core.v3.HttpUri", "uri cluster timeout", &[]),
    (
        "envoy.config.accesslog.v3.AccessLog",
        "typed_config filter",
        &[("name", NAME)],
    ),
    (
        "envoy.config.accesslog.v3.AccessLogFilter",
        "status_code_filter duration_filter not_health_check_filter traceable_filter runtime_filter and_filter \
         or_filter header_filter response_flag_filter grpc_status_filter",
        &[],
    ),
    ("envoy.config.accesslog.v3.StatusCodeFilter", "comparison", &[]),
    ("envoy.config.accesslog.v3.DurationFilter", "comparison", &[]),
    ("envoy.config.accesslog.v3.NotHealthCheckFilter", "", &[]),
    ("envoy.config.accesslog.v3.TraceableFilter", "", &[]),
    (
        "envoy.config.accesslog.v3.RuntimeFilter",
        "percent_sampled use_independent_randomness",
        &[("runtime_key", RUNTIME)],
    ),
    ("envoy.config.accesslog.v3.AndFilter", "filters", &[]),
    ("envoy.config.accesslog.v3.OrFilter", "filters", &[]),
    ("envoy.config.accesslog.v3.HeaderFilter", "header", &[]),
    ("envoy.config.accesslog.v3.ResponseFlagFilter", "flags", &[]),
    ("envoy.config.accesslog.v3.GrpcStatusFilter", "statuses exclude", &[]),
    ("envoy.config.accesslog.v3.ComparisonFilter", "op value", &[]),
    (
        "envoy.config.core.v3.RuntimeUInt32",
        "default_value",
        &[("runtime_key", RUNTIME)],
    ),
    (
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path format json_format typed_json_format log_format",
        &[],
    ),
    (
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format",
        &[],
    ),
    (
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        "log_format",
        &[],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.HcmAccessLogOptions",
        "",
        &[],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
        "",
        &[],
    ),
];
