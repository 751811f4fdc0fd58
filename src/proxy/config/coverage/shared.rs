//! What several sorts of resources hold: addresses, sources, TLS.

use super::{NAME, Row};

pub(super) const ROWS: &[Row] = &[
    ("envoy.config.core.v3.Address", "socket_address pipe", &[]),
    (
        "envoy.config.core.v3.SocketAddress",
        "address port_value ipv4_compat",
        &[],
    ),
    ("envoy.config.core.v3.Pipe", "path mode", &[]),
    ("envoy.config.core.v3.CidrRange", "address_prefix prefix_len", &[]),
    (
        "envoy.config.core.v3.ConfigSource",
        "ads api_config_source path_config_source initial_fetch_timeout",
        &[("resource_api_version", "there is only one")],
    ),
    ("envoy.config.core.v3.AggregatedConfigSource", "", &[]),
    (
        "envoy.config.core.v3.PathConfigSource",
        "path",
        &[("watched_directory", "the file's directory is always watched")],
    ),
    (
        "envoy.config.core.v3.ApiConfigSource",
        "api_type grpc_services",
        &[
            ("transport_api_version", "there is only one"),
            (
                "set_node_on_first_message_only",
                "the node is always sent once per stream",
            ),
        ],
    ),
    (
        "envoy.config.core.v3.GrpcService",
        "envoy_grpc timeout initial_metadata",
        &[],
    ),
    (
        "envoy.config.core.v3.GrpcService.EnvoyGrpc",
        "cluster_name authority retry_policy",
        &[],
    ),
    (
        "envoy.config.core.v3.RetryPolicy",
        "retry_back_off",
        &[("num_retries", "streams are reopened forever, as by Envoy")],
    ),
    (
        "envoy.config.core.v3.BackoffStrategy",
        "base_interval max_interval",
        &[],
    ),
    (
        "envoy.config.core.v3.DataSource",
        "filename inline_bytes inline_string environment_variable",
        &[],
    ),
    (
        "envoy.config.core.v3.TypedExtensionConfig",
        "typed_config",
        &[("name", NAME)],
    ),
    (
        "envoy.config.core.v3.TransportSocket",
        "typed_config",
        &[("name", NAME)],
    ),
    ("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", "", &[]),
    (
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config transport_socket",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context sni auto_host_sni auto_sni_san_validation max_session_keys",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context require_client_certificate prefer_client_ciphers disable_stateless_session_resumption",
        &[(
            "disable_stateful_session_resumption",
            "sessions are only resumed by tickets",
        )],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context \
         validation_context_sds_secret_config combined_validation_context alpn_protocols",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        "default_validation_context validation_context_sds_secret_config",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        "name sds_config",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        "trusted_ca crl only_verify_leaf_cert_crl match_typed_subject_alt_names match_subject_alt_names",
        &[("watched_directory", "the directories of files are always watched")],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        "san_type matcher",
        &[],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        "certificate_chain private_key",
        &[("watched_directory", "the directories of files are always watched")],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "name tls_certificate validation_context",
        &[],
    ),
];
