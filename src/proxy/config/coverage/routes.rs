//! Routes.

use super::{METADATA, NAME, RUNTIME, Row};

pub(super) const ROWS: &[Row] = &[
    (
        "envoy.config.route.v3.RouteConfiguration",
        "name virtual_hosts ignore_port_in_host_matching request_headers_to_add request_headers_to_remove \
         response_headers_to_add response_headers_to_remove most_specific_header_mutations_wins validate_clusters \
         max_direct_response_body_size_bytes",
        &[("metadata", METADATA)],
    ),
    (
        "envoy.config.route.v3.VirtualHost",
        "name domains routes request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove include_request_attempt_count include_attempt_count_in_response \
         typed_per_filter_config retry_policy require_tls",
        &[("metadata", METADATA)],
    ),
    (
        "envoy.config.route.v3.Route",
        "name match route redirect direct_response request_headers_to_add request_headers_to_remove \
         response_headers_to_add response_headers_to_remove typed_per_filter_config decorator tracing \
         request_body_buffer_limit stat_prefix",
        &[("metadata", METADATA)],
    ),
    ("envoy.config.route.v3.Decorator", "operation propagate", &[]),
    (
        "envoy.config.route.v3.RouteMatch",
        "prefix path path_separated_prefix safe_regex connect_matcher case_sensitive headers query_parameters grpc \
         runtime_fraction",
        &[],
    ),
    ("envoy.config.route.v3.RouteMatch.ConnectMatcher", "", &[]),
    ("envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions", "", &[]),
    (
        "envoy.config.route.v3.HeaderMatcher",
        "name present_match string_match range_match exact_match prefix_match suffix_match contains_match \
         safe_regex_match invert_match treat_missing_header_as_empty",
        &[],
    ),
    (
        "envoy.config.route.v3.QueryParameterMatcher",
        "name string_match present_match",
        &[],
    ),
    ("envoy.type.v3.Int64Range", "start end", &[]),
    (
        "envoy.type.matcher.v3.StringMatcher",
        "exact prefix suffix contains safe_regex ignore_case",
        &[],
    ),
    (
        "envoy.type.matcher.v3.RegexMatcher",
        "regex",
        &[("google_re2", "there is only one regex engine")],
    ),
    (
        "envoy.type.matcher.v3.RegexMatchAndSubstitute",
        "pattern substitution",
        &[],
    ),
    (
        "envoy.config.core.v3.RuntimeFractionalPercent",
        "default_value",
        &[("runtime_key", RUNTIME)],
    ),
    ("envoy.type.v3.FractionalPercent", "numerator denominator", &[]),
    ("envoy.type.v3.Percent", "value", &[]),
    (
        "envoy.config.core.v3.HeaderValueOption",
        "header append append_action keep_empty_value",
        &[],
    ),
    ("envoy.config.core.v3.HeaderValue", "key value", &[]),
    (
        "envoy.config.route.v3.RouteAction",
        "cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite \
         host_rewrite_literal auto_host_rewrite host_rewrite_header append_x_forwarded_host timeout idle_timeout \
         retry_policy request_mirror_policies hash_policy priority path_rewrite max_stream_duration upgrade_configs",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.UpgradeConfig",
        "upgrade_type enabled connect_config",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig",
        "proxy_protocol_config allow_post",
        &[],
    ),
    ("envoy.config.core.v3.ProxyProtocolConfig", "version", &[]),
    (
        "envoy.config.route.v3.RouteAction.MaxStreamDuration",
        "max_stream_duration grpc_timeout_header_max",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.RequestMirrorPolicy",
        "cluster runtime_fraction disable_shadow_host_suffix_append trace_sampled",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy",
        "header cookie connection_properties query_parameter terminal",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.Header",
        "header_name",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.Cookie",
        "name ttl path attributes",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute",
        "name value",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties",
        "source_ip",
        &[],
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter",
        "name",
        &[],
    ),
    (
        "envoy.config.route.v3.WeightedCluster",
        "clusters",
        &[
            ("total_weight", "the sum of the weights is used, as in Envoy"),
            ("runtime_key_prefix", RUNTIME),
        ],
    ),
    (
        "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        "name weight request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove host_rewrite_literal typed_per_filter_config",
        &[],
    ),
    (
        "envoy.config.route.v3.RetryPolicy",
        "retry_on num_retries per_try_timeout retriable_status_codes retriable_headers retriable_request_headers \
         retry_back_off retry_priority retry_host_predicate host_selection_retry_max_attempts",
        &[],
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryPriority",
        "typed_config",
        &[("name", NAME)],
    ),
    (
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency",
        &[],
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryBackOff",
        "base_interval max_interval",
        &[],
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryHostPredicate",
        "name typed_config",
        &[],
    ),
    (
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "",
        &[],
    ),
    (
        "envoy.config.route.v3.RedirectAction",
        "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite \
         response_code strip_query",
        &[],
    ),
    ("envoy.config.route.v3.DirectResponseAction", "status body", &[]),
];
