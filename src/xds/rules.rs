//! What Envoy would refuse, found before it is sent.
//!
//! First the rules that Envoy's own API declares for its fields (`validate.rules`), in all messages of a
//! resource, `Any` included; then what Envoy checks beyond them when it takes a resource in use. Only
//! what depends on the proxy's host (a port in use, a file that is missing) is left to Envoy.

mod cluster;
mod fields;
mod listener;
mod route;

use std::fmt;

use super::resource::{Resource, ResourceType};

/// A rule that a resource breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleBreak {
    /// The field, from the resource on: `filter_chains[0].filters[0].typed_config.stat_prefix`.
    pub path: String,
    /// What the rule asks for, as the end of a sentence about the field.
    pub rule: String,
}

impl fmt::Display for RuleBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path, self.rule)
    }
}

/// Whether regular expressions are compiled to see whether they are some. It costs more than all other rules; who compiles
/// them anyway leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regexes {
    /// They are.
    Compiled,
    /// They are not.
    Left,
}

/// Holds a resource against Envoy's rules.
///
/// # Errors
/// Every rule that it breaks.
pub fn check(resource: &Resource) -> Result<(), Vec<RuleBreak>> {
    let broken = check_body(resource.kind, &resource.body, Regexes::Compiled);
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// The rules that a serialised resource breaks.
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

/// The rules that Envoy's API declares for its fields and that a serialised message of this type breaks.
pub fn check_fields(type_url: &str, body: &[u8]) -> Vec<RuleBreak> {
    fields::check(type_url, body)
}

/// Holds a route configuration against the rules, most of whose virtual hosts were held against them before: `news`
/// is the same without those, `domains` are the domains of all.
///
/// # Errors
/// Every rule that it breaks.
pub fn check_route<'a>(
    resource: &Resource,
    news: &[u8],
    domains: impl Iterator<Item = &'a str>,
) -> Result<(), Vec<RuleBreak>> {
    let fine = check_body(resource.kind, news, Regexes::Compiled).is_empty();
    match fine && route::are_distinct(domains) {
        true => Ok(()),
        // Says where.
        false => check(resource),
    }
}

/// A break at a path.
fn breaks(path: impl Into<String>, rule: impl Into<String>) -> RuleBreak {
    RuleBreak {
        path: path.into(),
        rule: rule.into(),
    }
}
