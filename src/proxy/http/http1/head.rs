//! The head of a request: its first line and its headers.

use http::StatusCode;

use super::Refusal;
use crate::proxy::flags::Flags;

/// Methods that a request may have.
pub(crate) const METHODS: [&[u8]; 34] = [
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
    b"M-SEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

const CHARACTERS: Refusal = Refusal::bad("http1.invalid_characters");
const URL: Refusal = Refusal::bad("http1.invalid_url");
const LENGTH_AND_CHUNKED: Refusal = Refusal::bad("http1.content_length_and_chunked_not_allowed");
const TRANSFER_ENCODING: Refusal = Refusal::not_implemented("http1.invalid_transfer_encoding");
const VERSION: Refusal = Refusal::broken(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", "low_version");
const FRAGMENT: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    text: "",
    flags: Flags::NONE,
    details: "path_normalization_failed",
};

/// The head is larger than it may be.
pub(super) const TOO_LARGE: Refusal = Refusal::too_large("http1.headers_too_large");

/// What a connection manager says of heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// The longest head, in bytes.
    pub(super) bytes: usize,
    /// The most headers.
    pub(super) count: usize,
    /// Protocols that may be gone over to, lower case.
    pub(super) upgrades: &'a [Box<str>],
}

/// What comes after a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The next head.
    Nothing,
    /// That many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Whatever both ends agree on.
    Tunnel,
}

/// A head that is a request's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// How long it is.
    pub(super) len: usize,
    /// What comes after it.
    pub(super) framing: Framing,
    /// The same in a form that hyper takes, if it would not take this one.
    pub(super) rewritten: Option<Vec<u8>>,
}

/// Reads the head at the beginning of `bytes`; none: there is more to come.
///
/// # Errors
/// When it is no request's.
pub(super) fn parse(bytes: &[u8], rules: Rules<'_>) -> Result<Option<Head>, Refusal> {
    match whole(bytes, rules) {
        Ok(None) if bytes.len() > rules.bytes => Err(TOO_LARGE),
        Ok(Some(head)) if head.len > rules.bytes => Err(TOO_LARGE),
        other => other,
    }
}

fn whole(bytes: &[u8], rules: Rules<'_>) -> Result<Option<Head>, Refusal> {
    let mut at = 0;
    // Empty lines before a request are passed over (RFC 9112 section 2.2).
    while let Some((start, end, next)) = line(bytes, at)?.filter(|(start, end, _)| start == end) {
        debug_assert_eq!(start, end);
        at = next;
    }
    let Some((start, end, mut next)) = line(bytes, at)? else {
        return Ok(None);
    };
    let request = RequestLine::parse(&bytes[start..end])?;
    let (mut fields, mut count) = (Fields::default(), 0);
    loop {
        let Some((from, to, after)) = line(bytes, next)? else {
            return Ok(None);
        };
        next = after;
        if from == to {
            break;
        }
        count += 1;
        if count > rules.count {
            return Err(Refusal::too_large("http1.too_many_headers"));
        }
        fields.add(&bytes[from..to], rules)?;
    }
    let rewritten = request.rewritten().map(|mut head| {
        head.extend_from_slice(&bytes[end..next]);
        head
    });
    Ok(Some(Head {
        len: next,
        framing: fields.framing(&request)?,
        rewritten,
    }))
}

/// The line that begins at `from`: its first byte, the one after its last, and where the next begins.
fn line(bytes: &[u8], from: usize) -> Result<Option<(usize, usize, usize)>, Refusal> {
    let Some(length) = bytes[from..].iter().position(|byte| !is_text(*byte)) else {
        return Ok(None);
    };
    let end = from + length;
    match (bytes[end], bytes.get(end + 1)) {
        (b'\n', _) => Ok(Some((from, end, end + 1))),
        (b'\r', Some(b'\n')) => Ok(Some((from, end, end + 2))),
        (b'\r', None) => Ok(None),
        // A carriage return that ends no line ends one for some (RFC 9112 section 2.2).
        (b'\r', Some(_)) => Err(Refusal::CODEC),
        _ => Err(CHARACTERS),
    }
}

