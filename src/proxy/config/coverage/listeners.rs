//! Listeners and their filters.

use super::{METADATA, NAME, Row};

pub(super) const ROWS: &[Row] = &[
    (
        "envoy.config.listener.v3.Listener",
        "name stat_prefix address additional_addresses filter_chains default_filter_chain use_original_dst \
         bind_to_port listener_filters listener_filters_timeout continue_on_listener_filters_timeout \
         traffic_direction transparent freebind enable_reuse_port tcp_backlog_size access_log \
         max_connections_to_accept_per_socket_event tcp_keepalive per_connection_buffer_limit_bytes \
         ignore_global_conn_limit",
        &[
            ("metadata", METADATA),
            (
                "connection_balance_config",
                "connections are balanced between workers anyway",
            ),
        ],
    ),
    ("envoy.config.listener.v3.AdditionalAddress", "address", &[]),
    (
        "envoy.config.listener.v3.FilterChain",
        "name filter_chain_match filters transport_socket transport_socket_connect_timeout",
        &[("metadata", METADATA)],
    ),
    (
        "envoy.config.listener.v3.FilterChainMatch",
        "destination_port prefix_ranges server_names transport_protocol application_protocols \
         direct_source_prefix_ranges source_prefix_ranges source_ports source_type",
        &[],
    ),
    ("envoy.config.listener.v3.Filter", "typed_config", &[("name", NAME)]),
    (
        "envoy.config.listener.v3.ListenerFilter",
        "typed_config filter_disabled",
        &[("name", NAME)],
    ),
    (
        "envoy.config.listener.v3.ListenerFilterChainMatchPredicate",
        "or_match and_match not_match any_match destination_port_range",
        &[],
    ),
    (
        "envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet",
        "rules",
        &[],
    ),
    ("envoy.type.v3.Int32Range", "start end", &[]),
    ("envoy.extensions.filters.listener.original_dst.v3.OriginalDst", "", &[]),
    (
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
        "bind_port mark",
        &[],
    ),
    (
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        "allow_requests_without_proxy_protocol disallowed_versions stat_prefix",
        &[],
    ),
    (
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "enable_ja3_fingerprinting enable_ja4_fingerprinting close_connection_on_client_hello_parsing_errors \
         max_client_hello_size",
        &[("initial_read_buffer_size", "only affects the size of reads")],
    ),
    (
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        "",
        &[],
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix cluster weighted_clusters idle_timeout max_downstream_connection_duration hash_policy access_log \
         access_log_options max_connect_attempts",
        &[],
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster",
        "clusters",
        &[],
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        "name weight",
        &[],
    ),
    ("envoy.type.v3.HashPolicy", "source_ip", &[]),
    ("envoy.type.v3.HashPolicy.SourceIp", "", &[]),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TcpAccessLogOptions",
        "",
        &[],
    ),
];
