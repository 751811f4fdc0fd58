//! The control plane as a cluster and gRPC service of the bootstrap.

use std::path::Path;

use serde_json::{Value, json};

use super::document::{Bootstrap, socket_address};
use crate::cli::value::{Endpoint, Host};
use crate::pki::server_identity;

/// Name of the control plane's cluster, as in Istio.
const CLUSTER: &str = "xds-grpc";
/// Name of the secret with the join token.
const TOKEN: &str = "topsail-token";
/// Header that carries the token from one upstream filter to the next; it is removed before the request is
/// sent.
const TOKEN_HEADER: &str = "x-topsail-token";

/// The xDS gRPC service. A broken stream is re-established within a second.
pub(super) fn grpc_service() -> Value {
    json!({"envoy_grpc": {
        "cluster_name": CLUSTER,
        "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
    }})
}

/// The cluster: TLS that verifies the server's SPIFFE ID, whatever host name it is dialled by, and upstream
/// filters that add the join token to every request.
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
        // Auto-registration uses the source address of the connection.
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

/// Upstream filter that puts the content of the token file into a header. The file is reloaded when a file in
/// its directory is renamed.
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

/// Upstream filter that turns the header into `authorization: Bearer …`. Envoy 1.36 lacks
/// `header_value_prefix`, so the injector cannot add the prefix itself.
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

/// The SDS resource that refers to the token file.
pub(super) fn token_secret(token_file: &Path) -> Value {
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": TOKEN,
        "generic_secret": {"secret": {"filename": token_file}},
    }]})
}
