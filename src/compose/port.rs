//! Ports in compose files and in the mesh.

use std::fmt;
use std::ops::RangeInclusive;

use super::fields::{Item, Spot};
use crate::diag::{Code, Diagnostic};

/// An entry of `ports` or `expose`.
#[derive(Clone, Debug)]
pub(super) struct Port {
    /// Container ports; `None` if they contain a variable.
    pub(super) targets: Option<RangeInclusive<u16>>,
    /// Whether the protocol is `tcp`, the default.
    pub(super) is_tcp: bool,
    /// `app_protocol` of the long syntax.
    pub(super) app_protocol: Option<Spot>,
    /// Location of the entry.
    pub(super) spot: Spot,
}

/// Maximum size of a port range; a sidecar has a listener per port.
const MAX_RANGE: u16 = 100;

/// Parses entries of `ports` or `expose`: `HOST:CONTAINER/PROTOCOL`, or the long syntax of `ports`.
pub(super) fn read(items: &[Item<'_>], problems: &mut Vec<Diagnostic>) -> Vec<Port> {
    let mut found = Vec::new();
    for item in items {
        match port(item) {
            Ok(port) => found.push(port),
            Err(problem) => problems.push(problem),
        }
    }
    found
}

fn port(item: &Item<'_>) -> Result<Port, Diagnostic> {
    let invalid = |spot: &Spot, message: &str| {
        let problem = format!("`{}` is not a port: {message}", spot.text.escape_debug());
        Diagnostic::new(Code::InvalidValue, problem).at(spot.place.clone())
    };
    let (container, protocol, spot) = match item.is_map() {
        true => {
            let target = item.get("target").ok_or_else(|| {
                Diagnostic::new(Code::MissingField, "a port in long syntax must have a `target`").at(item.place())
            })?;
            let protocol = item.get("protocol").map(|protocol| protocol.text);
            (target.text.clone(), protocol, target)
        }
        false => {
            let spot = item
                .spot()
                .ok_or_else(|| Diagnostic::new(Code::InvalidValue, "expected a port").at(item.place()))?;
            let (rest, protocol) = split_last(&spot.text, '/');
            let (before, container) = split_last(rest, ':');
            let container = container.unwrap_or(before).to_owned();
            (container, protocol.map(str::to_owned), spot)
        }
    };
    let container = Spot {
        text: container,
        place: spot.place.clone(),
    };
    let targets = match container.is_interpolated() {
        true => None,
        false => Some(range(&container.text).map_err(|why| invalid(&spot, why))?),
    };
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned());
    Ok(Port {
        targets,
        is_tcp: protocol.eq_ignore_ascii_case("tcp"),
        app_protocol: item.get("app_protocol"),
        spot,
    })
}

/// Splits at the last `separator` that is not within `${…}`.
fn split_last(text: &str, separator: char) -> (&str, Option<&str>) {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices().rev() {
        match character {
            '}' => depth += 1,
            '{' => depth = depth.saturating_sub(1),
            found if found == separator && depth == 0 => return (&text[..at], Some(&text[at + 1..])),
            _ => {}
        }
    }
    (text, None)
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let number = |text: &str| match text.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err("expected a number from 1 to 65535"),
        Ok(number) => Ok(number),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    match last.checked_sub(first) {
        None => Err("the end of the range is before its start"),
        Some(length) if length >= MAX_RANGE => Err("a range can have at most 100 ports"),
        Some(_) => Ok(first..=last),
    }
}

/// Protocol of a port, as in Istio's `appProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Detected per connection.
    Auto,
    /// HTTP/1.1, routed by its `Host`.
    Http,
    /// HTTP/2 without TLS (prior knowledge).
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// TLS passthrough.
    Tls,
    /// HTTPS passthrough.
    Https,
    /// TCP.
    Tcp,
}

impl Protocol {
    /// Protocol names.
    pub(super) const NAMES: [(&'static str, Protocol); 11] = [
        ("auto", Protocol::Auto),
        ("http", Protocol::Http),
        ("http2", Protocol::Http2),
        ("h2c", Protocol::Http2),
        ("grpc", Protocol::Grpc),
        ("grpc-web", Protocol::GrpcWeb),
        ("tls", Protocol::Tls),
        ("https", Protocol::Https),
        ("tcp", Protocol::Tcp),
        ("mongo", Protocol::Tcp),
        ("redis", Protocol::Tcp),
    ];

    /// The protocol with a name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, protocol)| *protocol)
    }

    /// The default protocol of a port. TCP for server-first and non-HTTP protocols: detection would
    /// wait for the client's first bytes.
    pub(super) fn of_port(port: u16) -> Self {
        match port {
            // FTP, SSH, SMTP, POP3, IMAP
            21 | 22 | 25 | 110 | 143 | 465 | 587 | 993 | 995 => Self::Tcp,
            // SQL Server, Oracle, MQTT, ZooKeeper, MySQL, PostgreSQL, CockroachDB
            1433 | 1521 | 1883 | 2181 | 3306 | 5432 | 5433 | 6432 | 26257 | 33060 => Self::Tcp,
            // NATS, AMQP, Redis, Kafka, Cassandra, memcached, MongoDB, ActiveMQ, Bolt
            4222 | 5671 | 5672 | 6379 | 6380 | 7687 | 9042 | 9092..=9094 | 11211 | 26379 => Self::Tcp,
            27017..=27019 | 61613 | 61616 => Self::Tcp,
            _ => Self::Auto,
        }
    }

    /// `appProtocol`; `None` for detection.
    pub(super) fn app_protocol(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Http => Some("http"),
            Self::Http2 => Some("http2"),
            Self::Grpc => Some("grpc"),
            Self::GrpcWeb => Some("grpc-web"),
            Self::Tls => Some("tls"),
            Self::Https => Some("https"),
            Self::Tcp => Some("tcp"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.app_protocol().unwrap_or("auto"))
    }
}

/// A port that a service listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ListenPort {
    /// Port number in the container.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it is published (`ports`).
    pub published: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_container_is_the_last() {
        let container = |text| {
            let (rest, _) = split_last(text, '/');
            let (before, last) = split_last(rest, ':');
            last.unwrap_or(before).to_owned()
        };
        assert_eq!(container("80"), "80");
        assert_eq!(container("8080:80/tcp"), "80");
        assert_eq!(container("127.0.0.1:8080:80"), "80");
        assert_eq!(container("[::1]:8080:80"), "80");
        assert_eq!(container("${IP:-127.0.0.1}:${PORT:-8080}:80"), "80");
        assert_eq!(container("8080:${PORT:-80}/udp"), "${PORT:-80}");
        assert_eq!(container("${PORT:-8080:80}"), "${PORT:-8080:80}");
    }

    #[test]
    fn ranges() {
        assert_eq!(range("80"), Ok(80..=80));
        assert_eq!(range("3000-3005"), Ok(3000..=3005));
        for wrong in ["", "0", "65536", "a", "3005-3000", "1-101", "1-2-3", "80 http"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn where_the_server_speaks_first_nothing_is_found_out() {
        for port in [25, 3306, 5432, 6379, 27017, 9092] {
            assert_eq!(Protocol::of_port(port), Protocol::Tcp);
        }
        assert_eq!(Protocol::of_port(8080), Protocol::Auto);
    }

    #[test]
    fn what_can_be_asked_for_is_what_istio_knows() {
        for (name, protocol) in Protocol::NAMES {
            assert_eq!(Protocol::of_name(&name.to_uppercase()), Some(protocol));
        }
        assert_eq!(Protocol::of_name("htpp"), None);
    }
}
