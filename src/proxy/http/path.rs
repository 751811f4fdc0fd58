//! Path normalization, before anything is decided by the path (`normalize_path`, `merge_slashes`,
//! `path_with_escaped_slashes_action`).

use std::fmt::Write as _;

use super::{EscapedSlashes, PathNormalization};

/// What normalization makes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Normalized {
    /// It is unchanged.
    Same,
    /// It is changed to this.
    Changed(String),
    /// The client is redirected to this.
    Redirect(String),
    /// The request is refused.
    Refused,
}

impl PathNormalization {
    /// Normalizes a path, leaving its query alone.
    pub(crate) fn apply(&self, path_and_query: &str) -> Normalized {
        let (path, query) = split(path_and_query);
        if path == "*" {
            return Normalized::Same;
        }
        if path.contains('#') {
            return Normalized::Refused;
        }
        let mut redirect = false;
        let mut current = path.to_owned();
        match self.escaped_slashes {
            EscapedSlashes::Keep => {}
            EscapedSlashes::Reject if has_escaped_slash(path) => return Normalized::Refused,
            EscapedSlashes::UnescapeAndRedirect if has_escaped_slash(path) => {
                redirect = true;
                current = unescape_slashes(path);
            }
            EscapedSlashes::UnescapeAndForward if has_escaped_slash(path) => current = unescape_slashes(path),
            EscapedSlashes::Reject | EscapedSlashes::UnescapeAndRedirect | EscapedSlashes::UnescapeAndForward => {}
        }
        if self.normalize {
            match without_dots(&current) {
                Some(normal) => current = normal,
                None => return Normalized::Refused,
            }
        }
        if self.merge_slashes && current.contains("//") {
            current = merged(&current);
        }
        if current == path {
            return Normalized::Same;
        }
        current.push_str(query);
        if redirect {
            Normalized::Redirect(current)
        } else {
            Normalized::Changed(current)
        }
    }

    /// Whether normalization may change this path: a quick check that most paths fail.
    pub(crate) fn concerns(&self, path_and_query: &str) -> bool {
        let path = split(path_and_query).0.as_bytes();
        let odd = |byte: &u8| matches!(byte, b'\\' | b'%' | b'#') || is_escaped(char::from(*byte));
        let pair = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
        path.first() != Some(&b'/') || path.iter().any(odd) || path.windows(2).any(pair)
    }
}

fn split(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()))
}

/// The slash or backslash whose escape the text begins with.
fn escaped_slash(text: &str) -> Option<&'static str> {
    let escape = text.get(..3)?;
    if escape.eq_ignore_ascii_case("%2f") {
        return Some("/");
    }
    escape.eq_ignore_ascii_case("%5c").then_some("\\")
}

fn has_escaped_slash(path: &str) -> bool {
    path.match_indices('%')
        .any(|(at, _)| escaped_slash(&path[at..]).is_some())
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match escaped_slash(rest) {
            Some(slash) => {
                out.push_str(slash);
                rest = &rest[3..];
            }
            None => {
                out.push('%');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Resolves `.` and `..`, turns `\` into `/`, decodes unreserved characters and escapes those that must be, like
/// googleurl's canonicalization in Envoy. `None` if the path is not absolute or contains `%00`.
fn without_dots(path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?;
    let plain: Vec<&str> = path.split('/').map(without_parameters).collect();
    let canonical = canonical_characters(&plain.join("/"))?;
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = canonical.split('/').peekable();
    while let Some(segment) = parts.next() {
        let last = parts.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(segment),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// `..;a=b` counts as `..`, since servers that know path parameters take it so.
fn without_parameters(segment: &str) -> &str {
    let dots = segment.split_once(';').map(|(name, _)| name);
    dots.filter(|name| matches!(*name, "." | "..")).unwrap_or(segment)
}

/// RFC 3986 section 6.2.2.2: decodes escapes of unreserved characters and leaves the others.
fn canonical_characters(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => out.push('/'),
            '%' => match escaped_byte(rest.as_str()) {
                Some(0) => return None,
                Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                    out.push(char::from(byte));
                    rest = rest.as_str()[2..].chars();
                }
                _ => out.push('%'),
            },
            character if is_escaped(character) => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "%{byte:02X}");
                }
            }
            character => out.push(character),
        }
    }
    Some(out)
}

/// The byte that the two hex digits at the beginning stand for.
fn escaped_byte(rest: &str) -> Option<u8> {
    let digits = rest
        .get(..2)
        .filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Whether a character has to be escaped in a path.
fn is_escaped(character: char) -> bool {
    !character.is_ascii() || "\"<>^`{|}".contains(character)
}

fn merged(path: &str) -> String {
    if path.bytes().all(|byte| byte == b'/') {
        // As in Envoy: one slash for the beginning, one for the end.
        return "//".to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalization(merge_slashes: bool, escaped_slashes: EscapedSlashes) -> PathNormalization {
        PathNormalization {
            normalize: true,
            merge_slashes,
            escaped_slashes,
        }
    }

    #[test]
    fn dots_are_resolved_and_the_query_is_left_alone() {
        let base = normalization(false, EscapedSlashes::Keep);
        for (path, wanted) in [
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a\\b", "/a/b"),
            ("/%61%2e%7e%2f", "/a.~%2f"),
            ("/a%2", "/a%2"),
            ("/a%+1", "/a%+1"),
            ("/a/../../x", "/x"),
            ("/..", "/"),
            ("/.%2E/x", "/x"),
            ("/a/..;x=1/b", "/b"),
            ("/a/.;", "/a/"),
            ("/a/%2e%2e;/b", "/a/..;/b"),
            ("/a\\..;/b", "/a/..;/b"),
            ("/a;b/;..", "/a;b/;.."),
            ("/a/..//b", "//b"),
            ("/a|b^c`{}\"<>", "/a%7Cb%5Ec%60%7B%7D%22%3C%3E"),
            ("/\u{e9}", "/%C3%A9"),
        ] {
            let wanted = if path == wanted {
                Normalized::Same
            } else {
                Normalized::Changed(wanted.to_owned())
            };
            assert_eq!(base.apply(path), wanted, "{path}");
        }
        assert_eq!(base.apply("/a/%00"), Normalized::Refused);
        assert_eq!(base.apply("a"), Normalized::Refused);
        assert_eq!(base.apply("/a#b"), Normalized::Refused);
        assert_eq!(base.apply("/a//b"), Normalized::Same);
    }

    #[test]
    fn slashes_are_merged_and_unescaped_where_asked() {
        let changed = |text: &str| Normalized::Changed(text.to_owned());
        assert_eq!(
            normalization(true, EscapedSlashes::Keep).apply("/a//b"),
            changed("/a/b")
        );
        let decode = normalization(true, EscapedSlashes::UnescapeAndForward);
        assert_eq!(decode.apply("/a%2F%5cb"), changed("/a/b"));
        let redirect = normalization(false, EscapedSlashes::UnescapeAndRedirect);
        assert_eq!(redirect.apply("/a%2fb"), Normalized::Redirect("/a/b".to_owned()));
        let reject = normalization(false, EscapedSlashes::Reject);
        assert_eq!(reject.apply("/a%2Fb"), Normalized::Refused);
    }

    proptest::proptest! {
        #[test]
        fn what_is_of_no_concern_stays(path in "/?[a-z./%2fF#|;\u{e9}\\\\?]{0,12}") {
            let base = normalization(true, EscapedSlashes::UnescapeAndForward);
            if !base.concerns(&path) {
                assert_eq!(base.apply(&path), Normalized::Same);
            }
        }
    }
}
