//! Parsing the head of a response: status line and headers.

use bytes::BytesMut;
use http::{Method, Response, StatusCode, Version};

use super::lines::{self, Field, Size};
use super::{Refusal, Rest};

/// Envoy's limits for response heads.
pub(crate) const SIZE: Size = Size {
    bytes: 60 << 10,
    count: COUNT,
};

/// Envoy's limit for the number of response headers, whichever version of HTTP.
pub(crate) const COUNT: usize = 100;

/// Capacity for headers that are added on the way.
const ADDED: usize = 3;

/// The kind of request that a response answers, as far as it affects the framing (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Any other.
    #[default]
    Other,
    /// HEAD.
    Head,
    /// An upgrade.
    Upgrade,
    /// CONNECT.
    Connect,
}

impl Asked {
    /// The kind of a request with this method, which may be an upgrade.
    pub(crate) fn of(method: &Method, upgrade: bool) -> Self {
        match *method {
            Method::CONNECT => Asked::Connect,
            _ if upgrade => Asked::Upgrade,
            Method::HEAD => Asked::Head,
            _ => Asked::Other,
        }
    }

    /// Whether a response of this status opens a tunnel.
    pub(crate) fn is_tunnel(self, status: StatusCode) -> bool {
        match self {
            Asked::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Asked::Connect => status.is_success(),
            Asked::Head | Asked::Other => false,
        }
    }

    /// Whether a response of this status has no body, whatever its headers say (RFC 9110 section 6.4.1).
    pub(crate) fn is_bodiless(self, status: StatusCode) -> bool {
        self == Asked::Head
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
    }
}

/// The parsed head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    /// The response without its body.
    pub(crate) response: Response<()>,
    /// What follows the head.
    pub(crate) rest: Rest,
    /// Whether the connection can be reused.
    pub(crate) keep_alive: bool,
}

impl Head {
    /// Whether it is an interim (1xx) response.
    pub(crate) fn is_interim(&self) -> bool {
        let status = self.response.status();
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Takes the head at the beginning of `bytes`; `None`: it is not complete.
///
/// # Errors
/// If it is malformed, or its length is ambiguous.
pub(crate) fn take(bytes: &mut BytesMut, fields: &mut Vec<Field>, asked: Asked) -> Result<Option<Head>, Refusal> {
    let mut found = Found::default();
    let first = |start, end| status_line(&bytes[start..end]);
    let scanned = lines::scan(bytes, SIZE, fields, first, |name, value| found.add(name, value))?;
    let Some(((version, status), len)) = scanned else {
        return Ok(None);
    };
    let rest = found.rest(asked, version, status)?;
    let head = bytes.split_to(len).freeze();
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = lines::headers(&head, fields, ADDED)?;
    let stays = match version {
        Version::HTTP_10 => found.stays,
        _ => !found.closes,
    };
    Ok(Some(Head {
        response,
        rest,
        keep_alive: stays && rest != Rest::UntilEnd,
    }))
}

/// Parses `HTTP/1.1 200 OK`; the reason phrase may be missing.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), Refusal> {
    let (version, rest) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', rest @ ..] => (Version::HTTP_11, rest),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', rest @ ..] => (Version::HTTP_10, rest),
        _ => return Err(Refusal::CODEC),
    };
    let (status, text) = rest.split_at_checked(3).ok_or(Refusal::CODEC)?;
    if !matches!(text, [] | [b' ', ..]) {
        return Err(Refusal::CODEC);
    }
    let status = StatusCode::from_bytes(status).map_err(|_| Refusal::CODEC)?;
    Ok((version, status))
}

/// The headers that decide where the response ends and what follows it.
#[derive(Default)]
struct Found {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    stays: bool,
}

