//! Serialization of accepted resources for the next start: one length-delimited
//! `DeltaDiscoveryResponse` per resource.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use prost::Message;

use super::Name;
use super::message::Received;
use crate::xds::pb::discovery::{DeltaDiscoveryResponse, Resource};
use crate::xds::pb::wkt::Any;
use crate::xds::{ResourceType, Version};

/// Serializes a resource.
pub fn encode(kind: ResourceType, name: &Name, version: &Version, body: &Bytes) -> Vec<u8> {
    let resource = Resource {
        name: name.to_string(),
        version: version.to_string(),
        resource: Some(Any {
            type_url: kind.type_url().to_owned(),
            value: body.to_vec(),
        }),
        ..Default::default()
    };
    let response = DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        resources: vec![resource],
        ..Default::default()
    };
    response.encode_length_delimited_to_vec()
}

/// Parses a sequence of resources. `None` if it is malformed or has an unknown type.
pub fn decode(mut bytes: Bytes) -> Option<Vec<(ResourceType, Received)>> {
    let mut all = Vec::new();
    while bytes.has_remaining() {
        let response = DeltaDiscoveryResponse::decode_length_delimited(&mut bytes).ok()?;
        let kind = ResourceType::from_type_url(&response.type_url)?;
        all.extend(response.resources.into_iter().map(|one| (kind, received(one))));
    }
    Some(all)
}

fn received(resource: Resource) -> Received {
    Received {
        name: Arc::from(resource.name),
        version: Version::from_text(resource.version),
        body: resource.resource.unwrap_or_default().value.into(),
        // No server is there to send heartbeats.
        ttl: None,
    }
}
