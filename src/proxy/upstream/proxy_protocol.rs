//! The PROXY protocol towards hosts (`ProxyProtocolUpstreamTransport`): a header that tells the downstream connection's
//! addresses.

use std::net::{IpAddr, SocketAddr};

use crate::proxy::connection::{Address, Connection};

/// The signature of version 2.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with command LOCAL; PROXY is one more.
const LOCAL_V2: u8 = 0x20;
const PROXY_V2: u8 = 0x21;

/// The version of the header (`ProxyProtocolConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProxyHeader {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// The addresses that the header tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    /// The client.
    pub(crate) source: Address,
    /// The address it connected to.
    pub(crate) destination: Address,
}

impl Ends {
    /// Those of a downstream connection.
    pub(crate) fn of(connection: &Connection) -> Self {
        Self {
            source: connection.remote.clone(),
            destination: connection.local.clone(),
        }
    }
}

impl ProxyHeader {
    /// The header for a connection with these addresses, or with none.
    pub(crate) fn of(self, ends: Option<&Ends>) -> Vec<u8> {
        let addresses = ends.and_then(|ends| ends.source.socket().zip(ends.destination.socket()));
        match (self, addresses) {
            (ProxyHeader::V1, Some((source, destination))) => version_1(source, destination),
            // Unix domain sockets cannot be told in either version.
            (ProxyHeader::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (ProxyHeader::V2, Some((source, destination))) => version_2(source, destination),
            (ProxyHeader::V2, None) => [SIGNATURE_V2, &[LOCAL_V2, 0, 0, 0]].concat(),
        }
    }
}

fn version_1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { 4 } else { 6 };
    let (from, to) = (source.port(), destination.port());
    let (source, destination) = (source.ip(), destination.ip());
    format!("PROXY TCP{family} {source} {destination} {from} {to}\r\n").into_bytes()
}

fn version_2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = [SIGNATURE_V2, &[PROXY_V2]].concat();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // TCP over IPv4, 12 bytes.
            out.extend_from_slice(&[0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            // TCP over IPv6, 36 bytes.
            out.extend_from_slice(&[0x21, 0, 36]);
            for address in [from, to] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                out.extend_from_slice(&address.octets());
            }
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: ProxyHeader, source: &str, destination: &str) -> Vec<u8> {
        let address = |text: &str| match text.parse() {
            Ok(address) => Address::Ip(address),
            Err(_) => Address::Unix(std::path::Path::new(text).into()),
        };
        let (source, destination) = (address(source), address(destination));
        version.of(Some(&Ends { source, destination }))
    }

    #[test]
    fn version_1_is_a_line() {
        let told = |source, destination| told(ProxyHeader::V1, source, destination);
        assert_eq!(told("1.2.3.4:5", "6.7.8.9:10"), b"PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n");
        assert_eq!(
            told("[::1]:5", "[2001:db8::1]:10"),
            b"PROXY TCP6 ::1 2001:db8::1 5 10\r\n"
        );
        assert_eq!(told("/a", "/a"), b"PROXY UNKNOWN\r\n");
        assert_eq!(ProxyHeader::V1.of(None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_has_a_length() {
        let told = |source, destination| told(ProxyHeader::V2, source, destination);
        let short = told("1.2.3.4:5", "6.7.8.9:256");
        assert_eq!(short[12..], [0x21, 0x11, 0, 12, 1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 1, 0]);
        let long = told("1.2.3.4:5", "[::1]:10");
        assert_eq!((long.len(), &long[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(told("/a", "/a")[12..], [0x20, 0, 0, 0]);
    }
}
