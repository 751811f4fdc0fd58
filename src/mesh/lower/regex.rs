//! Checks regular expressions for RE2, which Envoy uses.
//!
//! The syntax of the `regex` crate is nearly RE2's: a pattern is translated to it, rejecting what
//! RE2 rejects, and then parsed.

use ::regex::Regex;

/// Istio's limit, in bytes.
const MAX_LENGTH: usize = 1024;

/// RE2's limit on repetition counts, where nested counts are multiplied.
const MAX_REPEAT: u32 = 1000;

/// Names of character classes, as in `[[:alpha:]]`.
const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Checks a pattern.
///
/// # Errors
///
/// Why Envoy would reject it.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("a regular expression must not be empty".to_owned());
    }
    if pattern.len() > MAX_LENGTH {
        let length = pattern.len();
        return Err(format!(
            "the regular expression has {length} bytes, exceeding the limit of {MAX_LENGTH}"
        ));
    }
    match Regex::new(&translate(pattern)?) {
        Ok(_) => Ok(()),
        Err(::regex::Error::CompiledTooBig(_)) => {
            Err(format!("the regular expression `{pattern}` is too large once compiled"))
        }
        Err(error) => Err(format!(
            "`{pattern}` is not a regular expression: {}",
            last_line(&error.to_string())
        )),
    }
}

/// The last line of a multi-line error of the `regex` crate, which states the reason.
fn last_line(error: &str) -> &str {
    let line = error.lines().last().unwrap_or(error);
    line.strip_prefix("error: ").unwrap_or(line)
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut translation = Translation {
        rest: pattern,
        output: String::with_capacity(pattern.len()),
        repeat: Repeat::Atom(1),
        groups: vec![1],
    };
    while !translation.rest.is_empty() {
        translation.next()?;
    }
    Ok(translation.output)
}

/// A translation in progress.
struct Translation<'p> {
    rest: &'p str,
    output: String,
    /// The last item.
    repeat: Repeat,
    /// For each open group, the highest repetition count within it.
    groups: Vec<u32>,
}

/// The last item and its repetition count.
#[derive(Clone, Copy)]
enum Repeat {
    /// An item that may be repeated.
    Atom(u32),
    /// A repetition, which RE2 does not allow to be repeated.
    Repeated,
    /// A lazy repetition.
    Lazy,
}

