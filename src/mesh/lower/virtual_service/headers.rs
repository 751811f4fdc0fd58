//! Header operations of routes and destinations.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::variables;
use crate::api::FieldPath;
use crate::api::virtual_service::{HeaderOperations, Headers};
use crate::mesh::lower::report::Report;
use crate::mesh::lower::value::is_header_name;
use crate::mesh::virtual_service::{HeaderChanges, HeaderOps};

/// `headers`.
pub(super) fn changes(report: &mut Report<'_>, at: &FieldPath, headers: Option<&Headers>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(headers) = headers else {
        return changes;
    };
    if let Some(request) = &headers.request {
        let at = at.field("request");
        changes.request = operations(report, &at, request, Authority::Rewritten);
        changes.authority = authority(report, &at, request);
    }
    if let Some(response) = &headers.response {
        changes.response = operations(report, &at.field("response"), response, Authority::Refused);
    }
    changes
}

/// Whether `:authority` and `Host` may be set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// They may: the host is rewritten.
    Rewritten,
    /// They may not.
    Refused,
}

fn operations(
    report: &mut Report<'_>,
    at: &FieldPath,
    operations: &HeaderOperations,
    authority: Authority,
) -> HeaderOps {
    for (index, name) in operations.remove.iter().enumerate() {
        operation_name(report, &at.field("remove").index(index), name, Authority::Refused);
    }
    HeaderOps {
        set: values(report, &at.field("set"), &operations.set, authority),
        add: values(report, &at.field("add"), &operations.add, authority),
        remove: operations.remove.iter().map(|name| name.as_str().into()).collect(),
    }
}

/// Names and values, except those that rewrite the host.
fn values(
    report: &mut Report<'_>,
    at: &FieldPath,
    headers: &BTreeMap<String, String>,
    authority: Authority,
) -> Vec<(Arc<str>, Arc<str>)> {
    for (name, value) in headers {
        let at = at.key(name.as_str());
        operation_name(report, &at, name, authority);
        if let Err(why) = variables::check(value) {
            report
                .error(&at, format!("`{value}` is not a valid header value: {why}"))
                .help(
                    "write `%%` for a literal `%`; Envoy variables are enclosed in `%`, as in `%DOWNSTREAM_REMOTE_ADDRESS%`",
                );
        }
    }
    headers
        .iter()
        .filter(|(name, _)| !is_authority(name))
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

/// The value to which `:authority` or `Host` is set.
fn authority(report: &mut Report<'_>, at: &FieldPath, operations: &HeaderOperations) -> Option<Arc<str>> {
    let set = operations.set.iter().map(|entry| ("set", entry));
    let add = operations.add.iter().map(|entry| ("add", entry));
    let mut found: Option<Arc<str>> = None;
    for (field, (name, value)) in set.chain(add).filter(|(_, (name, _))| is_authority(name)) {
        if found.is_some() {
            report.error(
                &at.field(field).key(name.as_str()),
                "the request's host is rewritten twice",
            );
        }
        found = Some(value.as_str().into());
    }
    found
}

fn operation_name(report: &mut Report<'_>, at: &FieldPath, name: &str, authority: Authority) {
    if is_authority(name) {
        if authority == Authority::Refused {
            report
                .error(at, format!("`{name}` cannot be changed here"))
                .help("use `rewrite.authority` to change the host of a request");
        }
    } else if name.starts_with(':') {
        report.error(at, format!("`{name}` cannot be changed: it is part of HTTP itself"));
    } else if !is_header_name(name) {
        report.error(at, format!("`{name}` is not a valid header name"));
    }
}

/// `:authority` or `Host`, case-insensitive.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens() {
        assert!(is_header_name("x-a_1.~"));
        assert!(!is_header_name("") && !is_header_name("x a") && !is_header_name("x:a") && !is_header_name("ä"));
        assert!(is_authority("HOST") && is_authority(":Authority") && !is_authority(":path"));
    }
}
