//! `/runtime`: the runtime layers of the bootstrap, shown for tools. They have no effect on this proxy.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Admin;
use super::answer::{Answer, message};
use super::config_dump::BOOTSTRAP;

/// The names of the layers, and the value of each key in each.
pub(super) async fn answer(admin: &Admin) -> Result<Answer, Answer> {
    let bootstrap = message(BOOTSTRAP, admin.start.bootstrap.clone()).await?;
    let layers = bootstrap["layered_runtime"]["layers"].as_array();
    let layers = layers.map_or(&[][..], Vec::as_slice);
    let names: Vec<_> = layers.iter().map(|layer| &layer["name"]).collect();
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let fixed = layer["static_layer"].as_object();
        for (key, value) in fixed.into_iter().flatten() {
            let values = entries
                .entry(key.clone())
                .or_insert_with(|| vec![String::new(); layers.len()]);
            values[index] = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
        }
    }
    let entry = |(key, values): (String, Vec<String>)| {
        let last = values.iter().rfind(|value| !value.is_empty());
        let value = json!({"final_value": last.cloned().unwrap_or_default(), "layer_values": values});
        (key, value)
    };
    let entries: serde_json::Map<_, _> = entries.into_iter().map(entry).collect();
    Ok(Answer::pretty(&json!({"layers": names, "entries": entries})))
}
