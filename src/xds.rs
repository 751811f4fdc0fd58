//! All that knows Envoy's protobuf: what a node needs becomes resources, resources become streams.

pub mod encode;
pub mod node;
pub mod pb;
pub mod resource;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod wire;

pub use resource::{Resource, ResourceType, Version};
