//! Checks resources against Envoy's validation before they are sent.
//!
//! These are the constraints that Envoy's API declares for its fields (`validate.rules`), applied
//! to all messages in a resource including `Any`s, and the checks Envoy makes beyond them when it
//! loads a resource. Only what depends on the proxy's host, such as ports in use or missing files,
//! is left to Envoy.

mod cluster;
mod fields;
mod listener;
mod route;

use std::fmt;

use super::resource::{Resource, ResourceType};

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleBreak {
    /// Path of the field within the resource:
    /// `filter_chains[0].filters[0].typed_config.stat_prefix`.
    pub path: String,
    /// The rule, worded as the predicate of a sentence about the field.
    pub rule: String,
}

impl fmt::Display for RuleBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path, self.rule)
    }
}

/// Whether regular expressions are compiled to check them, which costs more than all other checks.
/// Callers that compile them anyway can skip it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regexes {
    /// Compile them.
    Compiled,
    /// Skip them.
    Left,
}

/// Validates a resource.
///
/// # Errors
///
/// All violations.
pub fn check(resource: &Resource) -> Result<(), Vec<RuleBreak>> {
    let broken = check_body(resource.kind, &resource.body, Regexes::Compiled);
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// Validates a serialized resource.
pub fn check_body(kind: ResourceType, body: &[u8], regexes: Regexes) -> Vec<RuleBreak> {
    let broken = fields::check(kind.type_url(), body);
    if !broken.is_empty() {
        return broken;
    }
    match kind {
        ResourceType::Cluster => cluster::check(body),
        ResourceType::Endpoints => cluster::check_endpoints(body),
        ResourceType::Listener => listener::check(body, regexes),
        ResourceType::Route => route::check(body, regexes),
        ResourceType::Secret => Vec::new(),
    }
}

/// Checks only the constraints that Envoy's API declares for the fields of a message of this type.
pub fn check_fields(type_url: &str, body: &[u8]) -> Vec<RuleBreak> {
    fields::check(type_url, body)
}

/// Validates a route configuration most of whose virtual hosts have been validated before: `news`
/// is the configuration without those, `domains` are the domains of all virtual hosts.
///
/// # Errors
///
/// All violations.
pub fn check_route<'a>(
    resource: &Resource,
    news: &[u8],
    domains: impl Iterator<Item = &'a str>,
) -> Result<(), Vec<RuleBreak>> {
    let fine = check_body(resource.kind, news, Regexes::Compiled).is_empty();
    match fine && route::are_distinct(domains) {
        true => Ok(()),
        // The full check locates the duplicate.
        false => check(resource),
    }
}

/// A violation at a path.
fn breaks(path: impl Into<String>, rule: impl Into<String>) -> RuleBreak {
    RuleBreak {
        path: path.into(),
        rule: rule.into(),
    }
}
