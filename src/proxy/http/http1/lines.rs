//! Scanning the head of a message: its lines and header fields.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::Refusal;

/// The head is larger than it may be.
pub(super) const TOO_LARGE: Refusal = Refusal::too_large("http1.headers_too_large");

const CHARACTERS: Refusal = Refusal::bad("http1.invalid_characters");

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Bytes.
    pub(super) bytes: usize,
    /// Header fields.
    pub(super) count: usize,
}

/// Offsets of a header's name and value in its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    name: (usize, usize),
    value: (usize, usize),
}

/// Scans the head at the beginning of `bytes`: returns what `first` makes of its first line, and its length. `each`
/// sees the name and value of every header. `None`: the head is not complete.
///
/// # Errors
/// If it is malformed, as soon as that is known.
pub(super) fn scan<T>(
    bytes: &[u8],
    size: Size,
    fields: &mut Vec<Field>,
    first: impl FnOnce(usize, usize) -> Result<T, Refusal>,
    each: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Option<(T, usize)>, Refusal> {
    fields.clear();
    match whole(bytes, size, fields, first, each) {
        Ok(None) if bytes.len() > size.bytes => Err(TOO_LARGE),
        Ok(Some((_, len))) if len > size.bytes => Err(TOO_LARGE),
        other => other,
    }
}

fn whole<T>(
    bytes: &[u8],
    size: Size,
    fields: &mut Vec<Field>,
    first: impl FnOnce(usize, usize) -> Result<T, Refusal>,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<Option<(T, usize)>, Refusal> {
    let mut next = 0;
    // Empty lines before a request are skipped (RFC 9112 section 2.2).
    let first = loop {
        let Some((start, end, after)) = line(bytes, next)? else {
            return Ok(None);
        };
        next = after;
        if start < end {
            break first(start, end)?;
        }
    };
    loop {
        let Some((start, end, after)) = line(bytes, next)? else {
            return Ok(None);
        };
        next = after;
        if start == end {
            return Ok(Some((first, next)));
        }
        if fields.len() == size.count {
            return Err(Refusal::too_large("http1.too_many_headers"));
        }
        let field = Field::parse(bytes, start, end)?;
        each(&bytes[field.name.0..field.name.1], &bytes[field.value.0..field.value.1])?;
        fields.push(field);
    }
}

/// The line that starts at `from`: its start, its end, and the start of the next.
fn line(bytes: &[u8], from: usize) -> Result<Option<(usize, usize, usize)>, Refusal> {
    let Some(length) = text_len(&bytes[from..]) else {
        return Ok(None);
    };
    let end = from + length;
    match (bytes[end], bytes.get(end + 1)) {
        (b'\n', _) => Ok(Some((from, end, end + 1))),
        (b'\r', Some(b'\n')) => Ok(Some((from, end, end + 2))),
        (b'\r', None) => Ok(None),
        // A bare CR may be a line end to other parsers (RFC 9112 section 2.2).
        (b'\r', Some(_)) => Err(Refusal::CODEC),
        _ => Err(CHARACTERS),
    }
}

/// Bytes before the first control character. Eight bytes at a time, since all heads pass here.
fn text_len(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    // The classic test for bytes below a limit: exact for the lowest such byte, which is the one that counts.
    let below = |word: u64, limit: u8| word.wrapping_sub(EACH * u64::from(limit)) & !word & HIGH;
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*word);
        let control = below(word, 0x20) | below(word ^ (EACH * 0x7f), 1);
        if control == 0 {
            at += 8;
            continue;
        }
        at += control.trailing_zeros() as usize / 8;
        if !is_text(bytes[at]) {
            return Some(at);
        }
        // A tab is allowed.
        at += 1;
    }
    let rest = bytes[at..].iter().position(|byte| !is_text(*byte))?;
    Some(at + rest)
}

impl Field {
    fn parse(bytes: &[u8], start: usize, end: usize) -> Result<Self, Refusal> {
        let line = &bytes[start..end];
        // Folded lines (RFC 9112 section 5.2) start with white space, which no name contains.
        let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(Refusal::CODEC)?;
        if colon == 0 || line[colon] != b':' {
            return Err(Refusal::CODEC);
        }
        let value = line[colon + 1..].trim_ascii_start();
        let from = end - value.len();
        Ok(Self {
            name: (start, start + colon),
            value: (from, from + value.trim_ascii_end().len()),
        })
    }
}

/// The headers of a head, with capacity for those that will be added. Values share its bytes.
///
/// # Errors
/// If there are more than a `HeaderMap` takes.
pub(super) fn headers(head: &Bytes, fields: &[Field], added: usize) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::try_with_capacity(fields.len() + added).map_err(|_| TOO_LARGE)?;
    for field in fields {
        let name = HeaderName::from_bytes(&head[field.name.0..field.name.1]).map_err(|_| Refusal::CODEC)?;
        let value = head.slice(field.value.0..field.value.1);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| CHARACTERS)?;
        headers.try_append(name, value).map_err(|_| TOO_LARGE)?;
    }
    Ok(headers)
}

/// Limits how often a slow head is scanned: once for each received line, and whenever its length has doubled.
#[derive(Debug, Default)]
pub(crate) struct ScanSchedule {
    seen: usize,
    worth: usize,
    made: usize,
}

impl ScanSchedule {
    /// Whether to scan what has been received of a head with this size limit.
    pub(crate) fn is_due(&mut self, bytes: &[u8], size: Size) -> bool {
        let new = bytes.get(self.seen..).unwrap_or_default();
        let ends_line = self.made <= size.count + 2 && new.contains(&b'\n');
        let due = !new.is_empty() && (ends_line || bytes.len() >= self.worth);
        self.seen = bytes.len();
        if due {
            self.made += 1;
            self.worth = (2 * bytes.len()).min(size.bytes + 1);
        }
        due
    }
}

/// Whether a byte may be in a line: no control character but the tab.
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

/// Whether a byte may be in a token, such as a header name (RFC 9110 section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 0x80 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let other = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < other.len() {
            table[other[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// Whether a comma-separated list contains a token, ignoring case.
pub(super) fn names(list: &[u8], token: &[u8]) -> bool {
    let mut tokens = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tokens.any(|one| one.eq_ignore_ascii_case(token))
}

/// Parses a `content-length`: digits only (RFC 9110 section 8.6).
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    digits?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_ends_where_the_first_byte_is_that_may_not_be_in_a_line(
            bytes in prop::collection::vec(prop_oneof![8 => any::<u8>(), 20 => 0x20..0x7f_u8, 2 => Just(b'\t')], 0..60),
        ) {
            prop_assert_eq!(text_len(&bytes), bytes.iter().position(|byte| !is_text(*byte)));
        }
    }

    #[test]
    fn a_head_that_trickles_is_looked_at_now_and_then_and_one_that_is_too_large_at_once() {
        let size = Size { bytes: 1000, count: 3 };
        let mut scans = ScanSchedule::default();
        let line = [b'a'; 2000];
        let due: Vec<_> = (0..1100).filter(|len| scans.is_due(&line[..*len], size)).collect();
        assert_eq!(due[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1001]);
        let mut scans = ScanSchedule::default();
        let lines = [b'\n'; 100];
        assert_eq!((0..100).filter(|len| scans.is_due(&lines[..*len], size)).count(), 10);
    }
}
