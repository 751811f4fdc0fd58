//! Parsers of flag values.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::name::Hostname;

/// Parses a label, `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE, such as app=reviews".to_owned()),
    }
}

/// Parses a duration: numbers with the units `s`, `m`, `h` and `d`, such as `30d` or `1h30m`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with a unit (s, m, h or d), such as 12h or 30d".to_owned();
    let mut rest = text;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let unit_seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let more = number.checked_mul(unit_seconds).ok_or_else(wrong)?;
        seconds = seconds.checked_add(more).ok_or_else(wrong)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_secs(seconds))
    }
}

/// `UID[:GID]`; the group ID defaults to the user ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            // The maximum means "unchanged" to `chown` and `setresuid`.
            (Ok(uid), Ok(gid)) if uid != u32::MAX && gid != u32::MAX => Ok(Self { uid, gid }),
            _ => Err("expected a numeric UID or UID:GID, such as 1337:1337".to_owned()),
        }
    }
}

/// `HOST:PORT` of a server; the host is a name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host name or address.
    pub host: Host,
    /// Port, not 0.
    pub port: u16,
}

/// Host of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A name to be resolved.
    Name(Hostname),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => write!(f, "{name}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected HOST:PORT, such as 127.0.0.1:15012, [::1]:15012 or mesh.example:15012".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => Host::Address(IpAddr::V6(host.parse().map_err(|_| wrong())?)),
            None => host
                .parse()
                .map(|v4| Host::Address(IpAddr::V4(v4)))
                .or_else(|_| name(host).ok_or_else(wrong))?,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(Self { host, port })
    }
}

fn name(text: &str) -> Option<Host> {
    let name: Hostname = text.parse().ok()?;
    let dialled = !name.is_wildcard() && text.parse::<IpAddr>().is_err();
    dialled.then_some(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_require_a_key() {
        assert_eq!(label("app=a=b").unwrap(), ("app".to_owned(), "a=b".to_owned()));
        assert_eq!(label("canary=").unwrap().1, "");
        assert!(label("app").is_err() && label("=a").is_err());
    }

    #[test]
    fn durations_require_units() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("12h", 43200),
            ("1h30m", 5400),
            ("7s", 7),
            ("0s", 0),
        ] {
            assert_eq!(span(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in [
            "",
            "30",
            "d",
            "-1d",
            "1.5h",
            "30 d",
            "30w",
            "1é",
            "99999999999999999999d",
            "9999999999999999999d",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn owners_are_numeric() {
        assert_eq!("1337".parse(), Ok(Owner { uid: 1337, gid: 1337 }));
        assert_eq!("0:5".parse(), Ok(Owner { uid: 0, gid: 5 }));
        for text in ["", ":", "1:", ":1", "root", "1:2:3", "-1", "4294967295", "1 :2"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_require_host_and_port() {
        for text in ["127.0.0.1:15012", "mesh.example:15012", "localhost:1"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(format!("{}:{}", endpoint.host, endpoint.port), text);
        }
        let six: Endpoint = "[::1]:15012".parse().unwrap();
        assert_eq!(six.host, Host::Address("::1".parse().unwrap()));
        for text in [
            "",
            "127.0.0.1",
            "a:0",
            "a:65536",
            ":1",
            "::1:15012",
            "[::1",
            "*.a:1",
            "a b:1",
            "[127.0.0.1]:1",
            "10.0.0.999:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
