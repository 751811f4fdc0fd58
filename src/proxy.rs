//! The bundled data plane: a sidecar that reads the same bootstrap and the same xDS as Envoy.
//!
//! ```text
//! control thread:  bootstrap, xDS ─config→ compiled listeners, routes, clusters ─Slot→ workers
//! worker threads:  socket → listener → filter chain → HTTP exchange or TCP → cluster → host → pool
//! ```
//!
//! One control thread compiles what the control plane sends into immutable values and publishes each
//! in a `Slot`; every worker is a thread with a runtime, sockets and connection pools of
//! its own, and takes no lock on the way of a request. Protobuf ends in `config`.

pub(crate) mod access_log;
pub(crate) mod admin;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod flags;
pub(crate) mod format;
#[cfg(fuzzing)]
pub mod fuzz;
pub(crate) mod http;
pub(crate) mod io;
pub(crate) mod listener;
pub(crate) mod matcher;
mod run;
pub(crate) mod slot;
pub(crate) mod stats;
pub(crate) mod store;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod trace;
pub(crate) mod turn;
pub(crate) mod upstream;
pub(crate) mod worker;

/// Whether the data plane takes a resource: it reads everything in it that changes what happens, and can do it.
///
/// # Errors
/// Why it would refuse the resource, with the field's name.
pub fn takes(resource: &crate::xds::Resource) -> Result<(), String> {
    config::try_out(resource.kind, &resource.body).map_err(|refusal| refusal.to_string())
}

pub use config::bootstrap::BootstrapError;
pub use run::{NodeOptions, Options, ProxyError, run, validate};
