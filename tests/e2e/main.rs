//! End-to-end tests: the `topsail` binary with real proxies, serving real requests.
//!
//! Each test has its own loopback network and directory, so that tests can run in parallel, and
//! stops every process it starts. A proxy that logs a warning fails its test.

#![cfg(test)]

mod absent;
mod access_logs;
mod addresses;
mod admin;
mod answers;
mod away;
mod balance;
mod bookinfo;
mod broken;
mod connect;
mod copies;
mod counters;
mod credentials;
mod deadlines;
mod destination_rules;
mod edits;
mod egress_proxy;
mod filter_settings;
mod gateways;
mod grpc;
mod grpc_web;
pub mod harness;
mod health_checks;
mod hostile_frames;
mod hostile_hosts;
mod hostile_requests;
mod interim;
mod layer_four;
mod log_connections;
mod long_connections;
mod lying_hosts;
mod memory;
mod metrics;
mod mutual_tls;
mod names;
mod oddities;
mod origination;
mod outliers;
mod passthrough;
mod pieces;
mod proxy_protocol;
mod registration;
mod resets;
pub mod restart;
mod retries;
mod route_actions;
mod route_matches;
mod scarce;
mod seed;
#[path = "../../examples/bookinfo/services.rs"]
pub mod services;
mod settings;
mod stat_names;
mod static_bootstrap;
mod tracing;
mod transports;
mod tunnels;
mod undeclared;
mod upstream_policies;
pub mod web;
mod xds_faults;
