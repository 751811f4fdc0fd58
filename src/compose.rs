//! Docker Compose projects: reads the parts of compose files relevant to the mesh, and generates
//! what adds sidecars to them.
//!
//! ```text
//! compose files ──read──> Project ──plan──> Plan ──┬─additions──> the override file
//!                                                  └─objects────> Istio YAML for the control plane
//! ```
//!
//! The [Compose specification](https://github.com/compose-spec/compose-spec) evolves, so only the
//! few service fields that matter for sidecars are read and all others are ignored. Variables are
//! not interpolated: `${…}` is left to Compose, and reported where its value is needed.

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
