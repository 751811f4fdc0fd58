//! The control plane as Envoy sees it.

use std::path::Path;

use serde_json::{Value, json};

use super::document::{Bootstrap, socket_address};
use crate::cli::value::{Endpoint, Host};
use crate::pki::server_identity;

/// The name of the cluster, as in Istio.
const CLUSTER: &str = "xds-grpc";
/// The name of the secret that holds the join token.
const TOKEN: &str = "topsail-token";
/// The header in which the token travels between two filters; it never leaves Envoy.
const TOKEN_HEADER: &str = "x-topsail-token";

/// How streams to the control plane are opened; one that breaks is opened again within a second.
pub(super) fn grpc_service() -> Value {
    json!({"envoy_grpc": {
        "cluster_name": CLUSTER,
        "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
    }})
}

/// The cluster: TLS to the server's identity, whatever name it is dialled by, and the join token in
/// every request.
pub(super) fn cluster(bootstrap: &Bootstrap) -> Value {
    let Endpoint { host, port } = &bootstrap.server;
    let (discovery, address) = match host {
        Host::Address(address) => ("STATIC", socket_address(*address, *port)),
        Host::Name(name) => (
            "STRICT_DNS",
            json!({"socket_address": {"address": name, "port_value": port}}),
        ),
    };
    let mut cluster = json!({
        "name": CLUSTER,
        "alt_stat_name": format!("{CLUSTER};"),
        "type": discovery,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol_options(bootstrap),
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": tls_context(bootstrap),
        },
    });
    if bootstrap.group.is_some() {
        // The control plane registers the address that the connection comes from.
        cluster["upstream_bind_config"] = json!({"source_address": {"address": bootstrap.address(), "port_value": 0}});
    }
    cluster
}

fn tls_context(bootstrap: &Bootstrap) -> Value {
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {
                "trusted_ca": {"inline_string": bootstrap.roots.pem()},
                "match_typed_subject_alt_names": [{
                    "san_type": "URI",
                    "matcher": {"exact": server_identity(&bootstrap.trust_domain).to_string()},
                }],
            },
        },
    });
    if let Host::Name(name) = &bootstrap.server.host {
        context["sni"] = json!(name);
    }
    context
}

fn protocol_options(bootstrap: &Bootstrap) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        }},
        "http_filters": [credential_injector(bootstrap), bearer(), {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
        }],
    })
}

/// Puts the content of the token's file into a header. The file is read again when something is
/// renamed in its folder.
fn credential_injector(bootstrap: &Bootstrap) -> Value {
    json!({
        "name": "envoy.filters.http.credential_injector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": true,
            "credential": {
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
                    "header": TOKEN_HEADER,
                    "credential": {
                        "name": TOKEN,
                        "sds_config": {
                            "resource_api_version": "V3",
                            "path_config_source": {
                                "path": bootstrap.secret_file,
                                "watched_directory": {"path": bootstrap.token_folder},
                            },
                        },
                    },
                },
            },
        },
    })
}

/// Makes `authorization: Bearer …` of the header. Envoy 1.36 cannot put `Bearer` before a credential
/// itself (`header_value_prefix` came later).
fn bearer() -> Value {
    let authorization = format!("Bearer %REQ({TOKEN_HEADER})%");
    json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [
                {"append": {
                    "header": {"key": "authorization", "value": authorization},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }},
                {"remove": TOKEN_HEADER},
            ]},
        },
    })
}

/// The resource by which Envoy finds the token.
pub(super) fn token_secret(token_file: &Path) -> Value {
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": TOKEN,
        "generic_secret": {"secret": {"filename": token_file}},
    }]})
}
