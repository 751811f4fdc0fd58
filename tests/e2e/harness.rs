//! Test harness: a mesh on loopback addresses, clients, backends and load.

#[path = "harness/ads.rs"]
pub mod ads;
#[path = "harness/alone.rs"]
pub mod alone;
#[path = "harness/backend.rs"]
mod backend;
#[path = "harness/client.rs"]
mod client;
#[path = "harness/collector.rs"]
mod collector;
#[path = "harness/compare.rs"]
mod compare;
#[path = "harness/frame_host.rs"]
pub mod frame_host;
#[path = "harness/frames.rs"]
pub mod frames;
#[path = "harness/load.rs"]
mod load;
#[path = "harness/mesh.rs"]
mod mesh;
#[path = "harness/name_server.rs"]
pub mod name_server;
#[path = "harness/network.rs"]
mod network;
#[path = "harness/plane.rs"]
mod plane;
#[path = "harness/scripted.rs"]
pub mod scripted;
#[path = "harness/server.rs"]
mod server;
#[path = "harness/tls.rs"]
pub mod tls;
#[path = "harness/wait.rs"]
mod wait;
#[path = "harness/wire.rs"]
pub mod wire;

pub use ads::{Ads, World};
pub use alone::Alone;
pub use backend::Backend;
pub use client::{Answer, Call, answering, get};
pub use collector::Collector;
pub use compare::lasting;
pub use load::Load;
pub use mesh::{App, Mesh, Workload};
pub use network::Network;
pub use plane::{Plane, Planes, Sidecar};
pub use server::{Server, run, topsail};
pub use tls::Identity;
pub use wait::eventually;
