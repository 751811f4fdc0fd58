//! The PROXY protocol, versions 1 and 2 (`envoy.filters.listener.proxy_protocol`): a proxy before us tells source and
//! destination of a connection in a header before everything else.
//!
//! Deviations from HAProxy's specification follow Envoy: a version 1 line may be one byte longer, datagram families
//! count as stream, and `AF_UNSPEC` is refused.
//! datagrams are taken for streams, and `AF_UNSPEC` is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::inspect::Stopped;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 header, with its line end.
const LONGEST_V1: usize = 108;
/// Length of a version 2 header before the addresses.
const FIXED_V2: usize = 16;

/// Configuration of the filter (`ProxyProtocol`).
#[derive(Clone, Debug, Default)]
pub(crate) struct ProxyProtocol {
    /// `allow_requests_without_proxy_protocol`.
    pub(crate) optional: bool,
    /// Whether version 1 is allowed.
    pub(crate) v1: bool,
    /// Whether version 2 is allowed.
    pub(crate) v2: bool,
    /// `stat_prefix`; may be empty.
    pub(crate) prefix: Arc<str>,
    /// Counters.
    pub(crate) stats: Arc<ProxyProtocolStats>,
}

/// Counters, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct ProxyProtocolStats {
    /// `not_found_disallowed`: connections without a header, refused.
    pub(crate) not_found_disallowed: AtomicU64,
    /// `not_found_allowed`: connections without a header, accepted.
    pub(crate) not_found_allowed: AtomicU64,
    /// `versions.v1.` and `versions.v2.`.
    pub(crate) versions: [VersionStats; 2],
}

/// Counters of a version.
#[derive(Debug, Default)]
pub(crate) struct VersionStats {
    /// `found`.
    pub(crate) found: AtomicU64,
    /// `disallowed`.
    pub(crate) disallowed: AtomicU64,
    /// `error`.
    pub(crate) error: AtomicU64,
}

/// Source and destination of a connection, as a PROXY header tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The client.
    pub(super) source: SocketAddr,
    /// The address it connected to.
    pub(super) destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// Undecided: more bytes are needed.
    Partial,
    /// No PROXY header.
    Absent,
    /// A malformed header.
    Malformed(Version),
    /// A header of a version that is not allowed.
    Disallowed(Version),
    /// A header of this length; `None`: the addresses of the connection itself apply (`LOCAL`, `UNKNOWN`).
    Is(Version, usize, Option<Ends>),
}

/// A version, by the index of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One = 0,
    Two = 1,
}

impl ProxyProtocol {
    /// Reads the header. What follows it stays in the buffer, or everything if there is none.
    ///
    /// # Errors
    /// If the connection is to be closed.
    pub(in crate::proxy) async fn read(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut BytesMut,
    ) -> Result<Option<Ends>, Stopped> {
        loop {
            match self.look(buffer) {
                Header::Partial => {}
                Header::Absent => {
                    let stats = &self.stats;
                    let counter = if self.optional {
                        &stats.not_found_allowed
                    } else {
                        &stats.not_found_disallowed
                    };
                    counter.fetch_add(1, Relaxed);
                    return if self.optional {
                        Ok(None)
                    } else {
                        Err(Stopped::Malformed)
                    };
                }
                Header::Malformed(version) => {
                    self.of(version).error.fetch_add(1, Relaxed);
                    return Err(Stopped::Malformed);
                }
                Header::Disallowed(version) => {
                    self.of(version).disallowed.fetch_add(1, Relaxed);
                    return Err(Stopped::Malformed);
                }
                Header::Is(version, len, ends) => {
                    self.of(version).found.fetch_add(1, Relaxed);
                    buffer.advance(len);
                    return Ok(ends);
                }
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(Stopped::Closed);
            }
        }
    }

    fn of(&self, version: Version) -> &VersionStats {
        &self.stats.versions[version as usize]
    }

    fn look(&self, bytes: &[u8]) -> Header {
        let begins = |signature: &[u8]| {
            let len = bytes.len().min(signature.len());
            bytes[..len] == signature[..len]
        };
        if self.optional && !(self.v1 && begins(SIGNATURE_V1)) && !(self.v2 && begins(SIGNATURE_V2)) {
            return Header::Absent;
        }
        let header = match (begins(SIGNATURE_V1), begins(SIGNATURE_V2)) {
            // Only the empty string is a prefix of both.
            (true, true) => Header::Partial,
            (true, false) => version_1(bytes),
            (false, true) => version_2(bytes),
            (false, false) => Header::Absent,
        };
        match header {
            Header::Is(version @ Version::One, ..) if !self.v1 => Header::Disallowed(version),
            Header::Is(version @ Version::Two, ..) if !self.v2 => Header::Disallowed(version),
            header => header,
        }
    }
}

