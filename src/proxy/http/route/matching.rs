//! Conditions of routes and other matchers of requests.

use http::HeaderMap;
use http::header::HeaderName;
use regex::bytes::Regex;

use super::Request;
use crate::proxy::matcher::StringMatcher;

/// All conditions of a route (`RouteMatch`).
#[derive(Debug)]
pub(crate) struct RouteMatch {
    /// The path condition.
    pub(crate) path: PathMatch,
    /// `case_sensitive: false`.
    pub(crate) ignore_case: bool,
    /// Header conditions.
    pub(crate) headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub(crate) query: Vec<QueryMatch>,
    /// Whether only gRPC requests match.
    pub(crate) grpc: bool,
    /// `runtime_fraction`, in parts per million; `None`: all requests match.
    pub(crate) per_million: Option<u32>,
}

/// A path condition; the query is not looked at.
#[derive(Debug)]
pub(crate) enum PathMatch {
    /// `prefix`.
    Prefix(Box<str>),
    /// `path_separated_prefix`: the prefix ends at a `/` or at the end.
    SeparatedPrefix(Box<str>),
    /// `path`.
    Exact(Box<str>),
    /// `safe_regex`, for the whole path.
    Regex(Regex),
    /// `connect_matcher`: the method is CONNECT.
    Connect,
}

/// A header condition (`HeaderMatcher`).
#[derive(Debug)]
pub(crate) struct HeaderMatch {
    /// The header.
    pub(crate) name: HeaderKey,
    /// The condition.
    pub(crate) test: HeaderTest,
    /// `invert_match`.
    pub(crate) invert: bool,
    /// `treat_missing_header_as_empty`.
    pub(crate) missing_is_empty: bool,
}

/// A header or pseudo-header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderKey {
    /// A header.
    Name(HeaderName),
    /// `:method`.
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`.
    Authority,
    /// `:scheme`.
    Scheme,
}

/// What a header is tested for.
#[derive(Debug)]
pub(crate) enum HeaderTest {
    /// Presence, or absence if `false`.
    Present(bool),
    /// Whether a value matches.
    Value(StringMatcher),
    /// Whether a value is an integer in this half-open range.
    Range(i64, i64),
}

/// A condition on a query parameter.
#[derive(Debug)]
pub(crate) struct QueryMatch {
    /// The parameter.
    pub(crate) name: Box<str>,
    /// The condition on its first value; `None`: it has to be present.
    pub(crate) value: Option<StringMatcher>,
}

impl RouteMatch {
    /// Whether a request matches.
    pub(crate) fn matches(&self, request: &Request<'_>) -> bool {
        self.path.matches(request, self.ignore_case)
            && self.headers.iter().all(|header| header.matches(request))
            && (self.query.is_empty() || self.query.iter().all(|query| query.matches(request.uri.query())))
            && (!self.grpc || is_grpc(request.headers))
            && self
                .per_million
                .is_none_or(|share| request.random % 1_000_000 < u64::from(share))
    }

    /// Whether requests without a path can match.
    pub(crate) fn is_pathless(&self) -> bool {
        matches!(self.path, PathMatch::Connect)
    }

    /// The length of the path that matched, which rewrites replace.
    pub(crate) fn matched_len(&self, path: &str) -> usize {
        match &self.path {
            PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
        }
    }
}

impl PathMatch {
    fn matches(&self, request: &Request<'_>, ignore_case: bool) -> bool {
        let path = request.uri.path();
        match self {
            PathMatch::Prefix(prefix) => starts_with(path, prefix, ignore_case),
            PathMatch::SeparatedPrefix(prefix) => {
                starts_with(path, prefix, ignore_case) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Exact(wanted) if ignore_case => path.eq_ignore_ascii_case(wanted),
            PathMatch::Exact(wanted) => path == &**wanted,
            PathMatch::Regex(regex) => regex.is_match(path.as_bytes()),
            PathMatch::Connect => request.method == http::Method::CONNECT,
        }
    }
}

fn starts_with(path: &str, prefix: &str, ignore_case: bool) -> bool {
    match path.as_bytes().get(..prefix.len()) {
        Some(start) if ignore_case => start.eq_ignore_ascii_case(prefix.as_bytes()),
        Some(start) => start == prefix.as_bytes(),
        None => false,
    }
}

impl HeaderMatch {
    /// Whether a request matches.
    pub(crate) fn matches(&self, request: &Request<'_>) -> bool {
        match &self.name {
            HeaderKey::Name(name) => self.matches_header(name, request.headers),
            HeaderKey::Method => self.matches_value(request.method.as_str().as_bytes()),
            HeaderKey::Path if *request.method == http::Method::CONNECT => self.matches_missing(),
            HeaderKey::Path => {
                let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
                self.matches_value(path.as_bytes())
            }
            HeaderKey::Authority => self.matches_value(request.host.as_bytes()),
            HeaderKey::Scheme => self.matches_value(request.scheme.as_bytes()),
        }
    }

    /// Whether a response matches, which has no pseudo-headers.
    pub(crate) fn matches_response(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            HeaderKey::Name(name) => self.matches_header(name, headers),
            HeaderKey::Method | HeaderKey::Path | HeaderKey::Authority | HeaderKey::Scheme => false,
        }
    }

    fn matches_header(&self, name: &HeaderName, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(name).iter().peekable();
        match values.peek() {
            None => self.matches_missing(),
            // Envoy tests each line separately.
            Some(_) => values.any(|value| self.holds(value.as_bytes())) ^ self.invert,
        }
    }

    /// A missing header matches no value, inverted or not, unless it counts as empty.
    fn matches_missing(&self) -> bool {
        match self.test {
            HeaderTest::Present(wanted) => (!wanted) ^ self.invert,
            HeaderTest::Value(_) | HeaderTest::Range(..) => self.missing_is_empty && self.matches_value(b""),
        }
    }

    fn matches_value(&self, value: &[u8]) -> bool {
        self.holds(value) ^ self.invert
    }

    /// Whether a value matches, before inversion.
    fn holds(&self, value: &[u8]) -> bool {
        match &self.test {
            HeaderTest::Present(wanted) => *wanted,
            HeaderTest::Value(matcher) => matcher.matches(value),
            HeaderTest::Range(from, to) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .is_some_and(|number: i64| (*from..*to).contains(&number)),
        }
    }
}

impl QueryMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        let mut pairs = query
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let value = pairs.find(|(name, _)| *name == &*self.name).map(|(_, value)| value);
        match (&self.value, value) {
            (None, found) => found.is_some(),
            (Some(matcher), Some(value)) => matcher.matches(value.as_bytes()),
            (Some(_), None) => false,
        }
    }
}

/// Whether a request or response is gRPC, by its content type.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE).map(|value| value.as_bytes());
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+', ..]))
}
