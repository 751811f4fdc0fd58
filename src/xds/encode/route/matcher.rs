//! Route match criteria.

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::encode::testing::printed;

    fn path(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    #[test]
    fn paths_match_exactly_by_prefix_or_by_regex() {
        let shown = |matcher| printed(&route_match(&path(matcher)));
        assert_eq!(shown(PathMatch::Prefix("/v2".into())), json!({"prefix": "/v2"}));
        assert_eq!(shown(PathMatch::Exact("/v2".into())), json!({"path": "/v2"}));
        assert_eq!(
            shown(PathMatch::Regex("/v[0-9]".into())),
            json!({"safe_regex": {"regex": "/v[0-9]"}})
        );
        let any_case = RouteMatch {
            ignore_case: true,
            ..path(PathMatch::Exact("/v2".into()))
        };
        assert_eq!(
            printed(&route_match(&any_case)),
            json!({"path": "/v2", "case_sensitive": false})
        );
    }

    #[test]
    fn headers_and_parameters_match_by_value_or_presence() {
        let header = |name: &str, value, invert| HeaderMatch {
            name: name.into(),
            value,
            invert,
        };
        let exact = || Some(StringMatch::Exact("x".into()));
        let matcher = RouteMatch {
            headers: vec![
                header(":method", exact(), false),
                header("a", exact(), true),
                header("b", None, false),
                header("c", None, true),
            ],
            query: vec![("q".into(), Some(StringMatch::Regex("a+".into()))), ("r".into(), None)],
            ..path(PathMatch::Prefix("/".into()))
        };
        let shown = printed(&route_match(&matcher));
        assert_eq!(
            shown["headers"],
            json!([
                {"name": ":method", "string_match": {"exact": "x"}},
                {
                    "name": "a",
                    "string_match": {"exact": "x"},
                    "invert_match": true,
                    "treat_missing_header_as_empty": true,
                },
                {"name": "b", "present_match": true},
                {"name": "c", "present_match": true, "invert_match": true},
            ])
        );
        assert_eq!(
            shown["query_parameters"],
            json!([
                {"name": "q", "string_match": {"safe_regex": {"regex": "a+"}}},
                {"name": "r", "present_match": true},
            ])
        );
    }
}
