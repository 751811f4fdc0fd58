//! Requests and responses of both protocol variants.

use std::num::TryFromIntError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::{Message, Name as _};

use super::{Name, Refused};
use crate::xds::pb::core::Node;
use crate::xds::pb::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use crate::xds::pb::rpc;
use crate::xds::pb::wkt;
use crate::xds::resource::{ResourceType, Version};
use crate::xds::schema::{WireValue, wire_fields};

/// `google.rpc.Code.INTERNAL`, used in Envoy's NACKs.
const INTERNAL: i32 = 13;

/// Protocol variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Delta (incremental).
    Delta,
    /// State of the world.
    Sotw,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Delta.
    Delta(Box<DeltaDiscoveryRequest>),
    /// SotW.
    Sotw(Box<DiscoveryRequest>),
}

/// A parsed response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The type.
    pub kind: ResourceType,
    /// SotW: version of the response.
    pub version: String,
    /// Nonce for the ACK or NACK.
    pub nonce: String,
    /// Well-formed resources.
    pub resources: Vec<Received>,
    /// Resources without content: heartbeats, which only restart the TTL.
    pub heartbeats: Vec<Heartbeat>,
    /// Delta: names of removed resources.
    pub removed: Vec<Name>,
    /// Malformed resources, or of another type.
    pub malformed: Vec<Refused>,
}

/// A received resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The name.
    pub name: Name,
    /// The version; in SotW, which has no per-resource versions, a hash of the content.
    pub version: Version,
    /// The serialized message.
    pub body: Bytes,
    /// How long it is valid without a heartbeat (`Resource.ttl`); `None`: until it is removed.
    pub ttl: Option<Duration>,
}

/// A restart of the TTL of an unchanged resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The name.
    pub name: Name,
    /// Delta: the version it is for.
    pub version: Option<Version>,
    /// The TTL from now on.
    pub ttl: Option<Duration>,
}

/// Why a response is unusable.
#[derive(Debug, thiserror::Error)]
pub enum BadResponse {
    /// It cannot be parsed.
    #[error("invalid response from the server: {0}")]
    Unreadable(#[from] prost::DecodeError),
    /// Its type is unknown.
    #[error("the server's response has the type `{0}`, which was not requested")]
    UnknownType(String),
}

impl Request {
    /// A delta request; an empty `nonce` means that it is not an ACK.
    pub(super) fn delta(kind: ResourceType, nonce: &str) -> Self {
        Request::Delta(Box::new(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        }))
    }

    /// A SotW request.
    pub(super) fn sotw(kind: ResourceType, names: Vec<String>, version: &str, nonce: &str) -> Self {
        Request::Sotw(Box::new(DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names: names,
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        }))
    }

    /// Adds changes of the subscription; delta only.
    pub(super) fn subscribing<'a>(
        mut self,
        new: impl Iterator<Item = &'a Name>,
        gone: impl Iterator<Item = &'a Name>,
        known: impl Iterator<Item = (&'a Name, &'a Version)>,
    ) -> Self {
        if let Request::Delta(request) = &mut self {
            request.resource_names_subscribe = new.map(ToString::to_string).collect();
            request.resource_names_unsubscribe = gone.map(ToString::to_string).collect();
            request.initial_resource_versions = known.map(|(n, v)| (n.to_string(), v.to_string())).collect();
        }
        self
    }

    /// Turns the request into a NACK, if there is a reason.
    pub(super) fn with_error(mut self, reason: Option<String>) -> Self {
        let status = reason.map(|message| rpc::Status {
            code: INTERNAL,
            message,
            details: Vec::new(),
        });
        match &mut self {
            Request::Delta(request) => request.error_detail = status,
            Request::Sotw(request) => request.error_detail = status,
        }
        self
    }

    /// Adds the node.
    pub(super) fn with_node(mut self, node: Node) -> Self {
        match &mut self {
            Request::Delta(request) => request.node = Some(node),
            Request::Sotw(request) => request.node = Some(node),
        }
        self
    }

    /// Serialized form.
    pub fn encode(&self) -> Bytes {
        match self {
            Request::Delta(request) => request.encode_to_vec().into(),
            Request::Sotw(request) => request.encode_to_vec().into(),
        }
    }
}

impl Response {
    /// Parses a response.
    ///
    /// # Errors
    ///
    /// If it is unusable.
    pub fn decode(variant: Variant, bytes: Bytes) -> Result<Self, BadResponse> {
        match variant {
            Variant::Delta => Self::delta(DeltaDiscoveryResponse::decode(bytes)?),
            Variant::Sotw => Self::sotw(DiscoveryResponse::decode(bytes)?),
        }
    }

    fn empty(type_url: String, version: String, nonce: String) -> Result<Self, BadResponse> {
        Ok(Self {
            kind: ResourceType::from_type_url(&type_url).ok_or(BadResponse::UnknownType(type_url))?,
            version,
            nonce,
            resources: Vec::new(),
            heartbeats: Vec::new(),
            removed: Vec::new(),
            malformed: Vec::new(),
        })
    }

    fn delta(response: DeltaDiscoveryResponse) -> Result<Self, BadResponse> {
        let mut read = Self::empty(response.type_url, response.system_version_info, response.nonce)?;
        read.removed = response.removed_resources.into_iter().map(Arc::from).collect();
        for resource in response.resources {
            let version = Some(Version::from_text(resource.version.clone()));
            read.take_wrapped(version, resource);
        }
        Ok(read)
    }

    fn sotw(response: DiscoveryResponse) -> Result<Self, BadResponse> {
        let mut read = Self::empty(response.type_url, response.version_info, response.nonce)?;
        for any in response.resources {
            if any.type_url == Resource::type_url() {
                read.take_wrapped(None, Resource::decode(&*any.value)?);
            } else {
                read.take(own_name(&any.value).unwrap_or_default().into(), None, None, any);
            }
        }
        Ok(read)
    }

    /// Adds a resource in a `Resource` wrapper: always in delta, in SotW if it has a TTL.
    fn take_wrapped(&mut self, version: Option<Version>, resource: Resource) {
        let name: Name = resource.name.into();
        let Ok(ttl) = resource.ttl.map(duration).transpose() else {
            let why = "ttl: is negative".to_owned();
            return self.malformed.push(Refused { name, why });
        };
        match resource.resource {
            Some(any) => self.take(name, version, ttl, any),
            None => self.heartbeats.push(Heartbeat { name, version, ttl }),
        }
    }

    fn take(&mut self, name: Name, version: Option<Version>, ttl: Option<Duration>, any: wkt::Any) {
        if any.type_url != self.kind.type_url() {
            let why = format!("the resource is of the type `{}`", any.type_url);
            return self.malformed.push(Refused { name, why });
        }
        self.resources.push(Received {
            version: version.unwrap_or_else(|| Version::of(&any.value)),
            name,
            body: any.value.into(),
            ttl,
        });
    }
}

/// Converts a duration that is not negative.
fn duration(of: wkt::Duration) -> Result<Duration, TryFromIntError> {
    Ok(Duration::from_secs(of.seconds.try_into()?) + Duration::from_nanos(of.nanos.try_into()?))
}

/// The name in the resource itself, which is field 1 in every type.
fn own_name(message: &[u8]) -> Option<&str> {
    let first = wire_fields(message).flatten().find(|field| field.number == 1)?;
    match first.value {
        WireValue::Bytes(place) => std::str::from_utf8(&message[place]).ok(),
        WireValue::Varint(_) | WireValue::Fixed64(_) | WireValue::Fixed32(_) => None,
    }
}
