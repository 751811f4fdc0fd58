//! A field that changes what happens and that is not implemented is refused, never passed over.
//!
//! [`TABLE`] names every field that the rest of [`config`](super) reads, and those that change nothing here: names,
//! statistics, metadata. Who implements a field adds it to its row.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Refusal;
use crate::xds::coverage::{self, Cover};

mod table;

use table::TABLE;

/// What of a message would be passed over, each field a refusal of its own.
pub(super) fn unread(type_url: &str, bytes: &[u8]) -> Vec<Refusal> {
    let unread = coverage::unread(type_url, bytes, &cover).into_iter().map(|unread| {
        let refusal = Refusal::not_implemented(unread.what);
        unread.path.into_iter().rev().fold(refusal, Refusal::within)
    });
    unread.collect()
}

/// By the table.
fn cover(message: &str, field: &str) -> Cover {
    static INDEX: OnceLock<HashMap<(&str, &str), Cover>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let rows = TABLE.iter().flat_map(|(message, fields)| {
            fields
                .split_whitespace()
                .map(move |field| match field.strip_suffix('*') {
                    Some(field) => ((*message, field), Cover::Whole),
                    None => ((*message, field), Cover::Read),
                })
        });
        rows.collect()
    });
    index.get(&(message, field)).copied().unwrap_or(Cover::Unread)
}
