//! String matchers (`envoy.type.matcher.v3.StringMatcher`).

use regex::bytes::Regex;

/// A string matcher. Matches bytes, because header values need not be UTF-8.
#[derive(Clone, Debug)]
pub(crate) struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

/// The pattern; in lower case if case is ignored.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// The whole string.
    Exact(Box<[u8]>),
    /// A prefix.
    Prefix(Box<[u8]>),
    /// A suffix.
    Suffix(Box<[u8]>),
    /// A substring.
    Contains(Box<[u8]>),
    /// A regular expression for the whole string: see [`whole`].
    Regex(Regex),
}

impl StringMatcher {
    /// A matcher. As in Envoy, `ignore_case` has no effect on a regular expression.
    pub(crate) fn new(pattern: Pattern, ignore_case: bool) -> Self {
        let lower = |text: Box<[u8]>| match ignore_case {
            true => text.to_ascii_lowercase().into(),
            false => text,
        };
        let pattern = match pattern {
            Pattern::Exact(text) => Pattern::Exact(lower(text)),
            Pattern::Prefix(text) => Pattern::Prefix(lower(text)),
            Pattern::Suffix(text) => Pattern::Suffix(lower(text)),
            Pattern::Contains(text) => Pattern::Contains(lower(text)),
            regex @ Pattern::Regex(_) => regex,
        };
        Self { pattern, ignore_case }
    }

    /// Whether the string matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        if self.ignore_case && !matches!(self.pattern, Pattern::Regex(_)) {
            return self.matches_as_is(&text.to_ascii_lowercase());
        }
        self.matches_as_is(text)
    }

    fn matches_as_is(&self, text: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Exact(wanted) => text == &**wanted,
            Pattern::Prefix(wanted) => text.starts_with(wanted),
            Pattern::Suffix(wanted) => text.ends_with(wanted),
            Pattern::Contains(wanted) => {
                wanted.is_empty() || text.windows(wanted.len()).any(|window| window == &**wanted)
            }
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A regular expression that must match the whole string, like RE2's full match.
///
/// # Errors
/// If the pattern is invalid or its program would be too large.
pub(crate) fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .dot_matches_new_line(false)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_in_every_way() {
        let exact = StringMatcher::new(Pattern::Exact(b"Abc"[..].into()), false);
        assert!(exact.matches(b"Abc") && !exact.matches(b"abc"));
        let folded = StringMatcher::new(Pattern::Prefix(b"Abc"[..].into()), true);
        assert!(folded.matches(b"aBCd") && !folded.matches(b"xabc"));
        let contains = StringMatcher::new(Pattern::Contains(b"b"[..].into()), false);
        assert!(contains.matches(b"abc") && !contains.matches(b"ac"));
        let suffix = StringMatcher::new(Pattern::Suffix(b"c"[..].into()), false);
        assert!(suffix.matches(b"abc") && !suffix.matches(b"cb"));
        let regex = StringMatcher::new(Pattern::Regex(whole("a|bc").unwrap()), false);
        assert!(regex.matches(b"a") && regex.matches(b"bc") && !regex.matches(b"abc"));
    }
}
