//! The downstream client's identity: `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-client-cert`, how far they
//! are trusted and what hosts are told.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::join;
use crate::proxy::connection::{Connection, PeerTls};
use crate::proxy::http::connection::Downstream;
use crate::proxy::http::{ForwardClientCertMode, HttpManager};

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// Adds the peer to `x-forwarded-for` where configured, and returns the address that counts as the client's.
pub(super) fn forwarded_for(headers: &mut HeaderMap, manager: &HttpManager, connection: &Connection) -> Option<IpAddr> {
    let peer = connection.remote.ip();
    if !manager.use_remote_address && !headers.contains_key(FORWARDED_FOR) {
        return peer;
    }
    join(headers, &FORWARDED_FOR, b",");
    if !manager.use_remote_address {
        return last_trusted(headers, manager.trusted_hops).or(peer);
    }
    let client = match manager.trusted_hops {
        0 => peer,
        hops => last_trusted(headers, hops - 1).or(peer),
    };
    if let Some(peer) = peer.filter(|_| !manager.skip_xff_append) {
        append_address(headers, peer);
    }
    if let Some(Ok(address)) = client.map(|client| HeaderValue::from_str(&client.to_string())) {
        headers.insert(EXTERNAL_ADDRESS, address);
    }
    client
}

/// As in Envoy, a client on the loopback address is told to others under this machine's own address, since theirs is
/// another.
fn external_address(client: IpAddr) -> IpAddr {
    static OWN: LazyLock<Option<IpAddr>> = LazyLock::new(own_address);
    if client == Ipv4Addr::LOCALHOST || client == Ipv6Addr::LOCALHOST {
        return OWN.unwrap_or(client);
    }
    client
}

/// Marks a request as the proxy's own, as Envoy does with mirrored requests.
pub(crate) fn mark_internal(headers: &mut HeaderMap) {
    headers.insert("x-envoy-internal", HeaderValue::from_static("true"));
    append_address(headers, Ipv4Addr::LOCALHOST.into());
}

/// Appends an address to `x-forwarded-for`.
fn append_address(headers: &mut HeaderMap, sender: IpAddr) {
    if let Ok(address) = HeaderValue::from_str(&external_address(sender).to_string()) {
        append(headers, FORWARDED_FOR, address);
    }
}

/// This machine's address towards others; `None` without a route. Envoy takes that of the first interface that is no
/// loopback, which differs only on machines with several.
fn own_address() -> Option<IpAddr> {
    /// An address reserved for documentation (RFC 5737). Nothing is sent to it: connecting a UDP socket only looks up
    /// the route.
    const ANYBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYBODY).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The address that the trusted proxy `hops` before the nearest one saw: the `hops`th from the right, counted from
/// zero.
pub(crate) fn last_trusted(headers: &HeaderMap, hops: u32) -> Option<IpAddr> {
    let value = headers.get(FORWARDED_FOR)?.to_str().ok()?;
    let hops = usize::try_from(hops).ok()?;
    value.rsplit(',').nth(hops)?.trim().parse().ok()
}

/// Appends to a header whose lines have been joined; a value that is not text is replaced.
fn append(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let before = headers.get(&name).and_then(|value| value.to_str().ok());
    let all = match before.zip(value.to_str().ok()) {
        Some((before, own)) => HeaderValue::from_str(&format!("{before},{own}")).unwrap_or(value),
        None => value,
    };
    headers.insert(name, all);
}

/// The scheme: that of `x-forwarded-proto` if a trusted proxy set it, else the connection's.
pub(super) fn scheme(headers: &mut HeaderMap, manager: &HttpManager, connection: &Connection) -> &'static str {
    let own = if connection.tls.is_some() { "https" } else { "http" };
    let believed = !manager.use_remote_address || manager.trusted_hops > 0;
    let told = headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes);
    match told {
        Some(b"https") if believed => return "https",
        Some(b"http") if believed => return "http",
        Some(_) if believed => {}
        Some(_) | None => drop(headers.insert(FORWARDED_PROTO, HeaderValue::from_static(own))),
    }
    own
}

