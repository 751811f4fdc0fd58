//! What a user may write: one file per kind, serde types without meaning, and the reading of
//! documents into them.

pub mod config_map;
pub mod destination_rule;
pub mod endpoint_slice;
pub mod endpoints;
pub mod field_path;
pub mod mesh_config;
pub mod object;
pub mod peer_authentication;
pub mod selector;
pub mod service;
pub mod service_entry;
pub mod sidecar;
pub mod value;
pub mod virtual_service;
pub mod workload_entry;

pub use field_path::FieldPath;
pub use object::{Object, Precedence, Spec};
