//! Parsing the head of a request: request line and headers.

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, Uri};

use super::lines::{self, Field, Size};
use super::{Refusal, Rest};
use crate::proxy::flags::Flags;

/// The methods that are accepted, as by Envoy.
pub(crate) const METHODS: [&[u8]; 35] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"MSEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

/// Capacity for headers that are added on the way.
const ADDED: usize = 8;

const URL: Refusal = Refusal::bad("http1.invalid_url");
const LENGTH_AND_CHUNKED: Refusal = Refusal::bad("http1.content_length_and_chunked_not_allowed");
const TRANSFER_ENCODING: Refusal = Refusal::not_implemented("http1.invalid_transfer_encoding");
const VERSION: Refusal = Refusal::broken(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", "low_version");
/// A request target with a fragment, which clients must not send.
pub(crate) const FRAGMENT: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    text: "",
    flags: Flags::NONE,
    details: "path_normalization_failed",
};

/// The parsed head of a request.
#[derive(Debug)]
pub(super) struct Head {
    /// The request without its body.
    pub(super) request: Request<()>,
    /// What follows the head.
    pub(super) rest: Rest,
    /// Whether the client may send another request on the connection.
    pub(super) keep_alive: bool,
}

/// Takes the head at the beginning of `bytes`, of at most `size`; `None`: it is not complete.
///
/// # Errors
/// If it is malformed.
pub(super) fn take(bytes: &mut BytesMut, fields: &mut Vec<Field>, size: Size) -> Result<Option<Head>, Refusal> {
    let mut found = Found::default();
    let first = |start, end| RequestLine::parse(&bytes[start..end], start);
    let Some((line, len)) = lines::scan(bytes, size, fields, first, |name, value| found.add(name, value))? else {
        return Ok(None);
    };
    let rest = found.rest(&line.method)?;
    let head = bytes.split_to(len).freeze();
    let mut request = Request::new(());
    *request.headers_mut() = lines::headers(&head, fields, ADDED)?;
    *request.uri_mut() = uri(&line, &head)?;
    *request.method_mut() = line.method;
    Ok(Some(Head {
        request,
        rest,
        keep_alive: !found.closes,
    }))
}

/// The request line: the method, and the offsets of the target.
struct RequestLine {
    method: Method,
    target: (usize, usize),
}

impl RequestLine {
    /// Parses the line that begins at `start`.
    fn parse(line: &[u8], start: usize) -> Result<Self, Refusal> {
        let (method, rest) = split_at(line, b' ').ok_or(Refusal::CODEC)?;
        if !METHODS.contains(&method) {
            return Err(Refusal::CODEC);
        }
        let (target, version) = split_at(rest, b' ').unwrap_or((rest, b""));
        match version {
            b"HTTP/1.1" => {}
            b"" => return Err(VERSION),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(VERSION);
            }
            _ => return Err(Refusal::CODEC),
        }
        let from = start + method.len() + 1;
        let target = (from, from + check_target(method, target)?.len());
        let method = Method::from_bytes(method).map_err(|_| Refusal::CODEC)?;
        Ok(Self { method, target })
    }
}

fn uri(line: &RequestLine, head: &Bytes) -> Result<Uri, Refusal> {
    let target = head.slice(line.target.0..line.target.1);
    let taken = match is_odd(&target) {
        false => Uri::from_maybe_shared(target),
        true => Uri::from_maybe_shared(Bytes::from(encoded(&target))),
    };
    taken.map_err(|_| URL)
}

/// Whether a target has bytes that [`encoded`] encodes.
pub(crate) fn is_odd(target: &[u8]) -> bool {
    target.iter().any(|byte| matches!(byte, b'"' | b'<' | b'>' | b'`'))
}

/// The target with the bytes percent-encoded that RFC 3986 section 2 does not allow and [`Uri`] refuses.
pub(crate) fn encoded(target: &[u8]) -> Vec<u8> {
    let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let mut out = Vec::with_capacity(target.len() + 8);
    for (at, byte) in target.iter().enumerate() {
        match byte {
            b'<' | b'>' => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            b'`' if at < query => out.extend_from_slice(b"%60"),
            b'"' if at > query => out.extend_from_slice(b"%22"),
            _ => out.push(*byte),
        }
    }
    out
}

