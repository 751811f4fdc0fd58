//! Network settings of a service, which move to its pod if there is one.

use serde_json::{Map, Value as Json};

use super::fields::{Fields, has_tag};
use crate::source::document::Document;
use crate::source::node::{Node, Value};

/// Fields that the engine rejects for a container in another one's network namespace, or that have
/// no effect there.
const FIELDS: [&str; 12] = [
    "networks",
    "ports",
    "expose",
    "hostname",
    "domainname",
    "mac_address",
    "dns",
    "dns_search",
    "dns_opt",
    "extra_hosts",
    "links",
    "external_links",
];

/// Network settings of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// Those of [`FIELDS`] that are set, merged like in Compose. `networks` is a map.
    pub(super) fields: Map<String, Json>,
    /// `sysctls` of the network namespace.
    pub(super) sysctls: Map<String, Json>,
    /// A field of an included file with a variable, which is only known there.
    pub(super) elsewhere: Option<&'static str>,
}

impl Network {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let mut network = Self::default();
        for name in FIELDS {
            for (part, _, node) in fields.present(name) {
                if part.included && has_variable(node) {
                    network.elsewhere.get_or_insert(name);
                }
                let merged = network.fields.entry(name).or_insert(Json::Null);
                merge(merged, normal(name, json(&part.document, node)));
            }
        }
        for (name, value) in fields.pairs("sysctls") {
            if name.text.starts_with("net.") {
                network.sysctls.insert(name.text, value.text.into());
            }
        }
        network
    }

    /// Names of the fields that are set.
    pub(super) fn given(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// `links`: services and aliases.
    pub(super) fn links(&self) -> Vec<(&str, &str)> {
        let links = self.fields.get("links").and_then(Json::as_array);
        let links = links.into_iter().flatten().filter_map(Json::as_str);
        links.map(|link| link.split_once(':').unwrap_or((link, link))).collect()
    }
}

/// A value in a normal form that can be merged.
fn normal(name: &str, value: Json) -> Json {
    match (name, value) {
        ("networks", Json::Array(names)) => {
            let names = names.into_iter().filter_map(|name| name.as_str().map(str::to_owned));
            Json::Object(names.map(|name| (name, Json::Null)).collect())
        }
        ("extra_hosts", Json::Object(hosts)) => hosts
            .into_iter()
            .flat_map(|(host, addresses)| {
                let addresses = match addresses {
                    Json::Array(addresses) => addresses,
                    one => vec![one],
                };
                addresses
                    .into_iter()
                    .filter_map(move |address| Some(format!("{host}:{}", address.as_str()?)))
            })
            .collect(),
        ("dns" | "dns_search" | "dns_opt", Json::String(one)) => Json::from(vec![one]),
        (_, value) => value,
    }
}

/// Merges the value of a later file: lists are concatenated, maps merged by key, others replaced.
fn merge(earlier: &mut Json, later: Json) {
    match (earlier, later) {
        (Json::Object(earlier), Json::Object(later)) => {
            for (key, value) in later {
                merge(earlier.entry(key).or_insert(Json::Null), value);
            }
        }
        (Json::Array(earlier), Json::Array(later)) => {
            for value in later {
                if !earlier.contains(&value) {
                    earlier.push(value);
                }
            }
        }
        (_, Json::Null) => {}
        (earlier, later) => *earlier = later,
    }
}

/// A value for the override, with variables.
fn json(document: &Document, node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value, _) => (*value).into(),
        Value::Number(text) => match text.parse::<i64>() {
            Ok(number) => number.into(),
            // Kept as written: `1.10` is not 1.1.
            Err(_) => text.to_string().into(),
        },
        Value::String(text) => text.to_string().into(),
        Value::Seq(items) => items.iter().map(|node| json(document, node)).collect(),
        Value::Map(entries) => {
            let kept = entries
                .iter()
                .filter(|(key, node)| !has_tag(document, key, node, "!reset"));
            let kept = kept.map(|(key, node)| (key.text.to_string(), json(document, node)));
            Json::Object(kept.collect())
        }
    }
}

fn has_variable(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Bool(..) | Value::Number(_) => false,
        Value::String(text) => text.replace("$$", "").contains('$'),
        Value::Seq(items) => items.iter().any(has_variable),
        Value::Map(entries) => entries.iter().any(|(_, node)| has_variable(node)),
    }
}
