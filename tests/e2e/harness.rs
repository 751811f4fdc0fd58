//! What the scenarios are written with: a mesh on loopback addresses, clients, backends and load.

mod backend;
mod client;
mod load;
mod network;
mod plane;
mod wait;

pub use backend::Backend;
pub use client::{Answer, Call, get};
pub use load::Load;
pub use network::Network;
pub use plane::{Plane, Sidecar};
pub use wait::eventually;