fn check_target<'a>(method: &[u8], target: &'a [u8]) -> Result<&'a [u8], Refusal> {
    let printable = target.iter().all(|byte| (0x21..0x7f).contains(byte));
    if target.is_empty() || !printable {
        return Err(Refusal::CODEC);
    }
    if target.contains(&b'#') {
        return Err(FRAGMENT);
    }
    match target {
        [b'/', ..] if method == b"CONNECT" => Err(URL),
        [b'/', ..] => Ok(target),
        b"*" if method == b"OPTIONS" => Ok(target),
        b"*" => Err(URL),
        _ if method == b"CONNECT" => match (port(target), authority(target)) {
            (Some(true), Ok(())) => Ok(target),
            _ => Err(URL),
        },
        _ => absolute(target).map(|()| target),
    }
}

/// Checks a target in absolute form.
fn absolute(target: &[u8]) -> Result<(), Refusal> {
    let Some(colon) = target.windows(3).position(|three| three == b"://") else {
        return Err(Refusal::CODEC);
    };
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Refusal::bad("http1.invalid_scheme"));
    }
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    match &rest[..end] {
        b"" => Err(URL),
        host if port(host) == Some(false) => Err(URL),
        host => authority(host),
    }
}

/// Whether the port of an authority is valid; `None`: it has none.
fn port(authority: &[u8]) -> Option<bool> {
    let host = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let host = &authority[host..];
    // An IPv6 address has its colons in brackets.
    let from = host.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    let colon = from + host[from..].iter().rposition(|byte| *byte == b':')?;
    let port = std::str::from_utf8(&host[colon + 1..]).unwrap_or_default();
    Some(port.parse::<u16>().is_ok() && !port.starts_with('+'))
}

/// Checks a `host` (RFC 3986 section 3.2).
fn authority(host: &[u8]) -> Result<(), Refusal> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]".contains(byte);
    match host.iter().all(allowed) {
        true => Ok(()),
        false => Err(Refusal::bad("http.invalid_authority")),
    }
}

/// The headers that decide where the request ends and what follows it.
#[derive(Default)]
struct Found {
    length: Option<u64>,
    chunked: bool,
    asks_for_upgrade: bool,
    may_upgrade: bool,
    has_upgrade: bool,
    closes: bool,
}

impl Found {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        // Most headers do not matter here, and most of those differ in length from the ones that do.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => authority(value),
            16 if name.eq_ignore_ascii_case(b"proxy-connection") => {
                self.closes |= lines::names(value, b"close");
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                // The first one counts: see `conditioning`.
                self.may_upgrade |= !self.has_upgrade && !value.eq_ignore_ascii_case(b"h2c");
                self.has_upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.asks_for_upgrade |= lines::names(value, b"upgrade");
                self.closes |= lines::names(value, b"close");
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                // Equal values are refused, too: other parsers may read a list differently.
                if self
                    .length
                    .replace(lines::length(value).ok_or(Refusal::CODEC)?)
                    .is_some()
                {
                    return Err(Refusal::CODEC);
                }
                Ok(())
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(TRANSFER_ENCODING);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rest(&self, method: &Method) -> Result<Rest, Refusal> {
        let connect = method == Method::CONNECT;
        match (self.length, self.chunked) {
            (Some(_), true) => Err(LENGTH_AND_CHUNKED),
            (_, true) if connect => Err(TRANSFER_ENCODING),
            (Some(1..), false) if connect => Err(Refusal::bad("http1.body_disallowed")),
            _ if connect || (self.asks_for_upgrade && self.may_upgrade) => Ok(Rest::UntilEnd),
            (_, true) => Ok(Rest::CHUNKED),
            (Some(length), false) => Ok(Rest::length(length)),
            (None, false) => Ok(Rest::Nothing),
        }
    }
}

fn split_at(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { bytes: 300, count: 5 };

    fn parse(head: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
        let mut bytes = BytesMut::from(head);
        let taken = take(&mut bytes, &mut Vec::new(), SIZE)?;
        Ok(taken.map(|taken| (taken, head.len() - bytes.len())))
    }

    fn details(head: &[u8]) -> &'static str {
        match parse(head) {
            Ok(Some(_)) => "taken",
            Ok(None) => "partial",
            Err(refusal) => refusal.details,
        }
    }

