//! The bootstrap, and how the control plane is reached.

use super::{NAME, Row};

pub(super) const ROWS: &[Row] = &[
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        "dynamic_resources layered_runtime overload_manager bootstrap_extensions",
        &[
            ("node", "the control plane is told it as it is"),
            ("static_resources", "each resource is looked through by itself"),
            ("admin", "its reader refuses what it does not know"),
            ("stats_config", "its reader refuses what it does not know"),
            ("stats_flush_interval", "nobody is sent statistics"),
            ("enable_dispatcher_stats", "there are no dispatchers"),
            ("watchdog", "no thread waits for another"),
            ("watchdogs", "no thread waits for another"),
            ("node_context_params", "they are for `xdstp` names, which are refused"),
            ("flags_path", "there are no feature flags"),
            ("inline_headers", "where headers are kept is not to be seen"),
            ("perf_tracing_file_path", "only special builds of Envoy write it"),
            (
                "deferred_stat_options",
                "when statistics get their memory is not to be seen",
            ),
            ("memory_allocator_manager", "memory is given back as it is"),
            (
                "grpc_async_client_manager_config",
                "how long clients are kept is not to be seen",
            ),
        ],
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
        "lds_config cds_config ads_config",
        &[],
    ),
    (
        "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        "",
        &[("buffer_size_kb", "there are no internal listeners")],
    ),
    ("envoy.config.bootstrap.v3.LayeredRuntime", "layers", &[]),
    (
        "envoy.config.bootstrap.v3.RuntimeLayer",
        "",
        &[
            ("name", NAME),
            ("static_layer", "its keys have no effect, which the log says"),
            ("admin_layer", "there is nothing to change"),
        ],
    ),
    (
        "envoy.config.overload.v3.OverloadManager",
        "resource_monitors",
        &[("refresh_interval", "connections are counted as they come")],
    ),
    (
        "envoy.config.overload.v3.ResourceMonitor",
        "typed_config",
        &[("name", NAME)],
    ),
    (
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections",
        &[],
    ),
    (
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite allow_request_without_credential credential",
        &[],
    ),
    (
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        "credential header header_value_prefix",
        &[],
    ),
    (
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations",
        &[],
    ),
    (
        "envoy.extensions.filters.http.header_mutation.v3.Mutations",
        "request_mutations",
        &[],
    ),
    (
        "envoy.config.common.mutation_rules.v3.HeaderMutation",
        "append remove",
        &[],
    ),
    ("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec", "", &[]),
];
