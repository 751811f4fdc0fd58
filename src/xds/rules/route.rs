//! Envoy's checks of route configurations beyond field constraints.

use std::borrow::Cow;
use std::collections::HashSet;

use prost::Message;
use regex::Regex;

use super::{Regexes, RuleBreak, breaks};
use crate::xds::pb::core::HeaderValueOption;
use crate::xds::pb::matcher::RegexMatcher;
use crate::xds::pb::matcher::string_matcher::MatchPattern;
use crate::xds::pb::route::header_matcher::HeaderMatchSpecifier;
use crate::xds::pb::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use crate::xds::pb::route::route::Action;
use crate::xds::pb::route::route_action::ClusterSpecifier;
use crate::xds::pb::route::route_match::PathSpecifier;
use crate::xds::pb::route::{Route, RouteAction, RouteConfiguration, RouteMatch, WeightedCluster};

/// Validates a route configuration.
pub(super) fn check(bytes: &[u8], regexes: Regexes) -> Vec<RuleBreak> {
    match RouteConfiguration::decode(bytes) {
        Ok(config) => check_config(&config, "", regexes),
        Err(_) => vec![breaks("", "cannot be read")],
    }
}

/// Validates a route configuration at a path within a listener.
pub(super) fn check_config(config: &RouteConfiguration, path: &str, regexes: Regexes) -> Vec<RuleBreak> {
    let mut broken = domains(config, path);
    for (at, host) in config.virtual_hosts.iter().enumerate() {
        for (index, route) in host.routes.iter().enumerate() {
            let route_path = format!("{path}virtual_hosts[{at}].routes[{index}]");
            Checker {
                path: route_path,
                regexes,
                broken: &mut broken,
            }
            .route(route);
        }
    }
    broken
}

/// Domains must be unique across virtual hosts.
fn domains(config: &RouteConfiguration, path: &str) -> Vec<RuleBreak> {
    let mut seen = HashSet::new();
    let mut broken = Vec::new();
    for (at, host) in config.virtual_hosts.iter().enumerate() {
        for (index, domain) in host.domains.iter().enumerate() {
            if !seen.insert(domain.to_ascii_lowercase()) {
                let rule = format!("must not repeat the domain `{domain}`");
                broken.push(breaks(format!("{path}virtual_hosts[{at}].domains[{index}]"), rule));
            }
        }
    }
    broken
}

/// Whether all domains are distinct, ignoring case. Optimised for lower-case ones.
pub(super) fn are_distinct<'a>(domains: impl Iterator<Item = &'a str>) -> bool {
    let mut seen: HashSet<Cow<'a, str>> = HashSet::new();
    let mut lower = domains.map(|domain| match domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(domain.to_ascii_lowercase()),
        false => Cow::Borrowed(domain),
    });
    lower.all(|domain| seen.insert(domain))
}

struct Checker<'a> {
    path: String,
    regexes: Regexes,
    broken: &'a mut Vec<RuleBreak>,
}

