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
pub(crate) enum RequestKind {
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

impl RequestKind {
    /// The kind of a request with this method, which may be an upgrade.
    pub(crate) fn of(method: &Method, upgrade: bool) -> Self {
        match *method {
            Method::CONNECT => RequestKind::Connect,
            _ if upgrade => RequestKind::Upgrade,
            Method::HEAD => RequestKind::Head,
            _ => RequestKind::Other,
        }
    }

    /// Whether a response of this status opens a tunnel.
    pub(crate) fn is_tunnel(self, status: StatusCode) -> bool {
        match self {
            RequestKind::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            RequestKind::Connect => status.is_success(),
            RequestKind::Head | RequestKind::Other => false,
        }
    }

    /// Whether a response of this status has no body, whatever its headers say (RFC 9110 section 6.4.1).
    pub(crate) fn is_bodiless(self, status: StatusCode) -> bool {
        self == RequestKind::Head
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
pub(crate) fn take(bytes: &mut BytesMut, fields: &mut Vec<Field>, kind: RequestKind) -> Result<Option<Head>, Refusal> {
    let mut found = Found::default();
    let first = |start, end| status_line(&bytes[start..end]);
    let scanned = lines::scan(bytes, SIZE, fields, first, |name, value| found.add(name, value))?;
    let Some(((version, status), len)) = scanned else {
        return Ok(None);
    };
    let rest = found.rest(kind, version, status)?;
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

    fn rest(&self, kind: RequestKind, version: Version, status: StatusCode) -> Result<Rest, Refusal> {
        if (self.chunked && (self.length.is_some() || version == Version::HTTP_10))
            || (status == StatusCode::NO_CONTENT && (self.chunked || self.length.is_some_and(|length| length > 0)))
            || (status == StatusCode::SWITCHING_PROTOCOLS && kind != RequestKind::Upgrade)
        {
            return Err(Refusal::CODEC);
        }
        Ok(match self.length {
            _ if kind.is_tunnel(status) => Rest::UntilEnd,
            _ if kind.is_bodiless(status) => Rest::Nothing,
            Some(length) => Rest::length(length),
            None if self.chunked => Rest::CHUNKED,
            None => Rest::UntilEnd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str, kind: RequestKind) -> Option<Head> {
        take(&mut BytesMut::from(head), &mut Vec::new(), kind).ok().flatten()
    }

    fn rest(fields: &str, status: u16, kind: RequestKind) -> Option<Rest> {
        let head = parse(&format!("HTTP/1.1 {status} Text\r\n{fields}\r\n"), kind)?;
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
            let head = parse(&format!("{line}\r\n\r\n"), RequestKind::Other);
            assert_eq!(head.map(|head| head.response.status().as_u16()), status, "{line}");
        }
    }

    #[test]
    fn what_comes_after_a_head() {
        let (length, chunked) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
        for (fields, status, kind, after) in [
            ("", 200, RequestKind::Other, Some(Rest::UntilEnd)),
            (length, 200, RequestKind::Other, Some(Rest::Length(5))),
            ("content-length: 0\r\n", 200, RequestKind::Other, Some(Rest::Nothing)),
            (chunked, 200, RequestKind::Other, Some(Rest::CHUNKED)),
            (length, 200, RequestKind::Head, Some(Rest::Nothing)),
            (length, 304, RequestKind::Other, Some(Rest::Nothing)),
            ("", 204, RequestKind::Other, Some(Rest::Nothing)),
            ("content-length: 0\r\n", 204, RequestKind::Other, Some(Rest::Nothing)),
            (length, 204, RequestKind::Other, None),
            (chunked, 204, RequestKind::Other, None),
            ("", 101, RequestKind::Upgrade, Some(Rest::UntilEnd)),
            ("", 101, RequestKind::Other, None),
            (length, 426, RequestKind::Upgrade, Some(Rest::Length(5))),
            ("", 200, RequestKind::Connect, Some(Rest::UntilEnd)),
            (length, 403, RequestKind::Connect, Some(Rest::Length(5))),
            (
                "content-length: 5\r\ncontent-length: 5\r\n",
                200,
                RequestKind::Other,
                None,
            ),
            ("content-length: -5\r\n", 200, RequestKind::Other, None),
            (
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                200,
                RequestKind::Other,
                None,
            ),
            ("transfer-encoding: gzip, chunked\r\n", 200, RequestKind::Other, None),
            ("x-a : b\r\n", 200, RequestKind::Other, None),
            ("x-a: \0\r\n", 200, RequestKind::Other, None),
        ] {
            assert_eq!(rest(fields, status, kind), after, "{status} {fields}");
        }
        assert!(
            parse(
                "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                RequestKind::Other
            )
            .is_none()
        );
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
                parse(&head, RequestKind::Other).unwrap().keep_alive,
                stays,
                "{version} {field}"
            );
        }
        assert!(!parse("HTTP/1.1 200 OK\r\n\r\n", RequestKind::Other).unwrap().keep_alive);
    }
}