    fn rest(fields: &str) -> Result<Rest, &'static str> {
        let head = format!("POST /a HTTP/1.1\r\n{fields}\r\n");
        let parsed = parse(head.as_bytes()).map_err(|refusal| refusal.details)?;
        let (parsed, len) = parsed.unwrap();
        assert_eq!(len, head.len());
        Ok(parsed.rest)
    }

    #[test]
    fn every_cut_of_a_head_is_a_part_of_one() {
        let head = b"\r\nGET /a?b HTTP/1.1\r\nhost: a:80\nx-a:\tb\xe9 \r\nx:\r\n\r\nrest";
        for len in 0..head.len() - 4 {
            assert_eq!(details(&head[..len]), "partial", "{len}");
        }
        let (taken, len) = parse(head).unwrap().unwrap();
        assert_eq!(
            (len, taken.rest, taken.keep_alive),
            (head.len() - 4, Rest::Nothing, true)
        );
        let request = taken.request;
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::GET, "/a?b".to_owned())
        );
        let headers = request.headers();
        let values = [("host", &b"a:80"[..]), ("x-a", b"b\xe9"), ("x", b"")];
        assert_eq!(headers.len(), values.len());
        for (name, value) in values {
            assert_eq!(headers[name].as_bytes(), value);
        }
    }

    #[test]
    fn first_lines() {
        for (line, told) in [
            ("GET http://a/b HTTP/1.1", "taken"),
            ("GET https://a?b HTTP/1.1", "taken"),
            ("OPTIONS * HTTP/1.1", "taken"),
            ("CONNECT a:1 HTTP/1.1", "taken"),
            ("CONNECT [::1]:1 HTTP/1.1", "taken"),
            ("GET http://[::1]/b HTTP/1.1", "taken"),
            ("GET http://u:p@a:80/b HTTP/1.1", "taken"),
            ("CONNECT a HTTP/1.1", "http1.invalid_url"),
            ("CONNECT [::1] HTTP/1.1", "http1.invalid_url"),
            ("GET http://a:b/c HTTP/1.1", "http1.invalid_url"),
            ("GET http://a:/c HTTP/1.1", "http1.invalid_url"),
            ("GET http://a:65536/c HTTP/1.1", "http1.invalid_url"),
            ("GET * HTTP/1.1", "http1.invalid_url"),
            ("CONNECT /a HTTP/1.1", "http1.invalid_url"),
            ("GET http:///a HTTP/1.1", "http1.invalid_url"),
            ("GET ftp://a/b HTTP/1.1", "http1.invalid_scheme"),
            ("GET a:1 HTTP/1.1", "http1.codec_error"),
            ("GET ?a HTTP/1.1", "http1.codec_error"),
            ("GET /a#b HTTP/1.1", "path_normalization_failed"),
            ("GET  /a HTTP/1.1", "http1.codec_error"),
            ("GET /a  HTTP/1.1", "http1.codec_error"),
            ("GET /a b HTTP/1.1", "http1.codec_error"),
            ("GET\t/a HTTP/1.1", "http1.codec_error"),
            ("GET /\u{e9} HTTP/1.1", "http1.codec_error"),
            ("GET /\u{1} HTTP/1.1", "http1.invalid_characters"),
            ("GET /a HTTP/1.0", "low_version"),
            ("GET /a HTTP/2.0", "low_version"),
            ("GET /a", "low_version"),
            ("GET /a http/1.1", "http1.codec_error"),
            ("GET /a HTTP/1.10", "http1.codec_error"),
            ("get /a HTTP/1.1", "http1.codec_error"),
            ("FOO /a HTTP/1.1", "http1.codec_error"),
            ("- /a HTTP/1.1", "http1.codec_error"),
            (" GET /a HTTP/1.1", "http1.codec_error"),
            ("BAD", "http1.codec_error"),
        ] {
            assert_eq!(details(format!("{line}\r\n\r\n").as_bytes()), told, "{line}");
        }
    }

    #[test]
    fn fields() {
        for (fields, told) in [
            ("", Ok(Rest::Nothing)),
            ("content-length: 005\r\n", Ok(Rest::Length(5))),
            ("content-length: 0\r\n", Ok(Rest::Nothing)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Rest::CHUNKED)),
            ("connection: a, Upgrade\r\nupgrade: WebSocket\r\n", Ok(Rest::UntilEnd)),
            (
                "connection: upgrade\r\nupgrade: x\r\nupgrade: h2c\r\n",
                Ok(Rest::UntilEnd),
            ),
            (
                "connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket\r\n",
                Ok(Rest::Nothing),
            ),
            ("upgrade: websocket\r\n", Ok(Rest::Nothing)),
            ("content-length: 5\r\ncontent-length: 5\r\n", Err("http1.codec_error")),
            ("content-length: 5, 5\r\n", Err("http1.codec_error")),
            ("content-length: +5\r\n", Err("http1.codec_error")),
            ("content-length: -5\r\n", Err("http1.codec_error")),
            ("content-length:\r\n", Err("http1.codec_error")),
            ("content-length: 18446744073709551616\r\n", Err("http1.codec_error")),
            (
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                Err("http1.content_length_and_chunked_not_allowed"),
            ),
            (
                "transfer-encoding: gzip, chunked\r\n",
                Err("http1.invalid_transfer_encoding"),
            ),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                Err("http1.invalid_transfer_encoding"),
            ),
            ("transfer-encoding:\r\n", Err("http1.invalid_transfer_encoding")),
            ("transfer-encoding: \u{b}chunked\r\n", Err("http1.invalid_characters")),
            ("host: a b\r\n", Err("http.invalid_authority")),
            ("host: a/b\r\n", Err("http.invalid_authority")),
            ("x : a\r\n", Err("http1.codec_error")),
            ("x: a\r\n b\r\n", Err("http1.codec_error")),
            (" x: a\r\n", Err("http1.codec_error")),
            ("x\r\n", Err("http1.codec_error")),
            (": x\r\n", Err("http1.codec_error")),
            ("x: a\rb\r\n", Err("http1.codec_error")),
            ("x: a\r\r\n", Err("http1.codec_error")),
            ("x: \0\r\n", Err("http1.invalid_characters")),
            ("x: \u{7f}\r\n", Err("http1.invalid_characters")),
            (&"x: a\r\n".repeat(6), Err("http1.too_many_headers")),
            (&format!("x: {}\r\n", "a".repeat(300)), Err("http1.headers_too_large")),
        ] {
            assert_eq!(rest(fields), told, "{fields}");
        }
        let endless = [b"GET /".as_slice(), &[b'a'; 300]].concat();
        assert_eq!(details(&endless), "http1.headers_too_large");
    }

    #[test]
    fn what_is_allowed_in_no_path_is_encoded() {
        let target = |head: &[u8]| parse(head).unwrap().unwrap().0.request.uri().to_string();
        let head = b"GET /\"<>^`{}|\\?\"<>^`{}|\\ HTTP/1.1\r\nhost: a\r\n\r\nrest";
        assert_eq!(target(head), "/\"%3C%3E^%60{}|\\?%22%3C%3E^`{}|\\");
        // All others are no trouble.
        for byte in (0x21..0x7f).filter(|byte| !b"\"#<>`?".contains(byte)) {
            let head = [b"GET /a", &[byte][..], b"?", &[byte], b" HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(target(&head).as_bytes(), [b"/a", &[byte][..], b"?", &[byte]].concat());
        }
    }

    #[test]
    fn who_says_close_sends_no_further_request() {
        for (value, stays) in [
            ("keep-alive", true),
            ("close", false),
            ("te, Close", false),
            ("closed", true),
        ] {
            let head = format!("GET / HTTP/1.1\r\nconnection: {value}\r\n\r\n");
            assert_eq!(parse(head.as_bytes()).unwrap().unwrap().0.keep_alive, stays, "{value}");
        }
    }
}