/// Whether a byte may be in a line: anything but control characters, of which only the tab may.
pub(super) fn is_text(byte: u8) -> bool {
    const TEXT: [bool; 256] = {
        let mut table = [true; 256];
        let mut byte = 0;
        while byte < 0x20 {
            table[byte] = byte == b'\t' as usize;
            byte += 1;
        }
        table[0x7f] = false;
        table
    };
    TEXT[usize::from(byte)]
}

/// Whether a byte may be in the name of a header (RFC 9110 section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The first line.
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    rest: &'a [u8],
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
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
        check_target(method, target)?;
        let rest = &line[line.len() - version.len() - 1..];
        Ok(Self { method, target, rest })
    }

    /// The line with what is not allowed in a URL (RFC 3986 section 2) percent-encoded, if anything is that hyper minds.
    fn rewritten(&self) -> Option<Vec<u8>> {
        let odd = |byte: &u8| b"\"<>^`".contains(byte);
        if !self.target.iter().any(odd) {
            return None;
        }
        let mut out = [self.method, b" "].concat();
        for byte in self.target {
            match odd(byte) {
                true => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                false => out.push(*byte),
            }
        }
        out.extend_from_slice(self.rest);
        Some(out)
    }
}

fn check_target(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    let printable = target.iter().all(|byte| (0x21..0x7f).contains(byte));
    if target.is_empty() || !printable {
        return Err(Refusal::CODEC);
    }
    if target.contains(&b'#') {
        return Err(FRAGMENT);
    }
    match target {
        [b'/', ..] if method == b"CONNECT" => Err(URL),
        [b'/', ..] => Ok(()),
        b"*" if method == b"OPTIONS" => Ok(()),
        b"*" => Err(URL),
        _ if method == b"CONNECT" => authority(target).map_err(|_| URL),
        _ => absolute(target),
    }
}

/// `http://host/path`.
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
        host => authority(host),
    }
}

/// What may be in `Host` (RFC 3986 section 3.2).
fn authority(host: &[u8]) -> Result<(), Refusal> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]".contains(byte);
    match host.iter().all(allowed) {
        true => Ok(()),
        false => Err(Refusal::bad("http.invalid_authority")),
    }
}

/// Headers that say where the request ends.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    asks_for_upgrade: bool,
    may_upgrade: bool,
    has_upgrade: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8], rules: Rules<'_>) -> Result<(), Refusal> {
        // Folded lines (RFC 9112 section 5.2) begin with white space, which is in no name.
        let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(Refusal::CODEC)?;
        if colon == 0 || line[colon] != b':' {
            return Err(Refusal::CODEC);
        }
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // Most headers are of no interest, and most are told by the length of their names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => authority(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                // The first one counts: see `conditioning`.
                let is = |protocol: &str| value.eq_ignore_ascii_case(protocol.as_bytes());
                self.may_upgrade |= !self.has_upgrade && rules.upgrades.iter().any(|protocol| is(protocol));
                self.has_upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.asks_for_upgrade |= tokens.any(|token| token.eq_ignore_ascii_case(b"upgrade"));
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                // Also where all lengths are the same, as others may read a list in their own way.
                if self.length.replace(length(value)?).is_some() {
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

    fn framing(&self, request: &RequestLine<'_>) -> Result<Framing, Refusal> {
        let connect = request.method == b"CONNECT";
        match (self.length, self.chunked) {
            (Some(_), true) => Err(LENGTH_AND_CHUNKED),
            (_, true) if connect => Err(TRANSFER_ENCODING),
            (Some(1..), false) if connect => Err(Refusal::bad("http1.body_disallowed")),
            _ if connect || (self.asks_for_upgrade && self.may_upgrade) => Ok(Framing::Tunnel),
            (_, true) => Ok(Framing::Chunked),
            (Some(length @ 1..), false) => Ok(Framing::Length(length)),
            (Some(0) | None, false) => Ok(Framing::Nothing),
        }
    }
}

/// A `content-length`: digits alone (RFC 9110 section 8.6).
fn length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    // The largest that hyper takes is a little less than what fits.
    let number = digits.and_then(|digits| digits.parse().ok());
    number.filter(|number| *number <= u64::MAX >> 1).ok_or(Refusal::CODEC)
}

