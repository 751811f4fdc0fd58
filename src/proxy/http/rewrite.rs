//! Rewriting paths, authorities and `location` headers.

use http::header::{HeaderName, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use regex::bytes::Regex;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::route::host::without_port;
use super::route::{Forward, HostRewrite, Matched, PathRewrite, Redirect, RedirectPath, WeightedCluster};
use crate::proxy::flags::Flags;
use crate::proxy::upstream::host::Host;

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Applies the route's path rewrite.
pub(super) fn path(exchange: &mut Exchange, matched: &Matched, action: &Forward) {
    // CONNECT has no path.
    let Some(rewrite) = action.path_rewrite.as_ref().filter(|_| !exchange.path().is_empty()) else {
        return;
    };
    let before = exchange.path().to_owned();
    let after = match rewrite {
        PathRewrite::Prefix(prefix) => with_prefix(&before, matched, prefix),
        PathRewrite::Regex(regex, substitution) => with_regex(&before, regex, substitution),
        PathRewrite::Format(format) => {
            let query = before.find('?').map_or("", |at| &before[at..]);
            let path = format.header_value(&exchange.context());
            Some(format!("{path}{query}"))
        }
    };
    if let Some(after) = after {
        replace(exchange, &before, &after);
    }
}

/// Replaces the path and keeps the old one in `x-envoy-original-path`.
fn replace(exchange: &mut Exchange, before: &str, after: &str) {
    let (Ok(after), Ok(before)) = (after.parse::<PathAndQuery>(), HeaderValue::from_str(before)) else {
        return;
    };
    exchange.request.uri = Uri::from(after);
    if !exchange.downstream.manager.suppress_envoy_headers {
        exchange.request.headers.insert(ORIGINAL_PATH, before);
    }
}

fn with_prefix(path: &str, matched: &Matched, prefix: &str) -> Option<String> {
    let end = path.find('?').unwrap_or(path.len());
    let rest = path.get(matched.route.matcher.matched_len(&path[..end])..)?;
    Some(format!("{prefix}{rest}"))
}

fn with_regex(path: &str, regex: &Regex, substitution: &[u8]) -> Option<String> {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let replaced = regex.replace_all(path.as_bytes(), |found: &regex::bytes::Captures<'_>| {
        expand(found, substitution)
    });
    let mut out = String::from_utf8(replaced.into_owned()).ok()?;
    out.push_str(query);
    Some(out)
}

/// Expands a substitution: `\1` is the first group, `\0` the whole match, `\\` a backslash.
fn expand(found: &regex::bytes::Captures<'_>, substitution: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(substitution.len());
    let mut bytes = substitution.iter();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(digit @ b'0'..=b'9')) => {
                let group = found.get(usize::from(digit - b'0'));
                out.extend_from_slice(group.map_or(&[][..], |group| group.as_bytes()));
                bytes.next();
            }
            (b'\\', Some(b'\\')) => {
                out.push(b'\\');
                bytes.next();
            }
            _ => out.push(*byte),
        }
    }
    out
}

/// Applies the route's host rewrite: before a host is chosen, or with `host` once it is. As in Envoy, that of a
/// weighted cluster takes precedence, and does not set `x-envoy-original-host`.
pub(super) fn authority(
    exchange: &mut Exchange,
    action: &Forward,
    share: Option<&WeightedCluster>,
    host: Option<&Host>,
) {
    let literal = |value: &HeaderValue| value.to_str().ok().map(Into::into);
    let of_share = share.and_then(|share| share.host_rewrite.as_ref());
    if let Some(new) = of_share.filter(|_| host.is_none()).and_then(literal) {
        exchange.authority = new;
    }
    let new: Option<Box<str>> = match &action.host_rewrite {
        Some(HostRewrite::Endpoint) => host.and_then(|host| host.hostname.as_deref()).map(Into::into),
        _ if host.is_some() => None,
        Some(HostRewrite::Literal(host)) => literal(host),
        Some(HostRewrite::Header(name)) => exchange.request.headers.get(name).and_then(literal),
        None => None,
    };
    let Some(new) = new else {
        return;
    };
    let before = std::mem::replace(&mut exchange.authority, new);
    let Ok(before) = HeaderValue::from_str(&before) else {
        return;
    };
    let headers = &mut exchange.request.headers;
    if action.append_forwarded_host && headers.get_all(FORWARDED_HOST).iter().next_back() != Some(&before) {
        headers.append(FORWARDED_HOST, before.clone());
    }
    if !exchange.downstream.manager.suppress_envoy_headers {
        headers.insert(ORIGINAL_HOST, before);
    }
}

