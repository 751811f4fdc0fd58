//! Checks that a namespace has at most one PeerAuthentication without selector.

use crate::api::FieldPath;
use crate::diag::Code;
use crate::mesh::directory::Directory;
use crate::mesh::directory::entry::InForce;
use crate::mesh::lower::Finding;
use crate::name::{Kind, ObjectId};

/// Checks a PeerAuthentication. Of several without selector in a namespace, the one with the
/// lowest [`Rank`](crate::mesh::Rank) applies.
pub(super) fn check(directory: &Directory, written: &InForce) -> Vec<Finding> {
    let Some(policy) = written
        .form
        .peer_authentication()
        .filter(|policy| policy.selector.is_none())
    else {
        return Vec::new();
    };
    let scope = (Kind::PeerAuthentication, policy.id.namespace.clone());
    let general = |id: &&ObjectId| {
        let form = directory.form(id).and_then(|form| form.peer_authentication());
        form.is_some_and(|policy| policy.selector.is_none())
    };
    let all = directory.index.policies.get(&scope).filter(general);
    let Some(first) = all.min_by_key(|id| directory.entry(id).map(|entry| &entry.rank)) else {
        return Vec::new();
    };
    if *first == policy.id {
        return Vec::new();
    }
    let message =
        format!("{first} already applies to the whole namespace and takes precedence: this one has no effect");
    let mut finding = Finding::new(Code::SchemaWarning, &FieldPath::root(), message);
    finding
        .related(first, FieldPath::root(), "this one is in effect")
        .help("remove one of them, or add a `selector` to this one");
    vec![finding]
}
