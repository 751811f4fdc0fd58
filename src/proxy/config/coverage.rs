//! A field that changes what happens and that is not implemented is refused, never passed over.
//!
//! The [`Row`]s name every field that the rest of [`config`](super) reads, and those that change nothing here, with the
//! reason. Who implements a field adds it to the row of its message.

mod bootstrap;
mod clusters;
mod http;
mod listeners;
mod routes;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Refusal;
use crate::xds::coverage::{self, Cover};

/// A message by its full name, the fields of it that are read, and those whose content does not matter, each with why it
/// does not.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Reasons of several.
const NAME: &str = "a name that only people read";
const METADATA: &str = "only read by tools";
const RUNTIME: &str = "runtime overrides do not exist here";

/// What of a message would be passed over, each field a refusal of its own.
pub(super) fn unread(type_url: &str, bytes: &[u8]) -> Vec<Refusal> {
    let unread = coverage::unread(type_url, bytes, &cover).into_iter().map(|unread| {
        let refusal = Refusal::not_implemented(unread.what);
        unread.path.into_iter().rev().fold(refusal, Refusal::within)
    });
    unread.collect()
}

fn rows() -> impl Iterator<Item = &'static Row> {
    let files = [
        bootstrap::ROWS,
        clusters::ROWS,
        http::ROWS,
        listeners::ROWS,
        routes::ROWS,
        shared::ROWS,
    ];
    files.into_iter().flatten()
}

/// By the rows.
fn cover(message: &str, field: &str) -> Cover {
    static INDEX: OnceLock<HashMap<(&str, &str), Cover>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let fields = rows().flat_map(|(message, read, without_effect)| {
            let read = read.split_whitespace().map(|field| (field, Cover::Read));
            let without_effect = without_effect.iter().map(|(field, _)| (*field, Cover::Whole));
            read.chain(without_effect)
                .map(|(field, cover)| ((*message, field), cover))
        });
        fields.collect()
    });
    index.get(&(message, field)).copied().unwrap_or(Cover::Unread)
}
