//! `topsail demo` as it is run: the built binary, six sidecars, real requests.
//!
//! Each test has loopback addresses and folders of its own, so that it can run beside a demo and beside others.

#![cfg(test)]

#[path = "../e2e/harness/network.rs"]
pub mod network;
pub mod refused;
pub mod run;
pub mod stage;
#[path = "../e2e/harness/wait.rs"]
pub mod wait;
