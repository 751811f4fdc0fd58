//! Envoy's checks of listeners beyond field constraints.

use std::collections::HashSet;

use prost::{Message, Name};

use super::{Regexes, RuleBreak, breaks, route};
use crate::xds::pb::http_filter::router::Router;
use crate::xds::pb::listener::{Filter, FilterChain, FilterChainMatch, Listener, filter};
use crate::xds::pb::network_filter::http_connection_manager::http_connection_manager::RouteSpecifier;
use crate::xds::pb::network_filter::http_connection_manager::{HttpConnectionManager, HttpFilter, http_filter};

pub(super) fn check(bytes: &[u8], regexes: Regexes) -> Vec<RuleBreak> {
    let Ok(listener) = Listener::decode(bytes) else {
        return vec![breaks("", "cannot be read")];
    };
    let mut broken = Vec::new();
    if listener.filter_chains.is_empty() && listener.default_filter_chain.is_none() {
        broken.push(breaks("filter_chains", "must not be empty"));
    }
    for (index, filter) in listener.listener_filters.iter().enumerate() {
        broken.extend(configured(
            filter.config_type.is_some(),
            &format!("listener_filters[{index}]"),
        ));
    }
    let mut taken = HashSet::new();
    for (index, chain) in listener.filter_chains.iter().enumerate() {
        let path = format!("filter_chains[{index}]");
        broken.extend(chain_match(chain, &mut taken, &path));
        broken.extend(filters(chain, &path, regexes));
    }
    if let Some(chain) = &listener.default_filter_chain {
        broken.extend(filters(chain, "default_filter_chain", regexes));
    }
    broken
}

/// Envoy rejects filter chains with overlapping match criteria.
fn chain_match(chain: &FilterChain, taken: &mut HashSet<Vec<u8>>, path: &str) -> Vec<RuleBreak> {
    let path = format!("{path}.filter_chain_match");
    let matcher = chain.filter_chain_match.clone().unwrap_or_default();
    let partial = |name: &&String| name.strip_prefix("*.").unwrap_or(name).contains('*');
    if let Some(name) = matcher.server_names.iter().find(partial) {
        let rule = format!("has `{name}`: a wildcard must be the whole first label and be followed by others");
        return vec![breaks(format!("{path}.server_names"), rule)];
    }
    let repeats = combinations(matcher)
        .into_iter()
        .filter(|one| !taken.insert(one.encode_to_vec()))
        .count();
    if repeats == 0 {
        return Vec::new();
    }
    vec![breaks(path, "matches connections that an earlier chain also matches")]
}

/// All combinations of single criteria that a match allows.
fn combinations(matcher: FilterChainMatch) -> Vec<FilterChainMatch> {
    let mut all = vec![matcher];
    all = each(
        &all,
        |matcher| &matcher.prefix_ranges,
        |matcher, one| matcher.prefix_ranges = one,
    );
    all = each(
        &all,
        |matcher| &matcher.server_names,
        |matcher, one| matcher.server_names = one,
    );
    all = each(
        &all,
        |matcher| &matcher.application_protocols,
        |matcher, one| matcher.application_protocols = one,
    );
    all
}

/// Replaces each match by one per element of the given list.
fn each<T: Clone>(
    matchers: &[FilterChainMatch],
    list: impl Fn(&FilterChainMatch) -> &Vec<T>,
    set: impl Fn(&mut FilterChainMatch, Vec<T>),
) -> Vec<FilterChainMatch> {
    let mut all = Vec::new();
    for matcher in matchers {
        if list(matcher).is_empty() {
            all.push(matcher.clone());
        }
        for element in list(matcher) {
            let mut one = matcher.clone();
            set(&mut one, vec![element.clone()]);
            all.push(one);
        }
    }
    all
}

fn filters(chain: &FilterChain, path: &str, regexes: Regexes) -> Vec<RuleBreak> {
    let mut broken = Vec::new();
    for (index, filter) in chain.filters.iter().enumerate() {
        let path = format!("{path}.filters[{index}]");
        broken.extend(configured(filter.config_type.is_some(), &path));
        let path = format!("{path}.typed_config");
        let Some(manager) = http_connection_manager(filter) else {
            continue;
        };
        broken.extend(http_filters(&manager.http_filters, &path));
        for (index, filter) in manager.http_filters.iter().enumerate() {
            broken.extend(configured(
                filter.config_type.is_some(),
                &format!("{path}.http_filters[{index}]"),
            ));
        }
        if let Some(RouteSpecifier::RouteConfig(config)) = &manager.route_specifier {
            let path = format!("{path}.route_config.");
            broken.extend(route::check_config(config, &path, regexes));
        }
    }
    broken
}

