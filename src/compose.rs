//! Compose projects: what their files say that matters to a mesh, and what has to be added to them.
//!
//! ```text
//! compose files ──read──> Project ──plan──> Plan ──┬─additions──> the override file
//!                                                  └─objects────> Istio YAML for the control plane
//! ```
//!
//! The [Compose specification](https://github.com/compose-spec/compose-spec) grows, so that of a service the few
//! fields are read that decide about its sidecar, and all others are passed over. Nothing is interpolated: `${…}` stays
//! for compose, and where a value is needed that holds one, that is said.

mod additions;
mod container;
mod fields;
mod image;
mod label;
mod marked;
mod name;
mod network;
mod objects;
mod plan;
mod pod;
mod port;
mod project;
mod read;
mod service;
#[cfg(test)]
mod tests;
mod ties;
mod version;

pub use additions::{Override, additions};
pub use marked::{Marked, State as MarkedState};
pub use objects::objects;
pub use plan::{Choice, Plan, Planned, plan};
pub use pod::Pod;
pub use port::{ListenPort, Protocol};
pub use project::{Project, read};
pub use service::Service;
pub use version::{NoVersion, Version};
