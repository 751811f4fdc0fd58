//! The target configuration of a proxy in the format of Envoy's `/config_dump`.

use serde_json::{Map, Value, json};

use crate::xds::json::{JsonError, Printer};
use crate::xds::resource::{Resource, ResourceType};
use crate::xds::snapshot::Snapshot;

/// A snapshot as `envoy.admin.v3.ConfigDump`, with sections in Envoy's order and secrets redacted.
/// `istioctl proxy-config --file` can read it.
///
/// # Errors
///
/// If a resource cannot be converted to JSON.
pub(super) fn config_dump(snapshot: &Snapshot) -> Result<Value, JsonError> {
    let printer = Printer::new()?;
    let part = |kind| part(&printer, snapshot, kind);
    let parts = [
        ResourceType::Cluster,
        ResourceType::Endpoints,
        ResourceType::Listener,
        ResourceType::Route,
        ResourceType::Secret,
    ];
    let configs: Vec<Value> = parts.into_iter().map(part).collect::<Result<_, _>>()?;
    Ok(json!({"configs": configs}))
}

/// One section: its message, and the field with the resources.
fn part(printer: &Printer, snapshot: &Snapshot, kind: ResourceType) -> Result<Value, JsonError> {
    let (message, field) = match kind {
        ResourceType::Cluster => ("ClustersConfigDump", "dynamic_active_clusters"),
        ResourceType::Endpoints => ("EndpointsConfigDump", "dynamic_endpoint_configs"),
        ResourceType::Listener => ("ListenersConfigDump", "dynamic_listeners"),
        ResourceType::Route => ("RoutesConfigDump", "dynamic_route_configs"),
        ResourceType::Secret => ("SecretsConfigDump", "dynamic_active_secrets"),
    };
    let entries = snapshot.set(kind).values().map(|resource| entry(printer, resource));
    let entries: Vec<Value> = entries.collect::<Result<_, _>>()?;
    let mut part = Map::new();
    part.insert(
        "@type".to_owned(),
        json!(format!("type.googleapis.com/envoy.admin.v3.{message}")),
    );
    part.insert(field.to_owned(), entries.into());
    Ok(part.into())
}

/// A resource as an element of its section.
fn entry(printer: &Printer, resource: &Resource) -> Result<Value, JsonError> {
    let version = resource.version.as_str();
    let value = printer.resource(resource)?;
    Ok(match resource.kind {
        ResourceType::Cluster => json!({"version_info": version, "cluster": value}),
        ResourceType::Endpoints => json!({"version_info": version, "endpoint_config": value}),
        ResourceType::Listener => {
            json!({"name": resource.name, "active_state": {"version_info": version, "listener": value}})
        }
        ResourceType::Route => json!({"version_info": version, "route_config": value}),
        ResourceType::Secret => json!({"name": resource.name, "version_info": version, "secret": value}),
    })
}
