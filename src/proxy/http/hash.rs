//! What consistent hashing goes by.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use xxhash_rust::xxh64::xxh64;

use super::exchange::Exchange;
use super::route::{Forward, HashKey};
use crate::proxy::upstream::cluster::LbPolicy;

/// The hash of a request by its route's policies; none where no policy yields one. Hashes of several policies are
/// combined as in Envoy. Where the cluster goes by none, nobody is given a cookie for it.
pub(super) fn hash(exchange: &mut Exchange, action: &Forward, policy: LbPolicy) -> Option<u64> {
    if !matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }) {
        return None;
    }
    let mut hash = None;
    for policy in &action.hash {
        let new = of_key(exchange, &policy.key);
        hash = match (hash, new) {
            (Some(old), Some(new)) => Some(u64::rotate_left(old, 1) ^ new),
            (old, new) => new.or(old),
        };
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

fn of_key(exchange: &mut Exchange, key: &HashKey) -> Option<u64> {
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
                let ttl = (*ttl)?;
                let value = format!("{:016x}", fastrand::u64(..));
                let mut text = format!("{name}=\"{value}\"");
                if !ttl.is_zero() {
                    text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
                }
                if !path.is_empty() {
                    text.push_str(&format!("; Path={path}"));
                }
                for (key, value) in attributes {
                    let value = if value.is_empty() {
                        String::new()
                    } else {
                        format!("={value}")
                    };
                    text.push_str(&format!("; {key}{value}"));
                }
                text.push_str("; HttpOnly");
                if let Ok(text) = HeaderValue::from_str(&text) {
                    exchange.response_headers.append(SET_COOKIE, text);
                }
                Some(xxh64(value.as_bytes(), 0))
            }
        },
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
}

/// Reads what is read of headers here.
#[cfg(fuzzing)]
pub(super) fn draw_on(headers: &HeaderMap) {
    cookie(headers, "user");
}
