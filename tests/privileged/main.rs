//! Tests that require root: traffic interception, in network namespaces that act as hosts.
//!
//! `cargo test` does not run this suite; `.ci/privileged` runs it, in a user namespace if not root.

#![cfg(test)]

#[path = "../e2e/harness.rs"]
pub mod harness;
pub mod hosts;
pub mod interception;
mod redirect;
mod sidecars;
pub mod stage;
mod tproxy;