/// Parses `PROXY TCP4 <source> <destination> <port> <port>` and the line end.
fn version_1(bytes: &[u8]) -> Header {
    let malformed = Header::Malformed(Version::One);
    let Some(end) = bytes.windows(2).take(LONGEST_V1).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > LONGEST_V1 {
            malformed
        } else {
            Header::Partial
        };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else {
        return malformed;
    };
    let parts: Vec<_> = line.trim_ascii_end().split(' ').collect();
    let ends = match parts[..] {
        [_, "UNKNOWN", ..] => None,
        [_, family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let address = |ip: &str, port: &str| {
                let ip = match family {
                    "TCP4" => IpAddr::V4(ip.parse().ok()?),
                    _ => IpAddr::V6(ip.parse().ok()?),
                };
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                Some(SocketAddr::new(ip, port.parse().ok().filter(|_| digits)?))
            };
            let (Some(source), Some(destination)) = (address(source, from), address(destination, to)) else {
                return malformed;
            };
            Some(Ends { source, destination })
        }
        _ => return malformed,
    };
    checked(Version::One, end + 2, ends)
}

/// Parses version 2: signature, version and command, family and transport, length; then the addresses and TLVs.
fn version_2(bytes: &[u8]) -> Header {
    let malformed = Header::Malformed(Version::Two);
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_V2) else {
        return Header::Partial;
    };
    let (command, family) = (fixed[12], fixed[13]);
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let addresses = match (command, family >> 4) {
        // `LOCAL`: the proxy connects on its own behalf, and the addresses are ignored.
        (0x20, _) => 0,
        (0x21, 1) => 12,
        (0x21, 2) => 36,
        _ => return malformed,
    };
    if command == 0x21 && !matches!(family & 0xf, 1 | 2) || len < addresses {
        return malformed;
    }
    let Some(rest) = rest.get(..len) else {
        return Header::Partial;
    };
    let (addresses, extensions) = rest.split_at(addresses);
    let ends = match addresses.len() {
        0 => None,
        len => {
            let (ips, ports) = addresses.split_at(len - 4);
            let (source, destination) = ips.split_at(ips.len() / 2);
            let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
            Some(Ends {
                source: SocketAddr::new(ip(source), port(0)),
                destination: SocketAddr::new(ip(destination), port(2)),
            })
        }
    };
    if ends.is_some() && !are_extensions(extensions) {
        return malformed;
    }
    checked(Version::Two, FIXED_V2 + len, ends)
}

fn ip(bytes: &[u8]) -> IpAddr {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.unwrap_or_else(|_| {
        let v6 = <[u8; 16]>::try_from(bytes).unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from(v6))
    })
}

/// Whether these bytes are a sequence of TLVs.
fn are_extensions(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(next) => bytes = next,
            None => return false,
        }
    }
    bytes.is_empty()
}

