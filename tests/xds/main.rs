//! Conversations of scripted xDS clients with a running control plane, over TLS.

#![cfg(test)]

mod client;
mod control_plane;
mod joining;
mod refusing;
mod restarting;
