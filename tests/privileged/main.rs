//! What takes root: interception of a workload's traffic, in network namespaces that stand for machines.
//!
//! `cargo test` leaves this suite out; `.ci/privileged` runs it, in a user namespace where it is not root.

#![cfg(test)]

#[path = "../e2e/harness.rs"]
pub mod harness;
pub mod hosts;
pub mod interception;
mod redirect;
mod sidecars;
pub mod stage;
mod tproxy;