impl Checker<'_> {
    fn route(&mut self, route: &Route) {
        if let Some(matcher) = &route.r#match {
            self.matcher(matcher);
        }
        self.headers(
            "request_headers",
            &route.request_headers_to_add,
            &route.request_headers_to_remove,
        );
        self.headers(
            "response_headers",
            &route.response_headers_to_add,
            &route.response_headers_to_remove,
        );
        match &route.action {
            Some(Action::Route(action)) => self.action(action),
            Some(
                Action::Redirect(_)
                | Action::DirectResponse(_)
                | Action::FilterAction(_)
                | Action::NonForwardingAction(_),
            )
            | None => {}
        }
    }

    fn matcher(&mut self, matcher: &RouteMatch) {
        if let Some(PathSpecifier::SafeRegex(regex)) = &matcher.path_specifier {
            self.regex("match.safe_regex", regex);
        }
        for (at, header) in matcher.headers.iter().enumerate() {
            if let Some(HeaderMatchSpecifier::StringMatch(text)) = &header.header_match_specifier {
                self.pattern(
                    &format!("match.headers[{at}].string_match"),
                    text.match_pattern.as_ref(),
                );
            }
        }
        for (at, parameter) in matcher.query_parameters.iter().enumerate() {
            if let Some(QueryParameterMatchSpecifier::StringMatch(text)) = &parameter.query_parameter_match_specifier {
                self.pattern(
                    &format!("match.query_parameters[{at}].string_match"),
                    text.match_pattern.as_ref(),
                );
            }
        }
    }

    fn pattern(&mut self, field: &str, pattern: Option<&MatchPattern>) {
        if let Some(MatchPattern::SafeRegex(regex)) = pattern {
            self.regex(&format!("{field}.safe_regex"), regex);
        }
    }

    fn regex(&mut self, field: &str, matcher: &RegexMatcher) {
        if self.regexes == Regexes::Compiled
            && let Err(error) = Regex::new(&matcher.regex)
        {
            self.report(field, format!("must be a regular expression: {error}"));
        }
    }

    fn headers(&mut self, field: &str, add: &[HeaderValueOption], remove: &[String]) {
        let fixed = |name: &str| name.starts_with(':') || name.eq_ignore_ascii_case("host");
        let added = add
            .iter()
            .filter_map(|option| option.header.as_ref())
            .map(|header| &header.key);
        for name in added.filter(|name| fixed(name)) {
            self.report(&format!("{field}_to_add"), format!("must not change `{name}`"));
        }
        for name in remove.iter().filter(|name| fixed(name)) {
            self.report(&format!("{field}_to_remove"), format!("must not remove `{name}`"));
        }
    }

    fn action(&mut self, action: &RouteAction) {
        if let Some(ClusterSpecifier::WeightedClusters(clusters)) = &action.cluster_specifier {
            self.weighted(clusters);
        }
        if let Some(rewrite) = &action.regex_rewrite {
            if let Some(pattern) = &rewrite.pattern {
                self.regex("route.regex_rewrite.pattern", pattern);
            }
            if !action.prefix_rewrite.is_empty() {
                self.report("route.regex_rewrite", "must not be set beside `prefix_rewrite`");
            }
        }
    }

    fn weighted(&mut self, clusters: &WeightedCluster) {
        let sum: u64 = clusters
            .clusters
            .iter()
            .map(|cluster| u64::from(cluster.weight.map_or(0, |w| w.value)))
            .sum();
        if sum == 0 || sum > u64::from(u32::MAX) {
            self.report(
                "route.weighted_clusters",
                format!("must have weights whose sum is 1 to 2^32-1, not {sum}"),
            );
        }
        for cluster in &clusters.clusters {
            self.headers(
                "request_headers",
                &cluster.request_headers_to_add,
                &cluster.request_headers_to_remove,
            );
            self.headers(
                "response_headers",
                &cluster.response_headers_to_add,
                &cluster.response_headers_to_remove,
            );
        }
    }

    fn report(&mut self, field: &str, rule: impl Into<String>) {
        self.broken.push(breaks(format!("{}.{field}", self.path), rule));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::core::HeaderValue;
    use crate::xds::pb::matcher::RegexMatchAndSubstitute;
    use crate::xds::pb::route::VirtualHost;
    use crate::xds::pb::route::weighted_cluster::ClusterWeight;
    use crate::xds::pb::wkt::UInt32Value;

    fn broken(routes: Vec<Route>) -> Vec<String> {
        let config = RouteConfiguration {
            virtual_hosts: vec![VirtualHost {
                routes,
                ..Default::default()
            }],
            ..Default::default()
        };
        check(&config.encode_to_vec(), Regexes::Compiled)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn forward(action: RouteAction) -> Vec<String> {
        broken(vec![Route {
            action: Some(Action::Route(action)),
            ..Default::default()
        }])
    }

    #[test]
    fn domains_do_not_repeat() {
        let host = |domains: &[&str]| VirtualHost {
            domains: domains.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let config = RouteConfiguration {
            virtual_hosts: vec![host(&["a", "*"]), host(&["b", "A"])],
            ..Default::default()
        };
        assert_eq!(
            check_config(&config, "x.", Regexes::Compiled),
            [breaks(
                "x.virtual_hosts[1].domains[1]",
                "must not repeat the domain `A`"
            )]
        );
    }

    #[test]
    fn domains_are_compared_case_insensitively() {
        assert!(are_distinct(["a", "B", "c"].into_iter()));
        assert!(!are_distinct(["a", "b", "B"].into_iter()));
    }

    #[test]
    fn the_sum_of_weights_is_positive_and_fits_in_32_bits() {
        let weighted = |weights: &[u32]| {
            let clusters = weights.iter().map(|weight| ClusterWeight {
                weight: Some(UInt32Value { value: *weight }),
                ..Default::default()
            });
            forward(RouteAction {
                cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                    clusters: clusters.collect(),
                    ..Default::default()
                })),
                ..Default::default()
            })
        };
        assert!(weighted(&[0, 1]).is_empty());
        assert_eq!(weighted(&[0, 0]).len(), 1);
        assert_eq!(weighted(&[u32::MAX, 1]).len(), 1);
    }

    #[test]
    fn regular_expressions_compile() {
        let rewrite = |pattern: &str| {
            forward(RouteAction {
                regex_rewrite: Some(RegexMatchAndSubstitute {
                    pattern: Some(RegexMatcher {
                        regex: pattern.into(),
                        ..Default::default()
                    }),
                    substitution: r"\1".into(),
                }),
                ..Default::default()
            })
        };
        assert!(rewrite("^/(a+)").is_empty());
        assert_eq!(rewrite("(").len(), 1);
    }

    #[test]
    fn host_and_pseudo_headers_cannot_be_modified() {
        let route = Route {
            request_headers_to_add: [":path", "x"]
                .map(|key| HeaderValueOption {
                    header: Some(HeaderValue {
                        key: key.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
                .into(),
            response_headers_to_remove: vec!["Host".into()],
            ..Default::default()
        };
        assert_eq!(
            broken(vec![route]),
            [
                "`virtual_hosts[0].routes[0].request_headers_to_add` must not change `:path`",
                "`virtual_hosts[0].routes[0].response_headers_to_remove` must not remove `Host`",
            ]
        );
    }
}
