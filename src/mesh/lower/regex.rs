//! Whether Envoy will take a regular expression.
//!
//! Envoy uses RE2. The `regex` crate has nearly its syntax: what it takes and RE2 does not is found
//! here first, and what RE2 takes and it does not is rewritten before it is asked.

use ::regex::Regex;

/// Istio's limit, in bytes.
const MAX_LENGTH: usize = 1024;

/// The largest count of a repetition in RE2.
const MAX_REPEAT: u32 = 1000;

/// Checks a pattern.
///
/// # Errors
/// Why Envoy would refuse it.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("a regular expression must not be empty".to_owned());
    }
    if pattern.len() > MAX_LENGTH {
        let length = pattern.len();
        return Err(format!(
            "a regular expression may have {MAX_LENGTH} bytes, this one has {length}"
        ));
    }
    let rewritten = rewrite(pattern)?;
    match Regex::new(&rewritten) {
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

/// The `regex` crate explains an error over several lines, the last of which says what it is.
fn last_line(error: &str) -> &str {
    let line = error.lines().last().unwrap_or(error);
    line.strip_prefix("error: ").unwrap_or(line)
}

/// Translates what only RE2 has and refuses what it lacks.
fn rewrite(pattern: &str) -> Result<String, String> {
    let mut output = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_class = false;
    let mut repeated = Repeated::No;
    while let Some(c) = rest.chars().next() {
        repeated = if in_class { Repeated::No } else { repeated.next(rest)? };
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let (literal, tail) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            output.push_str(&::regex::escape(literal));
            rest = tail;
            continue;
        }
        let length = match c {
            '\\' => escape(rest, &mut output)?,
            '[' if in_class && !rest.starts_with("[:") => {
                // A bracket within a class is itself in RE2; the crate nests classes.
                output.push_str("\\[");
                1
            }
            '[' if !in_class => {
                in_class = true;
                class_start(rest, &mut output)
            }
            ']' if in_class => {
                in_class = false;
                output.push(']');
                1
            }
            '[' => posix_class(rest, &mut output),
            '&' | '~' | '-' if in_class && rest[1..].starts_with(c) => {
                // The crate's set operations; in RE2 these are the characters.
                output.push('\\');
                output.push(c);
                1
            }
            '(' if !in_class => group(rest, &mut output)?,
            '{' if !in_class => repetition(rest, &mut output)?,
            other => {
                output.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Ok(output)
}

/// Whether a repetition has just been read: RE2 refuses to repeat it again, as in `a**`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeated {
    No,
    Once,
    Lazily,
}

impl Repeated {
    fn next(self, rest: &str) -> Result<Self, String> {
        let counted = || rest.strip_prefix('{').and_then(|inner| bounds(inner)).is_some();
        let operator = rest.starts_with(['*', '+', '?']) || counted();
        match self {
            Repeated::No if operator => Ok(Repeated::Once),
            Repeated::Once if rest.starts_with('?') => Ok(Repeated::Lazily),
            // Within the braces of a repetition.
            Repeated::Once if rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, ',' | '}')) => Ok(self),
            Repeated::Once | Repeated::Lazily if operator => {
                Err(format!("RE2 does not repeat a repetition, as at `{rest}`"))
            }
            Repeated::No | Repeated::Once | Repeated::Lazily => Ok(Repeated::No),
        }
    }
}

/// The opening of a class with what may follow it literally: `[`, `[^`, `[]`, `[^]`.
fn class_start(rest: &str, output: &mut String) -> usize {
    let negated = rest.starts_with("[^");
    output.push_str(if negated { "[^" } else { "[" });
    let mut length = 1 + usize::from(negated);
    if rest[length..].starts_with(']') {
        output.push_str("\\]");
        length += 1;
    }
    length
}

/// `[:alpha:]` within a class, as it is.
fn posix_class(rest: &str, output: &mut String) -> usize {
    let length = rest.find(":]").map_or(1, |end| end + 2);
    output.push_str(&rest[..length]);
    length
}

/// An escape. RE2 has `\C` (any byte), which the crate lacks; the crate has `\u`, `\U`, `\<`, `\>`
/// and `\b{start}`, which RE2 lacks.
fn escape(rest: &str, output: &mut String) -> Result<usize, String> {
    let Some(escaped) = rest[1..].chars().next() else {
        return Err("the regular expression ends with `\\`".to_owned());
    };
    let unknown = matches!(escaped, 'u' | 'U' | '<' | '>') || rest.starts_with("\\b{") || rest.starts_with("\\B{");
    if unknown {
        return Err(format!("RE2 has no `\\{escaped}` of this form"));
    }
    if escaped == 'C' {
        output.push('.');
    } else if matches!(escaped, 'p' | 'P' | 'x') && rest[2..].starts_with('{') {
        let length = rest.find('}').map_or(rest.len(), |end| end + 1);
        output.push_str(&rest[..length]);
        return Ok(length);
    } else {
        output.push('\\');
        output.push(escaped);
    }
    Ok(1 + escaped.len_utf8())
}

/// A group's opening. Of flags RE2 has `i`, `m`, `s` and `U`.
fn group(rest: &str, output: &mut String) -> Result<usize, String> {
    output.push('(');
    let Some(flags) = rest.strip_prefix("(?") else {
        return Ok(1);
    };
    let end = flags.find([':', ')', '<', '=', '!', 'P']).unwrap_or(flags.len());
    match flags[..end]
        .chars()
        .find(|flag| !matches!(flag, 'i' | 'm' | 's' | 'U' | '-'))
    {
        Some(flag) => Err(format!("RE2 has no `(?{flag}`")),
        None => Ok(1),
    }
}

/// `{n}`, `{n,}` or `{n,m}`; anything else is literal in RE2.
fn repetition(rest: &str, output: &mut String) -> Result<usize, String> {
    let Some(bounds) = bounds(&rest[1..]) else {
        output.push_str("\\{");
        return Ok(1);
    };
    let too_large = bounds
        .into_iter()
        .filter(|text| !text.is_empty())
        .any(|text| text.parse::<u32>().map_or(true, |count| count > MAX_REPEAT));
    if too_large {
        return Err(format!("RE2 repeats at most {MAX_REPEAT} times"));
    }
    output.push('{');
    Ok(1)
}

/// The digits of a repetition, the second perhaps empty.
fn bounds(after_brace: &str) -> Option<[&str; 2]> {
    let (inner, _) = after_brace.split_once('}')?;
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    (!low.is_empty() && digits(low) && digits(high)).then_some([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_takes_is_taken() {
        for good in [
            ".*",
            "/v[0-9]+/items/\\d{1,3}",
            "(?i)curl/.*",
            "(?P<name>a)(?:b)(?i:c)(?-s:.)",
            "\\Qa.b*\\E+",
            "[[:alpha:]_]+",
            "[]a]",
            "[a&&b]",
            "[a[b]",
            "\\pL\\p{Greek}",
            "a{,3}",
            "{x}",
            "a{1000}",
            "a{2,3}?b+?",
            "\\C",
            "^a$|b\\z",
            "[^/]+",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        let long = "a".repeat(1025);
        for bad in [
            "", "*", "(", "a)", "[a", "(?=a)", "(?!a)", "(?<=a)", "(?x)a b", "a{1001}", "a**", "a{2}*", "a*??",
            "\\u1234", "\\1", "\\", "\\<a", &long,
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