fn split_at(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'static> = Rules {
        bytes: 300,
        count: 5,
        upgrades: &[],
    };

    fn details(head: &[u8]) -> &'static str {
        match parse(head, RULES) {
            Ok(Some(_)) => "taken",
            Ok(None) => "partial",
            Err(refusal) => refusal.details,
        }
    }

    fn framing(fields: &str) -> Result<Framing, &'static str> {
        let upgrades = ["websocket".into()];
        let rules = Rules {
            upgrades: &upgrades,
            ..RULES
        };
        let head = format!("POST /a HTTP/1.1\r\n{fields}\r\n");
        let parsed = parse(head.as_bytes(), rules).map_err(|refusal| refusal.details)?;
        let parsed = parsed.unwrap();
        assert_eq!(parsed.len, head.len());
        Ok(parsed.framing)
    }

    #[test]
    fn every_cut_of_a_head_is_a_part_of_one() {
        let head = b"\r\nGET /a?b HTTP/1.1\r\nhost: a:80\nx-a:\tb\xe9 \r\nx:\r\n\r\nrest";
        for len in 0..head.len() - 4 {
            assert_eq!(details(&head[..len]), "partial", "{len}");
        }
        let taken = Head {
            len: head.len() - 4,
            framing: Framing::Nothing,
            rewritten: None,
        };
        assert_eq!(parse(head, RULES), Ok(Some(taken)));
    }

    #[test]
    fn first_lines() {
        for (line, told) in [
            ("GET http://a/b HTTP/1.1", "taken"),
            ("GET https://a?b HTTP/1.1", "taken"),
            ("OPTIONS * HTTP/1.1", "taken"),
            ("CONNECT a:1 HTTP/1.1", "taken"),
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
        for (fields, framed) in [
            ("", Ok(Framing::Nothing)),
            ("content-length: 005\r\n", Ok(Framing::Length(5))),
            ("content-length: 0\r\n", Ok(Framing::Nothing)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("connection: a, Upgrade\r\nupgrade: WebSocket\r\n", Ok(Framing::Tunnel)),
            (
                "connection: upgrade\r\nupgrade: x\r\nupgrade: websocket\r\n",
                Ok(Framing::Nothing),
            ),
            ("upgrade: websocket\r\n", Ok(Framing::Nothing)),
            ("content-length: 5\r\ncontent-length: 5\r\n", Err("http1.codec_error")),
            ("content-length: 5, 5\r\n", Err("http1.codec_error")),
            ("content-length: +5\r\n", Err("http1.codec_error")),
            ("content-length: -5\r\n", Err("http1.codec_error")),
            ("content-length:\r\n", Err("http1.codec_error")),
            ("content-length: 18446744073709551615\r\n", Err("http1.codec_error")),
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
            assert_eq!(framing(fields), framed, "{fields}");
        }
        let endless = [b"GET /".as_slice(), &[b'a'; 300]].concat();
        assert_eq!(details(&endless), "http1.headers_too_large");
    }

    #[test]
    fn what_hyper_takes_for_no_path_is_encoded() {
        let head = parse(b"GET /\"<>^`{}|\\ HTTP/1.1\r\nhost: a\r\n\r\nrest", RULES)
            .unwrap()
            .unwrap();
        let rewritten = head.rewritten.unwrap();
        assert_eq!(rewritten, b"GET /%22%3C%3E%5E%60{}|\\ HTTP/1.1\r\nhost: a\r\n\r\n");
        let target = rewritten.split(|byte| *byte == b' ').nth(1).unwrap();
        assert!(http::Uri::try_from(target).is_ok());
        // All others that pass are no trouble.
        for byte in (0x21..0x7f).filter(|byte| *byte != b'#') {
            let head = [b"GET /a?".as_slice(), &[byte], b" HTTP/1.1\r\n\r\n"].concat();
            let rewritten = parse(&head, RULES).unwrap().unwrap().rewritten.unwrap_or(head);
            let target = rewritten.split(|byte| *byte == b' ').nth(1).unwrap();
            assert!(http::Uri::try_from(target).is_ok(), "{}", byte.escape_ascii());
        }
    }
}
