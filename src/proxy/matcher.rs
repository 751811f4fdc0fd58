//! Comparing texts (`envoy.type.matcher.v3.StringMatcher`).

use regex::bytes::Regex;

/// How a text is compared. Bytes, because header values need not be UTF-8.
#[derive(Clone, Debug)]
pub(crate) struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

/// What a text is compared with; lower case where case is ignored.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// Equal.
    Exact(Box<[u8]>),
    /// Begins so.
    Prefix(Box<[u8]>),
    /// Ends so.
    Suffix(Box<[u8]>),
    /// Holds it.
    Contains(Box<[u8]>),
    /// Matches as a whole: see [`whole`].
    Regex(Regex),
}

impl StringMatcher {
    /// A comparison. `ignore_case` has no effect on a regular expression, as in Envoy.
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

    /// Whether the text is one that is looked for.
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

/// A regular expression that has to match the whole text, as RE2's full match does.
///
/// # Errors
/// When it is no regular expression, or one that takes too much memory.
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
