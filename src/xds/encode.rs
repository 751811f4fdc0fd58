//! What a node needs, as Envoy's messages: pure functions, one file per resource and per filter.
//!
//! The shape is istiod's, without the extensions that only Istio's build of Envoy has, so that Istio's
//! tools read it. Every encoder has two halves: `message` makes the typed message, and the function of
//! the same name as the module seals it into a [`Resource`].

mod cluster;
mod endpoints;
mod filter;
mod listener;
mod route;
mod secret;
#[cfg(test)]
mod testing;
mod tls;
mod value;

pub use cluster::cluster;
pub use endpoints::endpoints;
pub use listener::listener;
pub use route::{EncodedRoute, Reencoded, route};
pub use secret::{certificate, file_secrets, trust_bundle};
pub use tls::{SECRET_CERTIFICATE, SECRET_TRUST_BUNDLE};

use prost::Message;

use super::canonical;
use super::resource::{Resource, ResourceType};
use crate::ir::{Origins, ResourceName};

/// Serialises a message, for good: equal messages get equal bytes.
fn seal(kind: ResourceType, name: &ResourceName, message: &impl Message, origins: &Origins) -> Resource {
    let mut body = message.encode_to_vec();
    canonical::sort_maps(kind.type_url(), &mut body);
    Resource::new(kind, name.clone(), body, origins.clone())
}
