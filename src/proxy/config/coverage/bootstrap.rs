//! The bootstrap, and how the control plane is reached.

use super::{NAME, Row};

pub(super) const ROWS: &[Row] = &[
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        "dynamic_resources layered_runtime overload_manager bootstrap_extensions",
        &[
            ("node", "sent to the control plane unchanged"),
            ("static_resources", "each resource is checked on its own"),
            ("admin", "checked where it is read"),
            ("stats_config", "checked where it is read"),
            ("stats_flush_interval", "there are no stats sinks"),
            ("enable_dispatcher_stats", "dispatchers do not exist here"),
            ("watchdog", "threads never wait for each other"),
            ("watchdogs", "threads never wait for each other"),
            ("node_context_params", "only used by `xdstp` names, which are rejected"),
            ("flags_path", "feature flags do not exist here"),
            ("inline_headers", "only affects how Envoy stores headers"),
            ("perf_tracing_file_path", "only used by special builds of Envoy"),
            ("deferred_stat_options", "only affects when Envoy allocates stats"),
            ("memory_allocator_manager", "memory is returned without it"),
            (
                "grpc_async_client_manager_config",
                "only affects how long Envoy caches clients",
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
        &[("buffer_size_kb", "internal listeners do not exist here")],
    ),
    ("envoy.config.bootstrap.v3.LayeredRuntime", "layers", &[]),
    (
        "envoy.config.bootstrap.v3.RuntimeLayer",
        "",
        &[
            ("name", NAME),
            ("static_layer", "its keys have no effect, which is logged"),
            ("admin_layer", "runtime values do not exist here"),
        ],
    ),
    (
        "envoy.config.overload.v3.OverloadManager",
        "resource_monitors",
        &[("refresh_interval", "connections are counted continuously")],
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
