//! Tests that require a Docker engine: the mesh of docker-compose.yml with `docker compose` and
//! `docker-compose`.
//!
//! `cargo test` does not run this suite; `.ci/docker` builds the images and runs it.

#![cfg(test)]

pub mod bookinfo;
pub mod capture;
mod dashboard;
mod documentation;
pub mod engine;
mod figures;
#[path = "../e2e/harness.rs"]
pub mod harness;
mod inject;
