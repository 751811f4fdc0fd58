//! When a route applies.

use std::sync::Arc;

use crate::ir::route::{HeaderMatch, PathMatch, RouteMatch};
use crate::mesh::virtual_service::StringMatch;
use crate::xds::encode::value::{boolean, regex, string_matcher};
use crate::xds::pb::route::header_matcher::HeaderMatchSpecifier;
use crate::xds::pb::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use crate::xds::pb::route::route_match::PathSpecifier;
use crate::xds::pb::route::{self, HeaderMatcher, QueryParameterMatcher};

pub(super) fn route_match(matcher: &RouteMatch) -> route::RouteMatch {
    let path = match &matcher.path {
        PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.to_string()),
        PathMatch::Exact(path) => PathSpecifier::Path(path.to_string()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    route::RouteMatch {
        path_specifier: Some(path),
        case_sensitive: matcher.ignore_case.then(|| boolean(false)),
        headers: matcher.headers.iter().map(header).collect(),
        query_parameters: matcher.query.iter().map(query_parameter).collect(),
        ..Default::default()
    }
}

fn header(header: &HeaderMatch) -> HeaderMatcher {
    let specifier = match &header.value {
        Some(value) => HeaderMatchSpecifier::StringMatch(string_matcher(value)),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: header.name.to_string(),
        header_match_specifier: Some(specifier),
        invert_match: header.invert,
        treat_missing_header_as_empty: header.invert && header.value.is_some(),
    }
}

fn query_parameter((name, value): &(Arc<str>, Option<StringMatch>)) -> QueryParameterMatcher {
    let specifier = match value {
        Some(value) => QueryParameterMatchSpecifier::StringMatch(string_matcher(value)),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher {
        name: name.to_string(),
        query_parameter_match_specifier: Some(specifier),
    }
}
