//! Generates the override file, which Compose merges with a project's own files.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::container::{self, STATE_VOLUME, on_pod, sidecars_before, volume};
use super::name::{INIT, SERVER};
use super::plan::Plan;

/// Settings of the override that do not come from the project.
#[derive(Clone, Debug)]
pub struct Override {
    /// Image of the control plane.
    pub image: String,
    /// Image of the sidecars.
    pub sidecar_image: String,
    /// `envoy` or `rust`.
    pub dataplane: String,
    /// The configuration directory, as a path or volume for Compose.
    pub config: String,
}

/// A map that is serialized in order.
#[derive(Debug)]
struct InOrder<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for InOrder<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A field of a service in the override.
#[derive(Debug)]
enum Field {
    /// Merged with the project's value.
    Add(Value),
    /// Replaces the project's value (`!override`).
    Replace(Value),
    /// Removes the project's value (`!reset`).
    TakeBack,
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = |value: &Value, tag: &str| serde_saphyr::Tagged(value.clone(), Some(tag.to_owned()));
        match self {
            Self::Add(value) => value.serialize(serializer),
            Self::Replace(value) => tagged(value, "!override").serialize(serializer),
            // Compose only considers the tag.
            Self::TakeBack => tagged(&Value::Null, "!reset").serialize(serializer),
        }
    }
}

/// The override file.
#[derive(Serialize)]
struct File {
    services: InOrder<InOrder<Field>>,
    volumes: Map<String, Value>,
}

/// The text of the override file, without its first line.
pub fn additions(plan: &Plan, settings: &Override) -> serde_json::Result<String> {
    let mut services = containers(plan, settings);
    services.extend(changes(plan));
    let volumes = plan.meshed.iter().map(volume).chain([STATE_VOLUME.to_owned()]);
    let all = File {
        services: InOrder(services),
        volumes: volumes.map(|name| (name, json!({}))).collect(),
    };
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(&all, options).map_err(serde::ser::Error::custom)
}

/// The services added to the project.
fn containers(plan: &Plan, settings: &Override) -> Vec<(String, InOrder<Field>)> {
    let mut added = vec![
        (INIT.to_owned(), container::init(plan, settings)),
        (SERVER.to_owned(), container::server(plan, settings)),
    ];
    for planned in &plan.meshed {
        if let Ok(pod) = &planned.pod {
            added.push((pod.name.clone(), container::pod(planned, pod, plan, settings)));
        }
        added.push((planned.sidecar.clone(), container::sidecar(planned, plan, settings)));
    }
    let whole = added.into_iter().map(|(name, fields)| {
        let fields = fields.into_iter().map(|(field, value)| (field, Field::Add(value)));
        (name, InOrder(fields.collect()))
    });
    whole.collect()
}

/// Changes to the project's services.
fn changes(plan: &Plan) -> Vec<(String, InOrder<Field>)> {
    let meshed = plan.meshed.iter().map(|planned| &planned.service);
    let names: BTreeSet<&String> = meshed.chain(plan.ties.keys()).collect();
    names
        .into_iter()
        .map(|name| (name.clone(), change(name, plan)))
        .collect()
}

/// Changes to a service.
fn change(name: &str, plan: &Plan) -> InOrder<Field> {
    let mut fields = Vec::new();
    let mut put = |field: &str, value| fields.push((field.to_owned(), value));
    let mut depends_on = Map::new();
    let planned = plan.meshed.iter().find(|planned| planned.service == name);
    match planned.map(|planned| (planned, &planned.pod)) {
        Some((planned, Ok(pod))) => {
            pod.taken.iter().for_each(|field| put(field, Field::TakeBack));
            put("network_mode", Field::Add(json!(format!("service:{}", pod.name))));
            depends_on.insert(pod.name.clone(), on_pod(plan));
            depends_on.insert(planned.sidecar.clone(), json!({"condition": "service_healthy"}));
        }
        // The service waits for the tokens, so that its sidecar, which starts after it, need not.
        Some((_, Err(_))) => {
            depends_on.insert(INIT.to_owned(), json!({"condition": "service_completed_successfully"}));
        }
        None => {}
    }
    depends_on.extend(sidecars_before(name, plan));
    if let Some(ties) = plan.ties.get(name) {
        let started = |name: &String| (name.clone(), json!({"condition": "service_started"}));
        depends_on.extend(ties.started.iter().map(started));
        if let Some(mode) = &ties.network_mode {
            put("network_mode", Field::Add(json!(mode)));
        }
        let has_pod = planned.is_some_and(|planned| planned.pod.is_ok());
        if let Some(links) = ties.links.as_ref().filter(|_| !has_pod) {
            put("links", Field::Replace(json!(links)));
        }
    }
    if !depends_on.is_empty() {
        put("depends_on", Field::Add(depends_on.into()));
    }
    InOrder(fields)
}
