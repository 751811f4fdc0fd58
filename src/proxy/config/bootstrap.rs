//! Reading the bootstrap, which is the same file as Envoy's.

use std::path::Path;

use bytes::Bytes;
use prost::{Message, Name};

use super::value::unpack;
use super::{At, Compiled, Refusal, check};
use crate::xds::ResourceType;
pub(crate) use crate::xds::pb::bootstrap::Bootstrap;
use crate::xds::pb::bootstrap::runtime_layer::LayerSpecifier;
use crate::xds::pb::overload::downstream_connections::DownstreamConnectionsConfig;
use crate::xds::pb::overload::resource_monitor::ConfigType;
use crate::xds::transcode::{self, Fault};

/// Why a bootstrap, or a file it refers to, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read `{0}`: {1}")]
    Unreadable(String, std::io::Error),
    /// It is not valid YAML or JSON.
    #[error("`{0}` is not valid YAML: {1}")]
    NoYaml(String, Box<serde_saphyr::Error>),
    /// It does not match the message.
    #[error("`{0}` is not a valid `{1}`: {2}")]
    NoMessage(String, String, Fault),
}

impl BootstrapError {
    /// The field at fault as it is named in the file; empty if it is the whole file.
    pub(in crate::proxy) fn field(&self) -> Option<&str> {
        match self {
            BootstrapError::Unreadable(..) => None,
            BootstrapError::NoYaml(..) => Some(""),
            BootstrapError::NoMessage(_, _, fault) => Some(&fault.path),
        }
    }
}

/// Reads a bootstrap, YAML or JSON.
///
/// # Errors
/// If the file does not hold one.
pub(crate) fn read(path: &Path) -> Result<Bootstrap, BootstrapError> {
    read_message(path)
}

/// Refuses a bootstrap that violates Envoy's validation rules or has fields that would be ignored, static resources
/// included.
///
/// # Errors
/// All fields at fault.
pub(crate) fn check(bootstrap: &Bootstrap) -> Compiled<()> {
    let own = Bootstrap {
        static_resources: None,
        ..bootstrap.clone()
    };
    let own = check::message(&Bootstrap::type_url(), &own.encode_to_vec())
        .and_then(|()| connection_limit(bootstrap).map(drop));
    let fixed = fixed(bootstrap);
    let of = |field: &'static str, kind, resources: Vec<Bytes>| {
        let field = format!("static_resources.{field}");
        let resources = resources.into_iter().enumerate();
        resources.filter_map(move |(index, bytes)| check::resource(kind, &bytes).at_index(&field, index).err())
    };
    let secrets = fixed.secrets.into_iter().map(|(_, secret)| secret).collect();
    let resources = of("secrets", ResourceType::Secret, secrets)
        .chain(of("clusters", ResourceType::Cluster, fixed.clusters))
        .chain(of("listeners", ResourceType::Listener, fixed.listeners));
    Refusal::none_of(own.err().into_iter().chain(resources))
}

/// The limit of downstream connections (`global_downstream_max_connections`).
///
/// # Errors
/// If another resource is monitored.
pub(crate) fn connection_limit(bootstrap: &Bootstrap) -> Compiled<Option<u64>> {
    let field = "overload_manager.resource_monitors";
    let mut least = None;
    let monitors = bootstrap.overload_manager.iter().flat_map(|one| &one.resource_monitors);
    for (index, monitor) in monitors.enumerate() {
        let Some(ConfigType::TypedConfig(config)) = &monitor.config_type else {
            continue;
        };
        let limit: DownstreamConnectionsConfig = unpack(config).at_index(field, index)?;
        let most = match limit.max_active_downstream_connections {
            // Envoy requires a number; this is how to set no limit.
            most if most >= i64::from(i32::MAX) => continue,
            // Envoy's validation rules exclude negative numbers.
            most => u64::try_from(most).unwrap_or_default(),
        };
        least = Some(least.map_or(most, |least: u64| least.min(most)));
    }
    Ok(least)
}

/// The static resources of a bootstrap, encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fixed {
    /// Secrets, with names.
    pub(crate) secrets: Vec<(String, Bytes)>,
    /// Clusters.
    pub(crate) clusters: Vec<Bytes>,
    /// Listeners.
    pub(crate) listeners: Vec<Bytes>,
}

/// Extracts the static resources.
pub(crate) fn fixed(bootstrap: &Bootstrap) -> Fixed {
    let Some(resources) = &bootstrap.static_resources else {
        return Fixed::default();
    };
    let secrets = resources.secrets.iter();
    Fixed {
        secrets: secrets
            .map(|secret| (secret.name.clone(), secret.encode_to_vec().into()))
            .collect(),
        clusters: resources
            .clusters
            .iter()
            .map(|one| one.encode_to_vec().into())
            .collect(),
        listeners: resources
            .listeners
            .iter()
            .map(|one| one.encode_to_vec().into())
            .collect(),
    }
}