/// A header whose addresses have to be valid for a TCP connection.
fn checked(version: Version, len: usize, ends: Option<Ends>) -> Header {
    let unicast = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    match &ends {
        Some(both) if !unicast(&both.source) || !unicast(&both.destination) => Header::Malformed(version),
        _ => Header::Is(version, len, ends),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both() -> ProxyProtocol {
        ProxyProtocol {
            v1: true,
            v2: true,
            ..Default::default()
        }
    }

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        })
    }

    /// Version 2, with a command, a family, and the rest.
    fn two(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE_V2, &[command, family], &len, rest].concat()
    }

    const V4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];

    #[test]
    fn a_line_says_between_whom_a_connection_is() {
        let is = |line: &str| match both().look(line.as_bytes()) {
            Header::Is(Version::One, len, ends) if len == line.len() => ends,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(
            is("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n"),
            ends("1.2.3.4:80", "5.6.7.8:443")
        );
        assert_eq!(is("PROXY TCP6 1::2 ::3 1 65535\r\n"), ends("[1::2]:1", "[::3]:65535"));
        assert_eq!(is("PROXY UNKNOWN\r\n"), None);
        assert_eq!(is("PROXY UNKNOWN whatever it is\r\n"), None);
    }

    #[test]
    fn wrong_lines_are_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for line in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443 1\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP4 1::2 ::3 80 443\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 -1 443\r\n",
            "PROXY TCP4 0.0.0.0 5.6.7.8 80 443\r\n",
            "PROXY TCP4 1.2.3.4 224.0.0.1 80 443\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY \r\n",
            &long,
        ] {
            assert_eq!(both().look(line.as_bytes()), Header::Malformed(Version::One), "{line}");
        }
        assert_eq!(both().look(b"GET / HTTP/1.1\r\n"), Header::Absent);
        assert_eq!(both().look(b"proxy TCP4"), Header::Absent);
    }

    #[test]
    fn binary_headers_say_it_too_and_their_extensions_are_passed_over() {
        let is = |bytes: &[u8]| match both().look(bytes) {
            Header::Is(Version::Two, len, ends) if len == bytes.len() => ends,
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        };
        let wanted = ends("1.2.3.4:80", "5.6.7.8:443");
        assert_eq!(is(&two(0x21, 0x11, &V4)), wanted);
        assert_eq!(is(&two(0x21, 0x12, &V4)), wanted);
        let extended = [&V4[..], &[1, 0, 2, 7, 7, 4, 0, 0]].concat();
        assert_eq!(is(&two(0x21, 0x11, &extended)), wanted);
        let v6 = [[1; 16], [2; 16]].concat();
        assert_eq!(
            is(&two(0x21, 0x21, &[&v6[..], &[0, 1, 0, 2]].concat())),
            ends(
                "[101:101:101:101:101:101:101:101]:1",
                "[202:202:202:202:202:202:202:202]:2"
            )
        );
        assert_eq!(is(&two(0x20, 0, &[])), None);
        assert_eq!(is(&two(0x20, 0x11, &[0xff; 700])), None);
    }

    #[test]
    fn wrong_binary_headers_are_refused() {
        let extended = |extensions: &[u8]| two(0x21, 0x11, &[&V4[..], extensions].concat());
        for bytes in [
            two(0x11, 0x11, &V4),
            two(0x22, 0x11, &V4),
            two(0x21, 0x00, &V4),
            two(0x21, 0x31, &[0; 216]),
            two(0x21, 0x13, &V4),
            two(0x21, 0x11, &V4[..11]),
            two(0x21, 0x11, &[0; 12]),
            extended(&[1]),
            extended(&[1, 0]),
            extended(&[1, 0, 1]),
            extended(&[1, 0xff, 0xff, 1]),
        ] {
            let found = both().look(&bytes);
            assert_eq!(found, Header::Malformed(Version::Two), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn versions_may_be_ruled_out_and_headers_left_out() {
        let one = b"PROXY UNKNOWN\r\n";
        let two = two(0x20, 0, &[]);
        let only = |v1, v2, optional| ProxyProtocol {
            v1,
            v2,
            optional,
            ..Default::default()
        };
        assert_eq!(only(false, true, false).look(one), Header::Disallowed(Version::One));
        assert_eq!(only(true, false, false).look(&two), Header::Disallowed(Version::Two));
        // As if they were something else.
        assert_eq!(only(false, true, true).look(one), Header::Absent);
        assert_eq!(only(true, false, true).look(&two), Header::Absent);
        assert_eq!(only(true, true, true).look(b"GET"), Header::Absent);
        assert_eq!(only(true, true, true).look(b"PRO"), Header::Partial);
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left() {
        let bytes = [&two(0x21, 0x11, &V4)[..], b"GET /"].concat();
        let mut buffer = BytesMut::new();
        let found = both().read(&mut &bytes[..], &mut buffer).await.unwrap();
        assert_eq!(found, ends("1.2.3.4:80", "5.6.7.8:443"));
        assert_eq!(&buffer[..], b"GET /");
        let cut = both().read(&mut &bytes[..20], &mut BytesMut::new()).await;
        assert!(matches!(cut, Err(Stopped::Closed)));
    }

    proptest! {
        #[test]
        fn every_beginning_of_a_header_may_become_one(family in 0_u8..=1, rest in prop::collection::vec(any::<u8>(), 0..300), cut in 0.0..1.0) {
            let header = match family {
                0 => two(0x20, 0, &rest),
                _ => b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n".to_vec(),
            };
            let cut = (header.len() as f64 * cut) as usize;
            prop_assert_eq!(both().look(&header[..cut]), Header::Partial);
        }

        #[test]
        fn nothing_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..100), signed in any::<bool>()) {
            let bytes = if signed { [SIGNATURE_V2, &bytes].concat() } else { bytes };
            if let Header::Is(_, len, _) = both().look(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
