//! The request hash for consistent-hashing load balancers (`RouteAction.hash_policy`).

use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use xxhash_rust::xxh64::xxh64;

use super::exchange::Exchange;
use super::route::{Forward, HashKey};
use crate::proxy::upstream::cluster::LbPolicy;

/// The hash of a request.
#[derive(Debug, Default)]
pub(super) struct Key {
    /// The hash; `None` if no policy yields one.
    pub(super) hash: Option<u64>,
    /// `set-cookie` values for clients that lack the cookie of a policy.
    pub(super) cookies: Vec<HeaderValue>,
}

/// Hashes a request by its route's policies, combined as in Envoy. No cookie is generated unless the cluster's load
/// balancer hashes.
pub(super) fn key(exchange: &Exchange, action: &Forward, policy: LbPolicy) -> Key {
    let mut key = Key::default();
    if !matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }) {
        return key;
    }
    for policy in &action.hash {
        let new = key.of(exchange, &policy.key);
        key.hash = match (key.hash, new) {
            (Some(old), Some(new)) => Some(u64::rotate_left(old, 1) ^ new),
            (old, new) => new.or(old),
        };
        if policy.terminal && key.hash.is_some() {
            break;
        }
    }
    key
}

impl Key {
    fn of(&mut self, exchange: &Exchange, key: &HashKey) -> Option<u64> {
        let headers = &exchange.request.headers;
        match key {
            HashKey::Header(name) => {
                let mut values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                values.sort_unstable();
                match &values[..] {
                    [] => None,
                    [only] => Some(xxh64(only, 0)),
                    several => Some(several.iter().fold(0, |seed, value| xxh64(value, seed))),
                }
            }
            HashKey::SourceIp => {
                let client = exchange
                    .stream
                    .remote
                    .or_else(|| exchange.downstream.connection.remote.ip())?;
                Some(xxh64(client.to_string().as_bytes(), 0))
            }
            HashKey::Query(name) => {
                let query = exchange.request.uri.query()?;
                let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let (_, value) = pairs.find(|(key, _)| *key == &**name)?;
                Some(xxh64(value.as_bytes(), 0))
            }
            HashKey::Cookie {
                name,
                path,
                ttl,
                attributes,
            } => match cookie(headers, name) {
                Some(value) => Some(xxh64(value.as_bytes(), 0)),
                None => {
                    let (ttl, value) = ((*ttl)?, generated(exchange));
                    self.cookies.extend(set_cookie(name, &value, ttl, path, attributes));
                    Some(xxh64(value.as_bytes(), 0))
                }
            },
        }
    }
}

/// `set-cookie` for a generated cookie, with its attributes in Envoy's order; `None` if that is not a valid header.
fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    path: &str,
    attributes: &[(Box<str>, Box<str>)],
) -> Option<HeaderValue> {
    let mut text = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !path.is_empty() {
        text.push_str(&format!("; Path={path}"));
    }
    for (key, value) in attributes {
        let separator = if value.is_empty() { "" } else { "=" };
        text.push_str(&format!("; {key}{separator}{value}"));
    }
    text.push_str("; HttpOnly");
    HeaderValue::from_str(&text).ok()
}

/// The value of a generated cookie: the same for all requests on a connection, so that those sent before the client has
/// learnt of it reach the same host.
fn generated(exchange: &Exchange) -> String {
    let connection = &exchange.downstream.connection;
    let ends = format!("{}{}", connection.remote, connection.local);
    format!("{:016x}", xxh64(ends.as_bytes(), 0))
}

/// The value of a cookie, without its quotes.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
}
