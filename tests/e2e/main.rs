//! End to end: the built `topsail` with real data planes, serving real requests.
//!
//! Each test has a network of loopback addresses and a folder of its own, so that tests run side by side,
//! and ends every process it started. A data plane that logs a warning fails its test.

#![cfg(test)]

pub mod harness;
mod pieces;
mod undeclared;
