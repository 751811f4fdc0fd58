//! Clusters and their endpoints.

use super::{METADATA, NAME, RUNTIME, Row};

const NO_EVENTS: &str = "event logs are rejected";
const SOCKETS: &str = "each UDP query has a socket of its own";

pub(super) const ROWS: &[Row] = &[
    (
        "envoy.config.cluster.v3.Cluster",
        "name alt_stat_name type cluster_type eds_cluster_config connect_timeout load_assignment lb_policy \
         least_request_lb_config round_robin_lb_config ring_hash_lb_config maglev_lb_config original_dst_lb_config \
         common_lb_config circuit_breakers dns_refresh_rate respect_dns_ttl dns_lookup_family dns_jitter \
         dns_failure_refresh_rate typed_dns_resolver_config transport_socket transport_socket_matches typed_extension_protocol_options upstream_bind_config \
         upstream_connection_options outlier_detection health_checks ignore_health_on_host_removal cleanup_interval max_requests_per_connection protocol_selection \
         common_http_protocol_options upstream_http_protocol_options http_protocol_options http2_protocol_options",
        &[
            ("metadata", METADATA),
            ("per_connection_buffer_limit_bytes", "buffers have their own limit"),
        ],
    ),
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig",
        "eds_config service_name",
        &[],
    ),
    (
        "envoy.config.cluster.v3.Cluster.CustomClusterType",
        "typed_config",
        &[("name", NAME)],
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        "healthy_panic_threshold locality_weighted_lb_config consistent_hashing_lb_config \
         ignore_new_hosts_until_first_hc",
        &[
            ("zone_aware_lb_config", "zone-aware routing needs a local cluster"),
            ("update_merge_window", "updates are cheap and applied at once"),
        ],
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig",
        "",
        &[],
    ),
    (
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        "choice_count slow_start_config",
        &[],
    ),
    (
        "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig",
        "slow_start_config",
        &[],
    ),
    (
        "envoy.config.cluster.v3.Cluster.SlowStartConfig",
        "slow_start_window aggression min_weight_percent",
        &[],
    ),
    (
        "envoy.config.core.v3.RuntimeDouble",
        "default_value",
        &[("runtime_key", RUNTIME)],
    ),
    (
        "envoy.config.cluster.v3.Cluster.RingHashLbConfig",
        "minimum_ring_size maximum_ring_size hash_function",
        &[],
    ),
    ("envoy.config.cluster.v3.Cluster.MaglevLbConfig", "table_size", &[]),
    (
        "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig",
        "upstream_port_override",
        &[],
    ),
    (
        "envoy.config.cluster.v3.Cluster.TransportSocketMatch",
        "name match transport_socket",
        &[],
    ),
    ("envoy.config.cluster.v3.CircuitBreakers", "thresholds", &[]),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
        "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining",
        &[],
    ),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget",
        "budget_percent min_retry_concurrency",
        &[],
    ),
    (
        "envoy.config.cluster.v3.OutlierDetection",
        "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx \
         enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor \
         consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors \
         consecutive_local_origin_failure enforcing_consecutive_local_origin_failure \
         enforcing_local_origin_success_rate failure_percentage_threshold enforcing_failure_percentage \
         enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts failure_percentage_request_volume \
         max_ejection_time always_eject_one_host successful_active_health_check_uneject_host",
        &[],
    ),
    (
        "envoy.config.cluster.v3.UpstreamConnectionOptions",
        "tcp_keepalive",
        &[(
            "set_local_interface_name_on_upstream_connections",
            "the interface name is not used",
        )],
    ),
    (
        "envoy.config.core.v3.TcpKeepalive",
        "keepalive_probes keepalive_time keepalive_interval",
        &[],
    ),
    (
        "envoy.config.core.v3.BindConfig",
        "source_address extra_source_addresses freebind",
        &[],
    ),
    ("envoy.config.core.v3.ExtraSourceAddress", "address", &[]),
    (
        "envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_refresh_rate dns_failure_refresh_rate respect_dns_ttl dns_min_refresh_rate dns_jitter dns_lookup_family \
         typed_dns_resolver_config all_addresses_in_single_endpoint",
        &[],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options upstream_http_protocol_options explicit_http_config \
         use_downstream_protocol_config auto_config http_filters",
        &[],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        "http_protocol_options http2_protocol_options",
        &[],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        "http_protocol_options http2_protocol_options",
        &[],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig",
        "http_protocol_options http2_protocol_options",
        &[],
    ),
    (
        "envoy.config.core.v3.HttpProtocolOptions",
        "idle_timeout max_connection_duration max_headers_count max_stream_duration max_requests_per_connection \
         headers_with_underscores_action",
        &[],
    ),
    (
        "envoy.config.core.v3.UpstreamHttpProtocolOptions",
        "auto_sni auto_san_validation",
        &[],
    ),
    ("envoy.config.core.v3.Http1ProtocolOptions", "allow_absolute_url", &[]),
    (
        "envoy.config.core.v3.Http2ProtocolOptions",
        "max_concurrent_streams initial_stream_window_size initial_connection_window_size allow_connect \
         connection_keepalive",
        &[("hpack_table_size", "only affects how headers are compressed")],
    ),
    (
        "envoy.config.core.v3.KeepaliveSettings",
        "interval timeout",
        &[("interval_jitter", "each connection is pinged on its own schedule")],
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name endpoints policy",
        &[],
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
        "overprovisioning_factor",
        &[],
    ),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        "locality lb_endpoints load_balancing_weight priority",
        &[("metadata", METADATA)],
    ),
    (
        "envoy.config.endpoint.v3.LbEndpoint",
        "endpoint health_status metadata load_balancing_weight",
        &[],
    ),
    (
        "envoy.config.endpoint.v3.Endpoint",
        "address hostname health_check_config",
        &[],
    ),
    (
        "envoy.config.endpoint.v3.Endpoint.HealthCheckConfig",
        "port_value hostname address disable_active_health_check",
        &[],
    ),
    (
        "envoy.config.core.v3.HealthCheck",
        "timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold \
         healthy_threshold reuse_connection http_health_check tcp_health_check grpc_health_check no_traffic_interval \
         no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval healthy_edge_interval tls_options \
         transport_socket_match_criteria",
        &[
            ("alt_port", "not used by Envoy either"),
            ("always_log_health_check_failures", NO_EVENTS),
            ("always_log_health_check_success", NO_EVENTS),
        ],
    ),
    (
        "envoy.config.core.v3.HealthCheck.HttpHealthCheck",
        "host path send receive response_buffer_size request_headers_to_add request_headers_to_remove \
         expected_statuses retriable_statuses codec_client_type service_name_matcher method",
        &[],
    ),
    ("envoy.config.core.v3.HealthCheck.TcpHealthCheck", "send receive", &[]),
    (
        "envoy.config.core.v3.HealthCheck.GrpcHealthCheck",
        "service_name authority",
        &[],
    ),
    ("envoy.config.core.v3.HealthCheck.Payload", "text", &[]),
    ("envoy.config.core.v3.HealthCheck.TlsOptions", "alpn_protocols", &[]),
    ("envoy.config.core.v3.Locality", "region zone sub_zone", &[]),
    ("envoy.config.core.v3.Metadata", "", &[("filter_metadata", METADATA)]),
    (
        "envoy.config.cluster.v3.Cluster.RefreshRate",
        "base_interval max_interval",
        &[],
    ),
    (
        "envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate",
        "base_interval max_interval",
        &[],
    ),
    (
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers use_resolvers_as_fallback dns_resolver_options query_timeout_seconds query_tries rotate_nameservers",
        &[
            ("udp_max_queries", SOCKETS),
            ("max_udp_channel_duration", SOCKETS),
            ("reinit_channel_on_timeout", SOCKETS),
        ],
    ),
    (
        "envoy.config.core.v3.DnsResolverOptions",
        "use_tcp_for_dns_lookups no_default_search_domain",
        &[],
    ),
    (
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
        "",
        &[("num_resolver_threads", "the system resolver does the lookups")],
    ),
];
