//! What takes a Docker engine: the mesh of docker-compose.yml, as `docker compose` and `docker-compose` run it.
//!
//! `cargo test` leaves this suite out; `.ci/docker` builds the images and runs it.

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
