//! Compiling matchers of strings, headers, query parameters and paths.

use super::value::{runtime_per_million, truth};
use super::{At, Compiled, Refusal, all};
use crate::proxy::http::route::{HeaderKey, HeaderMatch, HeaderTest, PathMatch, QueryMatch, RouteMatch};
use crate::proxy::matcher::{Pattern, StringMatcher, whole};
use crate::xds::pb::matcher::string_matcher::MatchPattern;
use crate::xds::pb::matcher::{self, RegexMatcher};
use crate::xds::pb::route;
use crate::xds::pb::route::header_matcher::HeaderMatchSpecifier;
use crate::xds::pb::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use crate::xds::pb::route::route_match::PathSpecifier;

/// Compiles a `StringMatcher`.
pub(crate) fn text(matcher: &matcher::StringMatcher) -> Compiled<StringMatcher> {
    let pattern = match matcher.match_pattern.as_ref() {
        Some(MatchPattern::Exact(text)) => Pattern::Exact(text.as_bytes().into()),
        Some(MatchPattern::Prefix(text)) => Pattern::Prefix(text.as_bytes().into()),
        Some(MatchPattern::Suffix(text)) => Pattern::Suffix(text.as_bytes().into()),
        Some(MatchPattern::Contains(text)) => Pattern::Contains(text.as_bytes().into()),
        Some(MatchPattern::SafeRegex(regex)) => Pattern::Regex(self::regex(regex).at("safe_regex")?),
        Some(MatchPattern::Custom(_)) => return Err(Refusal::not_implemented("a custom matcher")),
        None => return Err(Refusal::new("a pattern is required")),
    };
    Ok(StringMatcher::new(pattern, matcher.ignore_case))
}

/// Compiles a regular expression that must match a whole string.
pub(crate) fn regex(matcher: &RegexMatcher) -> Compiled<regex::bytes::Regex> {
    Ok(whole(&matcher.regex)?)
}

/// Compiles a `RouteMatch`.
pub(crate) fn route(message: &route::RouteMatch) -> Compiled<RouteMatch> {
    let path = match message.path_specifier.as_ref() {
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix(prefix.as_str().into()),
        Some(PathSpecifier::Path(path)) => PathMatch::Exact(path.as_str().into()),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => PathMatch::SeparatedPrefix(prefix.as_str().into()),
        Some(PathSpecifier::SafeRegex(regex)) => PathMatch::Regex(self::regex(regex).at("safe_regex")?),
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathMatchPolicy(_)) => return Err(Refusal::not_implemented("path_match_policy")),
        None => return Err(Refusal::new("a path is required")),
    };
    let headers = message.headers.iter().enumerate();
    let query = message.query_parameters.iter().enumerate();
    Ok(RouteMatch {
        path,
        ignore_case: !truth(message.case_sensitive.as_ref(), true),
        headers: all(headers.map(|(index, one)| header(one).at_index("headers", index)))?,
        query: all(query.map(|(index, one)| self::query(one).at_index("query_parameters", index)))?,
        grpc: message.grpc.is_some(),
        per_million: runtime_per_million(message.runtime_fraction.as_ref()),
    })
}

/// Compiles a `HeaderMatcher`.
#[expect(deprecated, reason = "Envoy still reads what came before `string_match`")]
pub(crate) fn header(message: &route::HeaderMatcher) -> Compiled<HeaderMatch> {
    let value = |pattern| HeaderTest::Value(StringMatcher::new(pattern, false));
    let test = match message.header_match_specifier.as_ref() {
        None => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderTest::Present(*present),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => HeaderTest::Value(text(matcher).at("string_match")?),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => HeaderTest::Range(range.start, range.end),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => value(Pattern::Exact(text.as_bytes().into())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => value(Pattern::Prefix(text.as_bytes().into())),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => value(Pattern::Suffix(text.as_bytes().into())),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => value(Pattern::Contains(text.as_bytes().into())),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            value(Pattern::Regex(self::regex(regex).at("safe_regex_match")?))
        }
    };
    Ok(HeaderMatch {
        name: header_key(&message.name).at("name")?,
        test,
        invert: message.invert_match,
        missing_is_empty: message.treat_missing_header_as_empty,
    })
}

fn header_key(name: &str) -> Compiled<HeaderKey> {
    Ok(match name {
        ":method" => HeaderKey::Method,
        ":path" => HeaderKey::Path,
        ":authority" | "host" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        _ => HeaderKey::Name(super::headers::name_of(name)?),
    })
}

fn query(message: &route::QueryParameterMatcher) -> Compiled<QueryMatch> {
    let value = match message.query_parameter_match_specifier.as_ref() {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => Some(text(matcher).at("string_match")?),
        Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(Refusal::not_implemented("present_match: false"));
        }
    };
    Ok(QueryMatch {
        name: message.name.as_str().into(),
        value,
    })
}
