//! All that knows Envoy's protobuf: what a node needs becomes resources, resources become streams.

mod canonical;
pub mod client;
pub mod coverage;
pub mod encode;
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
