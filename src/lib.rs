//! Topsail: a service mesh control plane without Kubernetes.
//!
//! A directory of Istio-style YAML becomes Envoy xDS. Data flows one way, each layer turning one
//! type into the next:
//!
//! ```text
//! files ─source→ Document ─api→ Object ─mesh→ Mesh ─ir→ NodeConfig ─xds→ DiscoveryResponse
//! ```
//!
//! Everything between the file watch and the sockets is plain functions over immutable values.
//! `tests/architecture.rs` enforces which room may import which.

pub mod admin;
pub mod api;
pub mod cli;
pub mod clock;
pub mod compose;
pub mod control;
pub mod diag;
pub mod envoy;
pub mod interception;
pub mod ir;
pub mod lifecycle;
pub mod mesh;
pub mod name;
pub mod pki;
pub mod proxy;
pub mod source;
pub mod telemetry;
pub mod tls;
pub mod xds;
