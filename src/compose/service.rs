//! The fields of a compose service that are relevant for its sidecar.

use super::fields::{Fields, Item, Spot};
use super::network::Network;
use super::port::{self, Port};
use crate::source::node::Value;

/// A service of a project.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name, at its first definition.
    pub name: Spot,
    /// `image`.
    pub image: Option<Spot>,
    /// `network_mode`.
    pub(super) network_mode: Option<Spot>,
    /// `networks`; empty means `default`.
    pub(super) networks: Vec<Spot>,
    /// `ports`: published ports.
    pub(super) ports: Vec<Port>,
    /// `expose`.
    pub(super) expose: Vec<Port>,
    /// Whether the service declares its ports, or cannot be parsed: its image is then not
    /// consulted.
    pub(super) states_ports: bool,
    /// `labels`.
    pub(super) labels: Vec<(Spot, Spot)>,
    /// Network settings, as a pod would take them over.
    pub(super) network: Network,
    /// `container_name`, an additional DNS name.
    pub(super) container_name: Option<Spot>,
    /// The names of `depends_on`.
    pub(super) depends_on: Vec<Spot>,
    /// Optional ones: `required: false`.
    pub(super) optional: Vec<String>,
    /// Services in `links`, which Compose starts first as well.
    pub(super) links: Vec<Spot>,
    /// `profiles`.
    pub(super) profiles: Vec<Spot>,
    /// `user`.
    pub(super) user: Option<Spot>,
    /// `scale`, or `deploy.replicas`.
    pub(super) replicas: Option<Spot>,
    /// `cap_add`.
    pub(super) capabilities: Vec<Spot>,
    /// `privileged`, if true.
    pub(super) privileged: Option<Spot>,
}

impl Service {
    pub(super) fn read(name: Spot, mut fields: Fields<'_>) -> Self {
        let scale = fields.scalar("scale");
        let privileged = fields.scalar("privileged");
        let ports = fields.list("ports");
        let expose = fields.list("expose");
        let states_ports = fields.parts.is_empty() || fields.is_given("ports") || fields.is_given("expose");
        Self {
            name,
            image: fields.scalar("image"),
            network_mode: fields.scalar("network_mode"),
            networks: fields.names("networks"),
            ports: port::read(&ports, fields.problems),
            expose: port::read(&expose, fields.problems),
            states_ports,
            labels: fields.pairs("labels"),
            network: Network::read(&mut fields),
            container_name: fields.scalar("container_name"),
            optional: optional(&fields),
            depends_on: fields.names("depends_on"),
            links: fields.texts("links").into_iter().map(without_alias).collect(),
            profiles: fields.texts("profiles"),
            user: fields.scalar("user"),
            replicas: scale.or_else(|| fields.inner("deploy", "replicas")),
            capabilities: fields.texts("cap_add"),
            privileged: privileged.filter(|privileged| privileged.as_bool() == Some(true)),
        }
    }
}

/// Names in `depends_on` whose last definition has `required: false`.
fn optional(fields: &Fields<'_>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (part, _, node) in fields.present("depends_on") {
        let Value::Map(entries) = &node.value else { continue };
        for (key, node) in entries {
            let item = Item {
                document: &part.document,
                node,
            };
            let Some(required) = item.get("required") else { continue };
            found.retain(|name| **name != *key.text);
            if required.as_bool() == Some(false) {
                found.push(key.text.to_string());
            }
        }
    }
    found
}

/// `SERVICE:ALIAS`.
fn without_alias(link: Spot) -> Spot {
    let text = link.text.split(':').next().unwrap_or_default().to_owned();
    Spot { text, ..link }
}