/// Filters are looked up by the type of their configuration.
fn configured(there: bool, path: &str) -> Option<RuleBreak> {
    (!there).then(|| breaks(path, "must have a configuration"))
}

fn http_connection_manager(filter: &Filter) -> Option<HttpConnectionManager> {
    match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) if config.type_url == HttpConnectionManager::type_url() => {
            HttpConnectionManager::decode(&config.value[..]).ok()
        }
        Some(filter::ConfigType::TypedConfig(_) | filter::ConfigType::ConfigDiscovery(_)) | None => None,
    }
}

/// The router must be the last HTTP filter, and only there.
fn http_filters(filters: &[HttpFilter], path: &str) -> Option<RuleBreak> {
    let is_router = |filter: &HttpFilter| match &filter.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => config.type_url == Router::type_url(),
        Some(http_filter::ConfigType::ConfigDiscovery(_)) | None => false,
    };
    let path = format!("{path}.http_filters");
    match filters.iter().position(is_router) {
        Some(at) if at + 1 == filters.len() => None,
        Some(at) => Some(breaks(
            format!("{path}[{at}]"),
            "is the router and must be the last filter",
        )),
        None => Some(breaks(path, "must end with the router")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::core::CidrRange;
    use crate::xds::pb::wkt::{Any, UInt32Value};

    fn chain(port: u32, protocols: &[&str], names: &[&str]) -> FilterChain {
        FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(UInt32Value { value: port }),
                application_protocols: protocols.iter().map(ToString::to_string).collect(),
                server_names: names.iter().map(ToString::to_string).collect(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn broken(filter_chains: Vec<FilterChain>) -> Vec<String> {
        let listener = Listener {
            filter_chains,
            ..Default::default()
        };
        check(&listener.encode_to_vec(), Regexes::Compiled)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_listener_needs_a_chain() {
        assert_eq!(broken(vec![]), ["`filter_chains` must not be empty"]);
        assert!(broken(vec![FilterChain::default()]).is_empty());
    }

    #[test]
    fn filters_have_a_configuration() {
        let unconfigured = FilterChain {
            filters: vec![Filter::default()],
            ..Default::default()
        };
        assert_eq!(
            broken(vec![unconfigured]),
            ["`filter_chains[0].filters[0]` must have a configuration"]
        );
    }

    #[test]
    fn chains_that_overlap_are_refused() {
        assert!(
            broken(vec![
                chain(1, &["a", "b"], &[]),
                chain(1, &["c"], &[]),
                chain(1, &[], &[])
            ])
            .is_empty()
        );
        assert_eq!(
            broken(vec![
                chain(1, &["a", "b"], &[]),
                chain(2, &["b"], &[]),
                chain(1, &["b"], &[])
            ]),
            ["`filter_chains[2].filter_chain_match` matches connections that an earlier chain also matches"]
        );
        let range = |prefix: &str| FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                prefix_ranges: vec![CidrRange {
                    address_prefix: prefix.into(),
                    prefix_len: Some(UInt32Value { value: 8 }),
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(broken(vec![range("10.0.0.0"), range("11.0.0.0")]).is_empty());
        assert_eq!(broken(vec![range("10.0.0.0"), range("10.0.0.0")]).len(), 1);
    }

    #[test]
    fn wildcards_of_server_names_are_whole_labels() {
        assert!(broken(vec![chain(1, &[], &["*.foo.com", "foo.com"])]).is_empty());
        for name in ["*", "*foo.com", "a.*.com"] {
            assert_eq!(broken(vec![chain(1, &[], &[name])]).len(), 1, "{name}");
        }
    }

    #[test]
    fn the_router_is_the_last_filter() {
        let named = |type_url: String| HttpFilter {
            config_type: Some(http_filter::ConfigType::TypedConfig(Any {
                type_url,
                ..Default::default()
            })),
            ..Default::default()
        };
        let router = || named(Router::type_url());
        let other = || named("type.googleapis.com/x".into());
        assert_eq!(http_filters(&[other(), router()], "hcm"), None);
        let rule = |filters: &[HttpFilter]| http_filters(filters, "hcm").unwrap().to_string();
        assert_eq!(rule(&[other()]), "`hcm.http_filters` must end with the router");
        assert_eq!(
            rule(&[router(), other()]),
            "`hcm.http_filters[0]` is the router and must be the last filter"
        );
    }
}