/// Restores the port that was stripped from CONNECT, unless a rewrite has set one (`strip_any_host_port`).
pub(super) fn restore_port(exchange: &mut Exchange) {
    if exchange.request.method != Method::CONNECT {
        return;
    }
    let has_one = without_port(&exchange.authority).len() < exchange.authority.len();
    if let Some(port) = exchange.request.uri.port_u16().filter(|_| !has_one) {
        exchange.authority = format!("{}:{port}", exchange.authority).into();
    }
}

/// The local reply of a redirecting route.
pub(super) fn redirect(exchange: &Exchange, matched: &Matched, redirect: &Redirect) -> LocalReply {
    let mut reply = LocalReply::new(redirect.status, "", Flags::default(), "direct_response");
    match HeaderValue::from_str(&location(exchange, matched, redirect)) {
        Ok(location) => drop(reply.headers.insert(LOCATION, location)),
        Err(_) => reply.status = StatusCode::BAD_REQUEST,
    }
    reply
}

/// Replaces the request's path with the redirect's, which Envoy logs.
pub(super) fn redirected(exchange: &mut Exchange, matched: &Matched, redirect: &Redirect) {
    let before = exchange.path().to_owned();
    let after = match &redirect.path {
        Some(RedirectPath::Prefix(prefix)) => with_prefix(&before, matched, prefix),
        Some(RedirectPath::Regex(regex, substitution)) => with_regex(&before, regex, substitution),
        Some(RedirectPath::Full(_)) | None => None,
    };
    if let Some(after) = after {
        replace(exchange, &before, &after);
    }
}

/// As in Envoy, sets `location` to the request's own URL in a direct response with status 201 or 3xx.
pub(super) fn locate(exchange: &Exchange, reply: &mut LocalReply) {
    if reply.status != StatusCode::CREATED && !reply.status.is_redirection() {
        return;
    }
    let url = format!("{}://{}{}", exchange.scheme, exchange.authority, exchange.path());
    if let Ok(location) = HeaderValue::from_str(&url) {
        reply.headers.insert(LOCATION, location);
    }
}

fn location(exchange: &Exchange, matched: &Matched, redirect: &Redirect) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(exchange.scheme);
    let host = match &redirect.host {
        Some(host) => host,
        None if redirect.keep_port => &*exchange.authority,
        None => kept_host(&exchange.authority, exchange.scheme, scheme, redirect.port.is_some()),
    };
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "{scheme}://{host}{port}{}",
        redirect_path(exchange.path(), matched, redirect)
    )
}

/// The request's authority without a port that the redirect replaces, or that is the default of a replaced scheme.
fn kept_host<'a>(authority: &'a str, from: &str, to: &str, new_port: bool) -> &'a str {
    let host = without_port(authority);
    let default = match from {
        "https" => ":443",
        _ => ":80",
    };
    let drops_default = from != to && authority[host.len()..] == *default;
    if new_port || drops_default { host } else { authority }
}

fn redirect_path(path: &str, matched: &Matched, redirect: &Redirect) -> String {
    let query = path.find('?').map_or("", |at| &path[at..]);
    let new = match &redirect.path {
        // Its own query replaces the request's.
        Some(RedirectPath::Full(full)) if full.contains('?') => return full.to_string(),
        Some(RedirectPath::Full(full)) => format!("{full}{query}"),
        Some(RedirectPath::Prefix(prefix)) => with_prefix(path, matched, prefix).unwrap_or_else(|| path.to_owned()),
        Some(RedirectPath::Regex(regex, substitution)) => {
            with_regex(path, regex, substitution).unwrap_or_else(|| path.to_owned())
        }
        None => path.to_owned(),
    };
    match redirect.strip_query {
        true => new.split('?').next().unwrap_or_default().to_owned(),
        false => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_filled_in() {
        let regex = Regex::new("/a/([^/]+)/b").unwrap();
        let rewritten = with_regex("/a/x/b?q=1", &regex, br"/\1\\\0");
        assert_eq!(rewritten.as_deref(), Some("/x\\/a/x/b?q=1"));
    }

    #[test]
    fn a_port_goes_with_its_scheme() {
        assert_eq!(kept_host("a:80", "http", "https", false), "a");
        assert_eq!(kept_host("a:8080", "http", "https", false), "a:8080");
        assert_eq!(kept_host("a:80", "http", "http", false), "a:80");
        assert_eq!(kept_host("a:80", "http", "http", true), "a");
    }
}
