//! Scripted xDS clients against a running control plane, over TLS.

#![cfg(test)]

pub mod client;
pub mod control_plane;
mod joining;
pub mod memory;
mod misbehaving;
mod readiness;
mod refusing;
pub mod registering;
mod renewing;
mod restarting;
mod serving;
mod storm;
