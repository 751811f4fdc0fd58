//! All that knows Envoy's protobuf: what a node needs becomes resources, resources become streams.

pub mod resource;

pub use resource::{Resource, ResourceType, Version};