/// Sets `x-forwarded-client-cert`.
pub(super) fn certificate(headers: &mut HeaderMap, downstream: &Downstream) {
    let manager = &*downstream.manager;
    let mode = manager.client_cert.mode;
    if mode == ForwardClientCertMode::AlwaysForwardOnly {
        return;
    }
    let peer = downstream.connection.tls.as_ref().filter(|tls| tls.presented);
    let Some(peer) = peer else {
        headers.remove(CLIENT_CERT);
        return;
    };
    let own = || {
        let made = downstream
            .client_cert
            .get_or_init(|| HeaderValue::from_str(&entry(manager, peer)).ok());
        made.clone()
    };
    match mode {
        ForwardClientCertMode::Sanitize => drop(headers.remove(CLIENT_CERT)),
        ForwardClientCertMode::ForwardOnly | ForwardClientCertMode::AlwaysForwardOnly => {}
        ForwardClientCertMode::AppendForward => {
            if let Some(own) = own() {
                join(headers, &CLIENT_CERT, b",");
                append(headers, CLIENT_CERT, own);
            }
        }
        ForwardClientCertMode::SanitizeSet => {
            if let Some(own) = own() {
                headers.insert(CLIENT_CERT, own);
            }
        }
    }
}

/// One element of `x-forwarded-client-cert`.
fn entry(manager: &HttpManager, peer: &PeerTls) -> String {
    let details = &manager.client_cert;
    let mut out = String::with_capacity(256);
    for uri in peer.own.iter().flat_map(|own| &own.uri_sans) {
        push(&mut out, "By", uri);
    }
    push(&mut out, "Hash", &peer.fingerprint);
    if details.cert {
        push(&mut out, "Cert", &format!("\"{}\"", peer.pem));
    }
    if details.chain {
        push(&mut out, "Chain", &format!("\"{}\"", peer.chain_pem()));
    }
    if details.subject {
        push(
            &mut out,
            "Subject",
            &format!("\"{}\"", peer.subject.replace('"', "\\\"")),
        );
    }
    if details.uri {
        match &peer.uri_sans[..] {
            [] => push(&mut out, "URI", ""),
            uris => uris.iter().for_each(|uri| push(&mut out, "URI", uri)),
        }
    }
    if details.dns {
        peer.dns_sans.iter().for_each(|name| push(&mut out, "DNS", name));
    }
    out
}

fn push(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push(';');
    }
    // Writing to a string cannot fail.
    let _ = write!(out, "{key}={value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_hide_the_address_a_proxy_added_on_a_line_of_its_own() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("6.6.6.6"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"));
        join(&mut headers, &FORWARDED_FOR, b",");
        assert_eq!(last_trusted(&headers, 0), Some("1.2.3.4".parse().unwrap()));
        assert_eq!(headers[FORWARDED_FOR], "6.6.6.6,1.2.3.4");
    }

    #[test]
    fn only_of_the_loopback_address_itself_the_machines_own_is_told() {
        for other in ["127.0.0.2", "10.0.0.1", "::2", "::ffff:127.0.0.1"] {
            let other = other.parse().unwrap();
            assert_eq!(external_address(other), other);
        }
        let own = own_address();
        for local in ["127.0.0.1", "::1"] {
            let local = local.parse().unwrap();
            assert_eq!(external_address(local), own.unwrap_or(local));
        }
    }

    #[test]
    fn the_last_address_counts_from_the_right() {
        let mut headers = HeaderMap::new();
        assert_eq!(last_trusted(&headers, 0), None);
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("8.8.8.8, 1.2.3.4"));
        assert_eq!(last_trusted(&headers, 0), Some("1.2.3.4".parse().unwrap()));
        assert_eq!(last_trusted(&headers, 1), Some("8.8.8.8".parse().unwrap()));
        assert_eq!(last_trusted(&headers, 2), None);
    }
}
