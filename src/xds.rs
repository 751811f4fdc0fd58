//! xDS: encodes the IR as Envoy resources and implements the discovery protocol, server and client
//! side. All use of Envoy's protobuf types is in this module and in `proxy::config`.

mod canonical;
pub mod client;
pub mod coverage;
pub mod encode;
pub mod grpc_health;
pub mod joining;
pub mod json;
pub mod node;
pub mod otlp;
pub mod pb;
pub mod resource;
pub mod rules;
mod schema;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod transcode;
pub mod wire;

pub use resource::{Resource, ResourceType, Version};
