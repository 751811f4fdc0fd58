//! The configuration objects as users write them: one module per kind with its serde types, and the
//! parser from documents to these types.
//!
//! [`read()`] parses a document into [`Object`]s and reports every problem in it. [`kinds`] is the
//! table of supported and unsupported kinds. This layer checks names and types only; the meaning
//! and validity of values is determined by [`mesh`](crate::mesh).

pub mod config_map;
mod de;
pub mod destination_rule;
pub mod endpoint_slice;
pub mod endpoints;
pub mod field_path;
pub mod kinds;
pub mod mesh_config;
pub mod object;
pub mod peer_authentication;
mod place;
mod read;
pub mod selector;
pub mod service;
pub mod service_entry;
pub mod sidecar;
pub mod suggest;
pub mod value;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

pub use field_path::FieldPath;
pub use object::{Object, Places, Precedence, Spec};
pub use read::{Read, ReadOptions, read};