/// The keys of runtime layers, which have no effect here.
pub(crate) fn runtime_keys(bootstrap: &Bootstrap) -> Vec<&str> {
    let layers = bootstrap.layered_runtime.iter().flat_map(|runtime| &runtime.layers);
    let fixed = layers.filter_map(|layer| match &layer.layer_specifier {
        Some(LayerSpecifier::StaticLayer(values)) => Some(values.fields.keys()),
        _ => None,
    });
    fixed.flatten().map(String::as_str).collect()
}

/// Reads a message in proto3 JSON from a file, YAML or JSON.
///
/// # Errors
/// If the file does not hold one.
pub(crate) fn read_message<M: Message + Name + Default>(path: &Path) -> Result<M, BootstrapError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| BootstrapError::Unreadable(name.clone(), error))?;
    parse(&name, &text)
}

/// Parses a message in proto3 JSON; `name` is the file's.
///
/// # Errors
/// If the text does not hold one.
pub(in crate::proxy) fn parse<M: Message + Name + Default>(name: &str, text: &str) -> Result<M, BootstrapError> {
    // As in Envoy, `y` and `on` are strings: a cluster may have such a name.
    let options = serde_saphyr::options! { strict_booleans: true };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| BootstrapError::NoYaml(name.to_owned(), Box::new(error)))?;
    let wrong = |fault| BootstrapError::NoMessage(name.to_owned(), M::full_name(), fault);
    let wire = transcode::to_wire(&M::full_name(), &value).map_err(wrong)?;
    M::decode(&wire[..]).map_err(|error| {
        wrong(Fault {
            path: String::new(),
            why: error.to_string(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_old_yaml_takes_for_truth_values_stay_names() {
        let text = "static_resources:\n  clusters:\n  - name: y\n  - name: off\n";
        let bootstrap: Bootstrap = parse("x", text).unwrap();
        let names = bootstrap.static_resources.unwrap().clusters;
        assert_eq!(names.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["y", "off"]);
    }

    #[test]
    fn what_would_be_passed_over_is_refused() {
        let refused = |text: &str| check(&parse("b.yaml", text).unwrap()).unwrap_err().to_string();
        assert_eq!(
            refused("stats_sinks: [{name: envoy.stat_sinks.statsd}]"),
            "stats_sinks: this field is not implemented"
        );
        assert_eq!(
            refused("dynamic_resources: {lds_resources_locator: 'xdstp://a/b'}"),
            "dynamic_resources.lds_resources_locator: this field is not implemented"
        );
        let limit = |connections: i64| {
            format!(
                "overload_manager: {{resource_monitors: [{{name: a, typed_config: {{'@type': \
                 type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, \
                 max_active_downstream_connections: {connections}}}}}]}}"
            )
        };
        assert_eq!(
            refused(&limit(0)),
            "overload_manager.resource_monitors[0].typed_config.max_active_downstream_connections: must be above 0"
        );
        let most = |connections: i64| connection_limit(&parse("b.yaml", &limit(connections)).unwrap()).unwrap();
        assert_eq!((most(100), most(i64::from(i32::MAX))), (Some(100), None));
        let runtime: Bootstrap = parse(
            "b.yaml",
            "layered_runtime: {layers: [{name: a, static_layer: {x.y: 1}}]}",
        )
        .unwrap();
        check(&runtime).unwrap();
        assert_eq!(runtime_keys(&runtime), ["x.y"]);
    }

    #[test]
    fn everything_that_breaks_a_rule_is_named() {
        let text = "
            node: {id: a, cluster: b}
            admin: {address: {socket_address: {address: '', port_value: 70000}}}
            static_resources:
              secrets:
              - {name: s, tls_certificate: {private_key: {filename: ''}}}
              clusters:
              - {name: '', type: STATIC}
              - {name: b, type: STATIC, connect_timeout: -1s}
              listeners:
              - {name: l, address: {pipe: {path: /x}}}
        ";
        let refusal = check(&parse("b.yaml", text).unwrap()).unwrap_err();
        let mistakes: Vec<_> = refusal
            .into_parts()
            .map(|(field, why)| format!("{field}: {why}"))
            .collect();
        assert_eq!(
            mistakes,
            [
                "admin.address.socket_address.port_value: must be at most 65535",
                "admin.address.socket_address.address: must have at least 1 character(s)",
                "static_resources.secrets[0].tls_certificate.private_key.filename: must have at least 1 character(s)",
                "static_resources.clusters[0].name: must have at least 1 character(s)",
                "static_resources.clusters[1].connect_timeout: must not be negative",
                "static_resources.listeners[0].filter_chains: must not be empty",
            ]
        );
    }

    #[test]
    fn an_error_names_the_field() {
        let error = parse::<Bootstrap>("b.yaml", "admin: {address: {socket_address: {port: 1}}}").unwrap_err();
        let expected = "`b.yaml` is not a valid `envoy.config.bootstrap.v3.Bootstrap`: `admin.address.socket_address.port`: unknown field";
        assert_eq!(error.to_string(), expected);
    }
}