impl Translation<'_> {
    fn next(&mut self) -> Result<(), String> {
        if let Some(quoted) = self.rest.strip_prefix("\\Q") {
            let (literal, tail) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            self.output.push_str(&::regex::escape(literal));
            self.rest = tail;
            self.repeat = Repeat::Atom(1);
            return Ok(());
        }
        match self.rest.as_bytes().first() {
            Some(b'\\') => {
                self.repeat = Repeat::Atom(1);
                self.escape()
            }
            Some(b'[') => {
                self.repeat = Repeat::Atom(1);
                self.class()
            }
            Some(b'(') => self.open(),
            Some(b')') => {
                self.close();
                Ok(())
            }
            Some(b'*' | b'+' | b'?') => self.operator(),
            Some(b'{') => self.counted(),
            Some(_) | None => {
                self.repeat = Repeat::Atom(1);
                self.copy(self.rest.chars().next().map_or(0, char::len_utf8));
                Ok(())
            }
        }
    }

    /// Copies bytes unchanged.
    fn copy(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.output.push_str(taken);
        self.rest = rest;
    }

    /// Adds a literal character.
    fn literal(&mut self, character: char) {
        let mut bytes = [0; 4];
        self.output
            .push_str(&::regex::escape(character.encode_utf8(&mut bytes)));
        self.rest = &self.rest[character.len_utf8()..];
    }

    /// An escape sequence. RE2 has octal escapes and `\C` (any byte), which the crate lacks. It
    /// treats all escaped punctuation as literal, while the crate gives meaning to `\<`, `\>` and
    /// `\b{start}`.
    fn escape(&mut self) -> Result<(), String> {
        let Some(escaped) = self.rest[1..].chars().next() else {
            return Err("the regular expression ends with `\\`".to_owned());
        };
        match escaped {
            '0'..='7' => self.octal(),
            'C' => {
                self.output.push('.');
                self.rest = &self.rest[2..];
                Ok(())
            }
            'p' | 'P' | 'x' if self.rest[2..].starts_with('{') => {
                let length = self.rest.find('}').map_or(self.rest.len(), |end| end + 1);
                self.copy(length);
                Ok(())
            }
            'b' | 'B' if self.rest[2..].starts_with('{') => Err(format!("RE2 does not support `\\{escaped}{{…}}`")),
            'u' | 'U' => Err(format!("RE2 does not support `\\{escaped}`")),
            punctuation if punctuation.is_ascii_punctuation() => {
                self.rest = &self.rest[1..];
                self.literal(punctuation);
                Ok(())
            }
            other => {
                self.copy(1 + other.len_utf8());
                Ok(())
            }
        }
    }

    /// `\0` to `\077`, `\123`; a single digit other than 0 would be a backreference, which RE2 does
    /// not support.
    fn octal(&mut self) -> Result<(), String> {
        let digits = self.rest[1..]
            .bytes()
            .take(3)
            .take_while(|b| (b'0'..=b'7').contains(b))
            .count();
        let number = &self.rest[1..=digits];
        if digits == 1 && number != "0" {
            return Err(format!("RE2 does not support backreferences, such as `\\{number}`"));
        }
        let value = u32::from_str_radix(number, 8).unwrap_or_default();
        self.output.push_str(&format!("\\x{{{value:x}}}"));
        self.rest = &self.rest[1 + digits..];
        Ok(())
    }

    /// A bracket expression. A leading `]` is literal. Unlike in the crate, `[` is literal too and
    /// there are no set operations.
    fn class(&mut self) -> Result<(), String> {
        let negated = self.rest.starts_with("[^");
        self.copy(1 + usize::from(negated));
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            self.class_item()?;
            first = false;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.copy(1);
                self.class_item()?;
            }
            if self.rest.is_empty() {
                return Err("a character class is missing its closing `]`".to_owned());
            }
        }
        self.copy(1);
        Ok(())
    }

    fn class_item(&mut self) -> Result<(), String> {
        match self.rest.chars().next() {
            Some('\\') => self.escape(),
            Some('[') if self.rest.starts_with("[:") => {
                let length = self.rest.find(":]").map_or(self.rest.len(), |end| end + 2);
                let name = self.rest[..length].trim_start_matches("[:^").trim_start_matches("[:");
                if !CLASSES.contains(&name.trim_end_matches(":]")) {
                    return Err(format!("RE2 does not support the class `{}`", &self.rest[..length]));
                }
                self.copy(length);
                Ok(())
            }
            Some(character) => {
                self.literal(character);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The start of a group. RE2 has the flags `i`, `m`, `s` and `U`.
    fn open(&mut self) -> Result<(), String> {
        self.groups.push(1);
        self.repeat = Repeat::Atom(1);
        if let Some(flags) = self.rest.strip_prefix("(?") {
            let end = flags.find([':', ')', '<', '=', '!', 'P']).unwrap_or(flags.len());
            let unknown = flags[..end]
                .chars()
                .find(|flag| !matches!(flag, 'i' | 'm' | 's' | 'U' | '-'));
            if let Some(flag) = unknown {
                return Err(format!("RE2 does not support `(?{flag}`"));
            }
            self.copy(2 + end);
        } else {
            self.copy(1);
        }
        Ok(())
    }

    fn close(&mut self) {
        let within = self.groups.pop().unwrap_or(1);
        if let Some(group) = self.groups.last_mut() {
            *group = within.max(*group);
        }
        self.repeat = Repeat::Atom(within);
        self.copy(1);
    }

    /// `*`, `+` or `?`.
    fn operator(&mut self) -> Result<(), String> {
        self.repeat = match self.repeat {
            Repeat::Atom(_) => Repeat::Repeated,
            Repeat::Repeated if self.rest.starts_with('?') => Repeat::Lazy,
            Repeat::Repeated | Repeat::Lazy => return Err(self.twice()),
        };
        self.copy(1);
        Ok(())
    }

    fn twice(&self) -> String {
        format!(
            "RE2 does not support nested repetition operators, as at `{}`",
            self.rest
        )
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else is literal in RE2.
    fn counted(&mut self) -> Result<(), String> {
        let Some((length, times)) = counts(self.rest) else {
            self.literal('{');
            self.repeat = Repeat::Atom(1);
            return Ok(());
        };
        let Repeat::Atom(within) = self.repeat else {
            return Err(self.twice());
        };
        let all = times
            .and_then(|times| times.max(1).checked_mul(within))
            .filter(|all| *all <= MAX_REPEAT);
        let Some(all) = all else {
            return Err(format!(
                "RE2 allows at most {MAX_REPEAT} repetitions, with nested repetitions multiplied"
            ));
        };
        if let Some(group) = self.groups.last_mut() {
            *group = all.max(*group);
        }
        self.repeat = Repeat::Repeated;
        self.copy(length);
        Ok(())
    }
}

/// Length of a counted repetition and its highest count, if it is a valid number.
fn counts(text: &str) -> Option<(usize, Option<u32>)> {
    let (inner, _) = text.strip_prefix('{')?.split_once('}')?;
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let greatest = if high.is_empty() { low } else { high };
    (!low.is_empty() && digits(low) && digits(high)).then(|| (inner.len() + 2, greatest.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verified with Envoy 1.40.
    #[test]
    fn patterns_valid_in_re2_are_accepted() {
        for good in [
            ".*",
            "/v[0-9]+/items/\\d{1,3}",
            "(?i)curl/.*",
            "(?P<name>a)(?:b)(?i:c)(?-s:.)(?<n>d)",
            "(?ims-U:a)",
            "\\Qa.b*\\E+",
            "[[:alpha:]_]+",
            "[]a]",
            "[^]a]",
            "[a&&b]",
            "[a[b]",
            "[+--]",
            "[\\d\\w-]",
            "\\pL\\p{Greek}",
            "\\x{41}\\0\\07\\123",
            "a{,3}",
            "{x}",
            "]}",
            "a{1,2,3}",
            "a{1000}",
            "a{2,3}?b+?",
            "(a{10}){100}",
            "(a*)*",
            "\\C",
            "\\_\\-\\/\\<",
            "^a$|b\\z",
            "[^/]+",
            "[é-ü]",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    /// Verified with Envoy 1.40.
    #[test]
    fn patterns_invalid_in_re2_are_rejected() {
        let long = "a".repeat(1025);
        for bad in [
            "",
            "*",
            "a|*",
            "(",
            "a)",
            "[a",
            "[",
            "[z-a]",
            "[a--b]",
            "[a-\\d]",
            "[[:foo:]]",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?x)a b",
            "(?^:a)",
            "(?R)",
            "(?P<a-b>x)",
            "a{1001}",
            "a{2,1}",
            "(a{100}){100}",
            "((a{30}){30}){30}",
            "a**",
            "a{2}*",
            "a*??",
            "\\u1234",
            "\\1",
            "(a)\\1",
            "\\",
            "\\e",
            "\\Z",
            "\\h",
            "\\R",
            "\\x4",
            "\\cA",
            "\\p{Foo}",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_reason_is_one_line() {
        let why = check("a(b").unwrap_err();
        assert_eq!(why, "`a(b` is not a regular expression: unclosed group");
    }
}