impl Found {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.closes |= lines::names(value, b"close");
                self.stays |= lines::names(value, b"keep-alive");
            }
            // Several lengths, or an invalid one, may be read differently by others (RFC 9112 section 6.3).
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = lines::length(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(Refusal::CODEC)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let again = std::mem::replace(&mut self.chunked, true);
                if again || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::CODEC);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&self, asked: Asked, version: Version, status: StatusCode) -> Result<Rest, Refusal> {
        if (self.chunked && (self.length.is_some() || version == Version::HTTP_10))
            || (status == StatusCode::NO_CONTENT && (self.chunked || self.length.is_some_and(|length| length > 0)))
            || (status == StatusCode::SWITCHING_PROTOCOLS && asked != Asked::Upgrade)
        {
            return Err(Refusal::CODEC);
        }
        Ok(match self.length {
            _ if asked.is_tunnel(status) => Rest::UntilEnd,
            _ if asked.is_bodiless(status) => Rest::Nothing,
            Some(length) => Rest::length(length),
            None if self.chunked => Rest::CHUNKED,
            None => Rest::UntilEnd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str, asked: Asked) -> Option<Head> {
        take(&mut BytesMut::from(head), &mut Vec::new(), asked).ok().flatten()
    }

    fn rest(fields: &str, status: u16, asked: Asked) -> Option<Rest> {
        let head = parse(&format!("HTTP/1.1 {status} Text\r\n{fields}\r\n"), asked)?;
        assert_eq!(head.response.status(), status);
        Some(head.rest)
    }

    #[test]
    fn status_lines() {
        for (line, status) in [
            ("HTTP/1.1 200 OK", Some(200)),
            ("HTTP/1.1 200 ", Some(200)),
            ("HTTP/1.1 200", Some(200)),
            ("HTTP/1.0 404 Not  found at all", Some(404)),
            ("HTTP/1.1 600 ?", Some(600)),
            ("HTTP/1.1 200OK", None),
            ("HTTP/1.1 20 OK", None),
            ("HTTP/1.1 2000", None),
            ("HTTP/1.1  200 OK", None),
            ("HTTP/1.1 099 OK", None),
            ("HTTP/2.0 200 OK", None),
            ("http/1.1 200 OK", None),
            ("garbage garbage", None),
        ] {
            let head = parse(&format!("{line}\r\n\r\n"), Asked::Other);
            assert_eq!(head.map(|head| head.response.status().as_u16()), status, "{line}");
        }
    }

    #[test]
    fn what_comes_after_a_head() {
        let (length, chunked) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
        for (fields, status, asked, after) in [
            ("", 200, Asked::Other, Some(Rest::UntilEnd)),
            (length, 200, Asked::Other, Some(Rest::Length(5))),
            ("content-length: 0\r\n", 200, Asked::Other, Some(Rest::Nothing)),
            (chunked, 200, Asked::Other, Some(Rest::CHUNKED)),
            (length, 200, Asked::Head, Some(Rest::Nothing)),
            (length, 304, Asked::Other, Some(Rest::Nothing)),
            ("", 204, Asked::Other, Some(Rest::Nothing)),
            ("content-length: 0\r\n", 204, Asked::Other, Some(Rest::Nothing)),
            (length, 204, Asked::Other, None),
            (chunked, 204, Asked::Other, None),
            ("", 101, Asked::Upgrade, Some(Rest::UntilEnd)),
            ("", 101, Asked::Other, None),
            (length, 426, Asked::Upgrade, Some(Rest::Length(5))),
            ("", 200, Asked::Connect, Some(Rest::UntilEnd)),
            (length, 403, Asked::Connect, Some(Rest::Length(5))),
            ("content-length: 5\r\ncontent-length: 5\r\n", 200, Asked::Other, None),
            ("content-length: -5\r\n", 200, Asked::Other, None),
            (
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                200,
                Asked::Other,
                None,
            ),
            ("transfer-encoding: gzip, chunked\r\n", 200, Asked::Other, None),
            ("x-a : b\r\n", 200, Asked::Other, None),
            ("x-a: \0\r\n", 200, Asked::Other, None),
        ] {
            assert_eq!(rest(fields, status, asked), after, "{status} {fields}");
        }
        assert!(parse("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Asked::Other).is_none());
    }

    #[test]
    fn connections_stay_where_both_versions_say_so() {
        for (version, field, stays) in [
            (1, "x: a", true),
            (1, "connection: close", false),
            (0, "x: a", false),
            (0, "connection: Keep-Alive", true),
        ] {
            let head = format!("HTTP/1.{version} 200 OK\r\n{field}\r\ncontent-length: 1\r\n\r\n");
            assert_eq!(
                parse(&head, Asked::Other).unwrap().keep_alive,
                stays,
                "{version} {field}"
            );
        }
        assert!(!parse("HTTP/1.1 200 OK\r\n\r\n", Asked::Other).unwrap().keep_alive);
    }
}
