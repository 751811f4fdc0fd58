//! Finds routes and matches that never apply because earlier ones match all their requests.

use crate::api::FieldPath;
use crate::diag::Code;
use crate::mesh::lower::report::Report;
use crate::mesh::selects;
use crate::mesh::virtual_service::{HttpMatch, L4Match, SourceMatch, StringMatch, TlsMatch, VirtualService};

/// Reports unreachable routes and matches for each protocol.
pub(super) fn analyze(report: &mut Report<'_>, at: &FieldPath, rules: &VirtualService) {
    let http = rules.http.iter().map(|route| route.matches.as_slice());
    analyze_routes(report, &at.field("http"), http, covers_http, HttpMatch::default());
    let tcp = rules.tcp.iter().map(|route| route.matches.as_slice());
    analyze_routes(report, &at.field("tcp"), tcp, covers_l4, L4Match::default());
    let tls = rules.tls.iter().map(|route| route.matches.as_slice());
    let any = TlsMatch {
        sni_hosts: Vec::new(),
        l4: L4Match::default(),
    };
    analyze_routes(report, &at.field("tls"), tls, covers_tls, any);
}

/// `any` is the match of a route without matches.
fn analyze_routes<'m, M: Clone + 'm>(
    report: &mut Report<'_>,
    at: &FieldPath,
    routes: impl Iterator<Item = &'m [M]>,
    covers: impl Fn(&M, &M) -> bool,
    any: M,
) {
    let mut seen: Vec<(usize, M)> = Vec::new();
    for (index, matches) in routes.enumerate() {
        let at = at.index(index);
        let earlier = |m: &M, seen: &[(usize, M)]| seen.iter().find(|(_, s)| covers(s, m)).map(|(index, _)| *index);
        let taken: Vec<Option<usize>> = match matches {
            [] => vec![earlier(&any, &seen)],
            several => several.iter().map(|m| earlier(m, &seen)).collect(),
        };
        if let Some(Some(first)) = taken.iter().find(|_| taken.iter().all(Option::is_some)) {
            report
                .add(
                    Code::VirtualServiceUnreachableRule,
                    &at,
                    format!("this route is never used: route {first} before it matches all of its requests"),
                )
                .help("put the more specific route first, or remove this one");
        } else {
            for (at_match, first) in taken.iter().enumerate().filter_map(|(i, t)| t.map(|t| (i, t))) {
                report.add(
                    Code::VirtualServiceIneffectiveMatch,
                    &at.field("match").index(at_match),
                    format!("this match is never used: route {first} before it matches all of its requests"),
                );
            }
        }
        match matches {
            [] => seen.push((index, any.clone())),
            several => seen.extend(several.iter().map(|m| (index, m.clone()))),
        }
    }
}

/// Whether `a` matches every request that `b` matches. May return false negatives, but no false
/// positives.
fn covers_http(a: &HttpMatch, b: &HttpMatch) -> bool {
    covers_path(a, b)
        && covers_text(a.scheme.as_ref(), b.scheme.as_ref())
        && covers_text(a.method.as_ref(), b.method.as_ref())
        && covers_text(a.authority.as_ref(), b.authority.as_ref())
        && covers_named(&a.headers, &b.headers)
        && covers_named(&a.query_params, &b.query_params)
        && a.without_headers.iter().all(|entry| b.without_headers.contains(entry))
        && covers_port(a.port, b.port)
        && covers_source(&a.source, &b.source)
}

fn covers_path(a: &HttpMatch, b: &HttpMatch) -> bool {
    let everything = match &a.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => matches!(&**prefix, "" | "/"),
        Some(StringMatch::Regex(pattern)) => &**pattern == ".*",
        Some(StringMatch::Exact(_)) => false,
    };
    everything || (a.ignore_uri_case == b.ignore_uri_case && covers_text(a.uri.as_ref(), b.uri.as_ref()))
}

fn covers_text(a: Option<&StringMatch>, b: Option<&StringMatch>) -> bool {
    match (a, b) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(StringMatch::Prefix(a)), Some(StringMatch::Prefix(b) | StringMatch::Exact(b))) => b.starts_with(&**a),
        (Some(a), Some(b)) => a == b,
    }
}

type Named = [(std::sync::Arc<str>, Option<StringMatch>)];

fn covers_named(a: &Named, b: &Named) -> bool {
    a.iter().all(|(name, wanted)| {
        b.iter()
            .any(|(other, value)| name == other && covers_text(wanted.as_ref(), value.as_ref()))
    })
}

fn covers_port(a: Option<u16>, b: Option<u16>) -> bool {
    a.is_none() || a == b
}

fn covers_source(a: &SourceMatch, b: &SourceMatch) -> bool {
    (!a.gateways_only || b.gateways_only)
        && selects(&a.labels, &b.labels)
        && (a.namespace.is_none() || a.namespace == b.namespace)
}

fn covers_l4(a: &L4Match, b: &L4Match) -> bool {
    covers_list(&a.destination_subnets, &b.destination_subnets)
        && covers_port(a.port, b.port)
        && covers_source(&a.source, &b.source)
}

fn covers_tls(a: &TlsMatch, b: &TlsMatch) -> bool {
    covers_list(&a.sni_hosts, &b.sni_hosts) && covers_l4(&a.l4, &b.l4)
}

/// Of CIDRs and SNI hosts Envoy chooses the most specific, not the first, so only equal lists
/// shadow each other. An empty list matches all.
fn covers_list<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.is_empty() || (!b.is_empty() && b.iter().all(|entry| a.contains(entry)))
}
