//! The fields that are read.

/// Messages by full name, and their fields by name. A star: what is in the field does not matter.
pub(super) const TABLE: &[(&str, &str)] = &[
    // The bootstrap: what its readers look through themselves has a star.
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        "node* static_resources* dynamic_resources admin* stats_config* layered_runtime overload_manager \
         stats_flush_interval* enable_dispatcher_stats* watchdog* watchdogs* node_context_params* flags_path* \
         inline_headers* perf_tracing_file_path* deferred_stat_options* memory_allocator_manager* \
         grpc_async_client_manager_config*",
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
        "lds_config* cds_config* ads_config*",
    ),
    ("envoy.config.bootstrap.v3.LayeredRuntime", "layers"),
    (
        "envoy.config.bootstrap.v3.RuntimeLayer",
        "name* static_layer* admin_layer*",
    ),
    (
        "envoy.config.overload.v3.OverloadManager",
        "refresh_interval* resource_monitors",
    ),
    ("envoy.config.overload.v3.ResourceMonitor", "name* typed_config"),
    (
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections",
    ),
    // Clusters.
    (
        "envoy.config.cluster.v3.Cluster",
        "name alt_stat_name type cluster_type eds_cluster_config connect_timeout load_assignment lb_policy \
         least_request_lb_config round_robin_lb_config ring_hash_lb_config maglev_lb_config original_dst_lb_config common_lb_config \
         circuit_breakers dns_refresh_rate dns_lookup_family respect_dns_ttl* dns_jitter* dns_failure_refresh_rate* \
         transport_socket transport_socket_matches typed_extension_protocol_options upstream_bind_config \
         upstream_connection_options outlier_detection cleanup_interval metadata* track_cluster_stats* \
         per_connection_buffer_limit_bytes* filters* warm_up_delay* close_connections_on_host_health_failure* \
         ignore_health_on_host_removal*",
    ),
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig",
        "eds_config service_name",
    ),
    (
        "envoy.config.cluster.v3.Cluster.CustomClusterType",
        "name* typed_config",
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        "healthy_panic_threshold locality_weighted_lb_config zone_aware_lb_config* update_merge_window* \
         ignore_new_hosts_until_first_hc* close_connections_on_host_set_change* consistent_hashing_lb_config",
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig",
        "",
    ),
    (
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        "choice_count slow_start_config",
    ),
    (
        "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig",
        "slow_start_config",
    ),
    (
        "envoy.config.cluster.v3.Cluster.SlowStartConfig",
        "slow_start_window aggression min_weight_percent",
    ),
    ("envoy.config.core.v3.RuntimeDouble", "default_value runtime_key*"),
    (
        "envoy.config.cluster.v3.Cluster.RingHashLbConfig",
        "minimum_ring_size maximum_ring_size hash_function",
    ),
    ("envoy.config.cluster.v3.Cluster.MaglevLbConfig", "table_size"),
    (
        "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig",
        "upstream_port_override",
    ),
    (
        "envoy.config.cluster.v3.Cluster.TransportSocketMatch",
        "name match transport_socket",
    ),
    ("envoy.config.cluster.v3.CircuitBreakers", "thresholds"),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
        "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining*",
    ),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget",
        "budget_percent min_retry_concurrency",
    ),
    (
        "envoy.config.cluster.v3.OutlierDetection",
        "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx \
         enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor \
         consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors \
         consecutive_local_origin_failure enforcing_consecutive_local_origin_failure \
         enforcing_local_origin_success_rate failure_percentage_threshold enforcing_failure_percentage \
         enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts \
         failure_percentage_request_volume max_ejection_time always_eject_one_host",
    ),
    ("envoy.config.cluster.v3.UpstreamConnectionOptions", "tcp_keepalive"),
    (
        "envoy.config.core.v3.TcpKeepalive",
        "keepalive_probes keepalive_time keepalive_interval",
    ),
    (
        "envoy.config.core.v3.BindConfig",
        "source_address extra_source_addresses freebind",
    ),
    ("envoy.config.core.v3.ExtraSourceAddress", "address"),
    (
        "envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_refresh_rate dns_failure_refresh_rate* respect_dns_ttl* dns_jitter* dns_lookup_family \
         typed_dns_resolver_config* all_addresses_in_single_endpoint",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options upstream_http_protocol_options explicit_http_config \
         use_downstream_protocol_config auto_config http_filters",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    (
        "envoy.config.core.v3.HttpProtocolOptions",
        "idle_timeout max_connection_duration max_headers_count max_stream_duration max_requests_per_connection \
         headers_with_underscores_action",
    ),
    (
        "envoy.config.core.v3.UpstreamHttpProtocolOptions",
        "auto_sni auto_san_validation",
    ),
    ("envoy.config.core.v3.Http1ProtocolOptions", "allow_absolute_url"),
    (
        "envoy.config.core.v3.Http2ProtocolOptions",
        "max_concurrent_streams initial_stream_window_size initial_connection_window_size allow_connect \
         connection_keepalive",
    ),
    (
        "envoy.config.core.v3.KeepaliveSettings",
        "interval timeout interval_jitter*",
    ),
    // The credential of the cluster by which the control plane is reached.
    (
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite allow_request_without_credential credential",
    ),
    (
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        "credential header header_value_prefix",
    ),
    (
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations",
    ),
    (
        "envoy.extensions.filters.http.header_mutation.v3.Mutations",
        "request_mutations",
    ),
    ("envoy.config.common.mutation_rules.v3.HeaderMutation", "append remove"),
    ("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec", ""),
    // Endpoints.
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name endpoints policy",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
        "overprovisioning_factor",
    ),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        "locality lb_endpoints load_balancing_weight priority metadata*",
    ),
    (
        "envoy.config.endpoint.v3.LbEndpoint",
        "endpoint health_status metadata load_balancing_weight",
    ),
    ("envoy.config.endpoint.v3.Endpoint", "address hostname"),
    ("envoy.config.core.v3.Locality", "region zone sub_zone"),
    ("envoy.config.core.v3.Metadata", "filter_metadata*"),
    // Addresses and sources.
    ("envoy.config.core.v3.Address", "socket_address pipe"),
    (
        "envoy.config.core.v3.SocketAddress",
        "protocol* address port_value ipv4_compat*",
    ),
    ("envoy.config.core.v3.Pipe", "path mode"),
    ("envoy.config.core.v3.CidrRange", "address_prefix prefix_len"),
    (
        "envoy.config.core.v3.ConfigSource",
        "ads api_config_source path_config_source initial_fetch_timeout resource_api_version*",
    ),
    ("envoy.config.core.v3.AggregatedConfigSource", ""),
    ("envoy.config.core.v3.PathConfigSource", "path watched_directory*"),
    (
        "envoy.config.core.v3.ApiConfigSource",
        "api_type transport_api_version* grpc_services set_node_on_first_message_only*",
    ),
    (
        "envoy.config.core.v3.GrpcService",
        "envoy_grpc timeout initial_metadata",
    ),
    (
        "envoy.config.core.v3.GrpcService.EnvoyGrpc",
        "cluster_name authority retry_policy",
    ),
    ("envoy.config.core.v3.RetryPolicy", "retry_back_off num_retries*"),
    ("envoy.config.core.v3.BackoffStrategy", "base_interval max_interval"),
    (
        "envoy.config.core.v3.DataSource",
        "filename inline_bytes inline_string environment_variable",
    ),
    ("envoy.config.core.v3.TypedExtensionConfig", "name* typed_config"),
    // TLS.
    ("envoy.config.core.v3.TransportSocket", "name* typed_config"),
    ("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", ""),
    (
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config transport_socket",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context sni auto_host_sni auto_sni_san_validation max_session_keys*",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context require_client_certificate prefer_client_ciphers disable_stateless_session_resumption* \
         disable_stateful_session_resumption*",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context \
         validation_context_sds_secret_config combined_validation_context alpn_protocols",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        "default_validation_context validation_context_sds_secret_config",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites* ecdh_curves*",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        "name sds_config",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        "trusted_ca crl only_verify_leaf_cert_crl match_typed_subject_alt_names match_subject_alt_names \
         watched_directory*",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        "san_type matcher",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        "certificate_chain private_key watched_directory*",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "name tls_certificate validation_context",
    ),
    // Listeners.
    (
        "envoy.config.listener.v3.Listener",
        "name stat_prefix address additional_addresses filter_chains default_filter_chain use_original_dst bind_to_port \
         listener_filters listener_filters_timeout continue_on_listener_filters_timeout traffic_direction \
         transparent freebind enable_reuse_port tcp_backlog_size metadata* access_log connection_balance_config* \
         max_connections_to_accept_per_socket_event tcp_keepalive \
         per_connection_buffer_limit_bytes* ignore_global_conn_limit",
    ),
    ("envoy.config.listener.v3.AdditionalAddress", "address"),
    (
        "envoy.config.listener.v3.FilterChain",
        "name filter_chain_match filters transport_socket transport_socket_connect_timeout metadata*",
    ),
    (
        "envoy.config.listener.v3.FilterChainMatch",
        "destination_port prefix_ranges server_names transport_protocol application_protocols \
         direct_source_prefix_ranges source_prefix_ranges source_ports source_type",
    ),
    ("envoy.config.listener.v3.Filter", "name* typed_config"),
    (
        "envoy.config.listener.v3.ListenerFilter",
        "name* typed_config filter_disabled",
    ),
    (
        "envoy.config.listener.v3.ListenerFilterChainMatchPredicate",
        "or_match and_match not_match any_match destination_port_range",
    ),
    (
        "envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet",
        "rules",
    ),
    ("envoy.type.v3.Int32Range", "start end"),
    ("envoy.extensions.filters.listener.original_dst.v3.OriginalDst", ""),
    (
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
        "bind_port mark",
    ),
    (
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        "allow_requests_without_proxy_protocol pass_through_tlvs* disallowed_versions stat_prefix tlv_location*",
    ),
    (
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "enable_ja3_fingerprinting enable_ja4_fingerprinting initial_read_buffer_size* \
         close_connection_on_client_hello_parsing_errors max_client_hello_size",
    ),
    ("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", ""),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix cluster weighted_clusters idle_timeout max_downstream_connection_duration hash_policy access_log \
         access_log_options* max_connect_attempts",
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster",
        "clusters",
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        "name weight",
    ),
    ("envoy.type.v3.HashPolicy", "source_ip"),
    ("envoy.type.v3.HashPolicy.SourceIp", ""),
    // HTTP.
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type stat_prefix rds route_config http_filters server_name server_header_transformation \
         common_http_protocol_options http_protocol_options http2_protocol_options use_remote_address \
         xff_num_trusted_hops skip_xff_append via generate_request_id proxy_100_continue preserve_external_request_id \
         always_set_request_id_in_response forward_client_cert_details set_current_client_cert_details normalize_path \
         merge_slashes path_with_escaped_slashes_action max_request_headers_kb stream_idle_timeout request_timeout \
         request_headers_timeout drain_timeout delayed_close_timeout* upgrade_configs access_log access_log_options* \
         tracing request_id_extension internal_address_config* http1_safe_max_connection_duration*",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        "config_source route_config_name",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        "name* typed_config is_optional disabled",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails",
        "subject cert chain dns uri",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        "upgrade_type enabled",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension",
        "typed_config",
    ),
    (
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
        "pack_trace_reason use_request_id_for_trace_sampling",
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers start_child_span dynamic_stats*",
    ),
    ("envoy.extensions.filters.http.cors.v3.Cors", ""),
    (
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials filter_enabled \
         forward_not_matching_preflights",
    ),
    (
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay abort headers",
    ),
    (
        "envoy.extensions.filters.common.fault.v3.FaultDelay",
        "fixed_delay percentage",
    ),
    (
        "envoy.extensions.filters.http.fault.v3.FaultAbort",
        "http_status grpc_status percentage",
    ),
    (
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        "emit_filter_state* stats_for_all_methods individual_method_stats_allowlist",
    ),
    ("envoy.config.core.v3.GrpcMethodList", "services"),
    ("envoy.config.core.v3.GrpcMethodList.Service", "name method_names"),
    ("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", ""),
    ("envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes"),
    (
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        "disabled buffer",
    ),
    (
        "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode headers",
    ),
    (
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix* status token_bucket filter_enabled filter_enforced request_headers_to_add_when_not_enforced \
         response_headers_to_add local_rate_limit_per_downstream_connection rate_limited_as_resource_exhausted",
    ),
    ("envoy.type.v3.TokenBucket", "max_tokens tokens_per_fill fill_interval"),
    ("envoy.type.v3.HttpStatus", "code"),
    (
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers",
    ),
    (
        "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue",
        "object_key format_string shared_with_upstream",
    ),
    (
        "envoy.config.core.v3.SubstitutionFormatString",
        "text_format text_format_source json_format omit_empty_values json_format_options* formatters",
    ),
    // Tracing.
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "client_sampling random_sampling overall_sampling verbose max_path_tag_length custom_tags provider \
         spawn_upstream_span operation upstream_operation no_context_propagation",
    ),
    (
        "envoy.config.route.v3.Tracing",
        "client_sampling random_sampling overall_sampling custom_tags operation upstream_operation",
    ),
    (
        "envoy.type.tracing.v3.CustomTag",
        "tag literal environment request_header value",
    ),
    ("envoy.type.tracing.v3.CustomTag.Literal", "value"),
    ("envoy.type.tracing.v3.CustomTag.Environment", "name default_value"),
    ("envoy.type.tracing.v3.CustomTag.Header", "name default_value"),
    ("envoy.config.trace.v3.Tracing.Http", "name* typed_config"),
    (
        "envoy.config.trace.v3.OpenTelemetryConfig",
        "grpc_service http_service service_name max_cache_size set_telemetry_sdk_resource_attributes \
         set_service_name_resource_attribute set_instrumentation_scope sampler",
    ),
    (
        "envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig",
        "",
    ),
    (
        "envoy.extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig",
        "wrapped_sampler",
    ),
    (
        "envoy.extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig",
        "sampling_percentage",
    ),
    ("envoy.config.core.v3.HttpService", "http_uri request_headers_to_add"),
    ("envoy.config.core.v3.HttpUri", "uri cluster timeout"),
    // Access logs.
    ("envoy.config.accesslog.v3.AccessLog", "name* typed_config filter"),
    (
        "envoy.config.accesslog.v3.AccessLogFilter",
        "status_code_filter duration_filter not_health_check_filter traceable_filter runtime_filter and_filter \
         or_filter header_filter response_flag_filter grpc_status_filter",
    ),
    ("envoy.config.accesslog.v3.StatusCodeFilter", "comparison"),
    ("envoy.config.accesslog.v3.DurationFilter", "comparison"),
    ("envoy.config.accesslog.v3.NotHealthCheckFilter", ""),
    ("envoy.config.accesslog.v3.TraceableFilter", ""),
    (
        "envoy.config.accesslog.v3.RuntimeFilter",
        "percent_sampled runtime_key* use_independent_randomness",
    ),
    ("envoy.config.accesslog.v3.AndFilter", "filters"),
    ("envoy.config.accesslog.v3.OrFilter", "filters"),
    ("envoy.config.accesslog.v3.HeaderFilter", "header"),
    ("envoy.config.accesslog.v3.ResponseFlagFilter", "flags"),
    ("envoy.config.accesslog.v3.GrpcStatusFilter", "statuses exclude"),
    ("envoy.config.accesslog.v3.ComparisonFilter", "op value"),
    ("envoy.config.core.v3.RuntimeUInt32", "default_value runtime_key*"),
    (
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path format json_format typed_json_format log_format",
    ),
    (
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format",
    ),
    (
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        "log_format",
    ),
    // Routes.
    (
        "envoy.config.route.v3.RouteConfiguration",
        "name virtual_hosts ignore_port_in_host_matching request_headers_to_add request_headers_to_remove \
         response_headers_to_add response_headers_to_remove most_specific_header_mutations_wins validate_clusters* \
         max_direct_response_body_size_bytes* metadata*",
    ),
    (
        "envoy.config.route.v3.VirtualHost",
        "name domains routes request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove include_request_attempt_count include_attempt_count_in_response \
         typed_per_filter_config retry_policy metadata*",
    ),
    (
        "envoy.config.route.v3.Route",
        "name match route redirect direct_response request_headers_to_add request_headers_to_remove \
         response_headers_to_add response_headers_to_remove typed_per_filter_config decorator tracing \
         request_body_buffer_limit metadata* stat_prefix*",
    ),
    ("envoy.config.route.v3.Decorator", "operation propagate"),
    (
        "envoy.config.route.v3.RouteMatch",
        "prefix path path_separated_prefix safe_regex connect_matcher case_sensitive headers query_parameters grpc \
         runtime_fraction",
    ),
    ("envoy.config.route.v3.RouteMatch.ConnectMatcher", ""),
    ("envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions", ""),
    (
        "envoy.config.route.v3.HeaderMatcher",
        "name present_match string_match range_match exact_match prefix_match suffix_match contains_match \
         safe_regex_match invert_match treat_missing_header_as_empty",
    ),
    (
        "envoy.config.route.v3.QueryParameterMatcher",
        "name string_match present_match",
    ),
    ("envoy.type.v3.Int64Range", "start end"),
    (
        "envoy.type.matcher.v3.StringMatcher",
        "exact prefix suffix contains safe_regex ignore_case",
    ),
    ("envoy.type.matcher.v3.RegexMatcher", "regex google_re2*"),
    ("envoy.type.matcher.v3.RegexMatchAndSubstitute", "pattern substitution"),
    (
        "envoy.config.core.v3.RuntimeFractionalPercent",
        "default_value runtime_key*",
    ),
    ("envoy.type.v3.FractionalPercent", "numerator denominator"),
    ("envoy.type.v3.Percent", "value"),
    (
        "envoy.config.core.v3.HeaderValueOption",
        "header append append_action keep_empty_value",
    ),
    ("envoy.config.core.v3.HeaderValue", "key value"),
    (
        "envoy.config.route.v3.RouteAction",
        "cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite \
         host_rewrite_literal auto_host_rewrite host_rewrite_header append_x_forwarded_host timeout idle_timeout \
         retry_policy request_mirror_policies hash_policy priority path_rewrite max_stream_duration upgrade_configs",
    ),
    (
        "envoy.config.route.v3.RouteAction.UpgradeConfig",
        "upgrade_type enabled connect_config",
    ),
    (
        "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig",
        "proxy_protocol_config allow_post",
    ),
    ("envoy.config.core.v3.ProxyProtocolConfig", "version"),
    (
        "envoy.config.route.v3.RouteAction.MaxStreamDuration",
        "max_stream_duration grpc_timeout_header_max",
    ),
    (
        "envoy.config.route.v3.RouteAction.RequestMirrorPolicy",
        "cluster runtime_fraction disable_shadow_host_suffix_append trace_sampled*",
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy",
        "header cookie connection_properties query_parameter terminal",
    ),
    ("envoy.config.route.v3.RouteAction.HashPolicy.Header", "header_name"),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.Cookie",
        "name ttl path attributes",
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute",
        "name value",
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties",
        "source_ip",
    ),
    ("envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter", "name"),
    (
        "envoy.config.route.v3.WeightedCluster",
        "clusters total_weight* runtime_key_prefix*",
    ),
    (
        "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        "name weight request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove host_rewrite_literal typed_per_filter_config",
    ),
    (
        "envoy.config.route.v3.RetryPolicy",
        "retry_on num_retries per_try_timeout retriable_status_codes retriable_headers \
         retriable_request_headers retry_back_off retry_priority retry_host_predicate host_selection_retry_max_attempts",
    ),
    ("envoy.config.route.v3.RetryPolicy.RetryPriority", "name* typed_config"),
    (
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency",
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryBackOff",
        "base_interval max_interval",
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryHostPredicate",
        "name typed_config",
    ),
    (
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "",
    ),
    (
        "envoy.config.route.v3.RedirectAction",
        "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite \
         response_code strip_query",
    ),
    ("envoy.config.route.v3.DirectResponseAction", "status body"),
];
