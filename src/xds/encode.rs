//! Encodes the IR as Envoy messages: pure functions, one module per resource and per filter.
//!
//! The output resembles istiod's, without extensions that exist only in Istio's Envoy build, so
//! that Istio's tools can read it. Each encoder consists of `message`, which builds the typed
//! message, and a function named like the module, which serializes it into a [`Resource`].

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

/// Serializes a message deterministically: equal messages have equal bytes.
fn seal(kind: ResourceType, name: &ResourceName, message: &impl Message, origins: &Origins) -> Resource {
    let mut body = message.encode_to_vec();
    canonical::sort_maps(kind.type_url(), &mut body);
    Resource::new(kind, name.clone(), body, origins.clone())
}
