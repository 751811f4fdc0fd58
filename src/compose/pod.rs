//! Pods: containers that hold the network namespace shared by a service and its sidecar.

use serde_json::{Map, Value, json};

use super::label::Interception;
use super::name;
use super::project::Project;
use super::service::Service;

/// A container that holds the network namespace of a service and its sidecar, independent of the
/// lifetime of both.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name in the project.
    pub name: String,
    /// Fields it takes over from the service: `networks`, `ports`, ….
    pub(super) fields: Map<String, Value>,
    /// Fields that are reset in the service.
    pub(super) taken: Vec<String>,
}

impl Pod {
    /// The pod of a service. `takes_back` tells whether the override can reset fields of the
    /// project.
    ///
    /// # Errors
    ///
    /// Why there can be none.
    pub(super) fn of(
        service: &Service,
        interception: Interception,
        project: &Project,
        takes_back: bool,
    ) -> Result<Self, String> {
        if interception == Interception::None {
            return Err("no traffic is intercepted".to_owned());
        }
        let network = &service.network;
        if !takes_back {
            let given: Vec<String> = network.given().map(|name| format!("`{name}`")).collect();
            if !given.is_empty() {
                return Err(format!("it has {}", given.join(", ")));
            }
            if let Some(other) = project.linked_by(&service.name.text) {
                return Err(format!("`{other}` links to it"));
            }
        }
        if let Some(name) = network.elsewhere {
            return Err(format!("`{name}` uses a variable in an included file"));
        }
        let mut fields = network.fields.clone();
        fields.insert("networks".to_owned(), networks(service));
        if !network.sysctls.is_empty() {
            fields.insert("sysctls".to_owned(), Value::Object(network.sysctls.clone()));
        }
        Ok(Self {
            name: name::pod(&service.name.text),
            fields,
            taken: network.given().map(str::to_owned).collect(),
        })
    }
}

/// The networks of the service, with its aliases.
fn networks(service: &Service) -> Value {
    let mut networks = match service.network.fields.get("networks") {
        Some(Value::Object(networks)) if !networks.is_empty() => networks.clone(),
        _ => Map::from_iter([("default".to_owned(), Value::Null)]),
    };
    let names = [Some(&service.name), service.container_name.as_ref()];
    for network in networks.values_mut() {
        let mut aliases: Vec<Value> = names.iter().flatten().map(|name| json!(name.text)).collect();
        let own = network.get("aliases").and_then(Value::as_array);
        for alias in own.into_iter().flatten() {
            if !aliases.contains(alias) {
                aliases.push(alias.clone());
            }
        }
        match network {
            Value::Object(fields) => drop(fields.insert("aliases".to_owned(), aliases.into())),
            _ => *network = json!({"aliases": aliases}),
        }
    }
    Value::Object(networks)
}
