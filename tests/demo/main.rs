//! `topsail demo`: the built binary with six sidecars and real requests.
//!
//! Each test has its own loopback addresses and directories, so that it can run beside a demo and other
//! tests.

#![cfg(test)]

#[path = "../e2e/harness/network.rs"]
pub mod network;
pub mod refused;
pub mod run;
pub mod stage;
#[path = "../e2e/harness/wait.rs"]
pub mod wait;
