//! What a user may write: one file per kind, serde types without meaning, and the reading of
//! documents into them.
//!
//! [`read()`] turns a document into [`Object`]s and says all that is wrong with it. [`kinds`] is the
//! table of what is read and what is not. What a field means, and whether its value makes sense,
//! is decided later: here a field has a name and a type.

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
