//! Checks before compiling: Envoy's validation rules, and fields that are not implemented.

use std::collections::HashSet;

use super::{Compiled, Refusal, coverage};
use crate::xds::ResourceType;
use crate::xds::rules::{self, Regexes, RuleBreak};

/// Checks a resource. Regular expressions are checked when they are compiled.
///
/// # Errors
/// All fields at fault.
pub(super) fn resource(kind: ResourceType, bytes: &[u8]) -> Compiled<()> {
    let broken = rules::check_body(kind, bytes, Regexes::Left);
    both(coverage::unread(kind.type_url(), bytes), broken)
}

/// The same for a message that is not a resource.
///
/// # Errors
/// All fields at fault.
pub(super) fn message(type_url: &str, bytes: &[u8]) -> Compiled<()> {
    both(coverage::unread(type_url, bytes), rules::check_fields(type_url, bytes))
}

/// Checks a message that is not a resource against Envoy's validation rules only.
///
/// # Errors
/// All fields that violate one.
pub(super) fn rules_of(type_url: &str, bytes: &[u8]) -> Compiled<()> {
    Refusal::none_of(rules::check_fields(type_url, bytes).into_iter().map(Refusal::from))
}

/// Combines both kinds. For a field that is not implemented, its validation rules do not matter.
fn both(unread: Vec<Refusal>, broken: Vec<RuleBreak>) -> Compiled<()> {
    let said: HashSet<String> = unread.iter().flat_map(Refusal::paths).collect();
    let broken = broken.into_iter().filter(|one| !is_within(&one.path, &said));
    Refusal::none_of(unread.into_iter().chain(broken.map(Refusal::from)))
}

/// Whether a path, or a prefix of it, is among these.
fn is_within(path: &str, paths: &HashSet<String>) -> bool {
    let ends = path.match_indices(['.', '[']).map(|(end, _)| end);
    ends.chain([path.len()]).any(|end| paths.contains(&path[..end]))
}

impl From<RuleBreak> for Refusal {
    fn from(RuleBreak { path, rule }: RuleBreak) -> Self {
        match path.is_empty() {
            true => Refusal::new(rule),
            false => Refusal::new(rule).within(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::config;
    use crate::xds::transcode::to_wire;

    fn refused(kind: ResourceType, json: &Value) -> String {
        let message = kind.type_url().rsplit('/').next().unwrap();
        let bytes = to_wire(message, json).unwrap();
        let refusal = resource(kind, &bytes).unwrap_err().to_string();
        assert_eq!(config::try_out(kind, &bytes).unwrap_err().to_string(), refusal);
        refusal
    }

    fn http_listener(manager: &Value, action: &Value) -> Value {
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"}}]}]},
            "http_filters": [{"name": "r", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            }}],
        });
        let extend = |to: &mut Value, more: &Value| {
            let more = more.as_object().unwrap().clone();
            to.as_object_mut().unwrap().extend(more);
        };
        extend(&mut config, manager);
        extend(&mut config["route_config"]["virtual_hosts"][0]["routes"][0], action);
        json!({
            "name": "in",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
            "filter_chains": [{"filters": [{"name": "h", "typed_config": config}]}],
        })
    }

    #[test]
    fn what_breaks_a_rule_of_envoys_is_refused_with_all_mistakes() {
        let cluster = json!({
            "name": "a", "type": "STATIC", "connect_timeout": "-1s",
            "outlier_detection": {"max_ejection_percent": 101},
        });
        assert_eq!(
            refused(ResourceType::Cluster, &cluster),
            "connect_timeout: must not be negative; outlier_detection.max_ejection_percent: must be at most 100"
        );
        let endpoints = json!({"endpoints": [{"priority": 129}]});
        assert_eq!(
            refused(ResourceType::Endpoints, &endpoints),
            "endpoints[0].priority: must be at most 128; cluster_name: must have at least 1 character(s)"
        );
        let manager = "filter_chains[0].filters[0].typed_config";
        assert_eq!(
            refused(
                ResourceType::Listener,
                &http_listener(&json!({"stat_prefix": ""}), &json!({}))
            ),
            format!(
                "{manager}.route_config.virtual_hosts[0].routes[0].action: is required; \
                 {manager}.stat_prefix: must have at least 1 character(s)"
            )
        );
        let route = json!({"name": "r", "virtual_hosts": [{"name": "a"}]});
        assert_eq!(
            refused(ResourceType::Route, &route),
            "virtual_hosts[0].domains: must have at least 1 element(s)"
        );
        let secret = json!({"name": "s", "validation_context": {"trusted_ca": {"filename": ""}}});
        let bytes = to_wire("envoy.extensions.transport_sockets.tls.v3.Secret", &secret).unwrap();
        assert_eq!(
            config::tls::secret("s", &bytes).unwrap_err().to_string(),
            "validation_context.trusted_ca.filename: must have at least 1 character(s)"
        );
    }

    #[test]
    fn what_envoy_checks_beyond_its_fields_is_checked() {
        let listener = http_listener(
            &json!({"stat_prefix": "h", "http_filters": []}),
            &json!({"redirect": {}}),
        );
        assert_eq!(
            refused(ResourceType::Listener, &listener),
            "filter_chains[0].filters[0].typed_config.http_filters: must end with the router"
        );
    }

    #[test]
    fn every_regular_expression_that_is_none_is_named() {
        let route = |regex: &str| json!({"match": {"safe_regex": {"regex": regex}}, "redirect": {}});
        let host =
            |name: &str, regexes: [&str; 2]| json!({"name": name, "domains": [name], "routes": regexes.map(route)});
        let config = json!({"name": "r", "virtual_hosts": [host("a", ["/(", "/"]), host("b", ["/", "/["])]});
        let bytes = to_wire("envoy.config.route.v3.RouteConfiguration", &config).unwrap();
        let refusal = config::try_out(ResourceType::Route, &bytes).unwrap_err();
        let fields: Vec<_> = refusal.into_parts().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            [
                "virtual_hosts[0].routes[0].match.safe_regex",
                "virtual_hosts[1].routes[1].match.safe_regex",
            ]
        );
    }

    #[test]
    fn what_is_not_implemented_is_said_beside_what_breaks_rules_and_once() {
        let any = json!({"@type": "type.googleapis.com/envoy.config.core.v3.Address", "pipe": {"path": ""}});
        let cluster = json!({
            "type": "STATIC", "upstream_config": {},
            "transport_socket": {"name": "", "typed_config": any},
        });
        assert_eq!(
            refused(ResourceType::Cluster, &cluster),
            "upstream_config: this field is not implemented; \
             transport_socket.typed_config.pipe.path: must have at least 1 character(s); \
             transport_socket.name: must have at least 1 character(s); name: must have at least 1 character(s)"
        );
        let refusal = message("type.googleapis.com/envoy.config.core.v3.Address", &[0xf8, 0x3f, 1]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "field 1023 of `envoy.config.core.v3.Address` is not implemented; address: is required"
        );
    }
}
