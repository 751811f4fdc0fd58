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

/// Holds a resource against Envoy's rules.
///
/// # Errors
/// Every rule that it breaks.
pub fn check(resource: &Resource) -> Result<(), Vec<RuleBreak>> {
    let mut broken = fields::check(resource.kind.type_url(), &resource.body);
    if broken.is_empty() {
        broken = match resource.kind {
            ResourceType::Cluster => cluster::check(&resource.body),
            ResourceType::Endpoints => cluster::check_endpoints(&resource.body),
            ResourceType::Listener => listener::check(&resource.body),
            ResourceType::Route => route::check(&resource.body),
            ResourceType::Secret => Vec::new(),
        };
    }
    if broken.is_empty() { Ok(()) } else { Err(broken) }
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
    let fine = fields::check(resource.kind.type_url(), news).is_empty() && route::check(news).is_empty();
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
