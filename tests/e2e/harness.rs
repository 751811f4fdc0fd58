//! What the scenarios are written with: a mesh on loopback addresses, clients, backends and load.

mod backend;
mod client;
mod load;
mod mesh;
mod network;
mod plane;
mod server;
mod wait;

pub use backend::Backend;
pub use client::{Answer, Call, get};
pub use load::Load;
pub use mesh::{App, Mesh, Workload};
pub use network::Network;
pub use plane::{Plane, Sidecar};
pub use server::run;
pub use wait::eventually;
