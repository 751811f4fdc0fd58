//! Points in time, in the words of `strftime` and Envoy's own for fractions of a second.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// How a point in time is written.
#[derive(Clone, Debug)]
pub(super) struct TimeFormat(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<str>),
    /// A letter of `strftime`.
    Letter(char),
    /// `%f`, `%3f`, …: digits of the fraction of a second.
    Fraction(usize),
    /// `%s` with digits: seconds since 1970, or thousandths and so on.
    Epoch(u32),
}

impl TimeFormat {
    /// Reads a format; an empty one is ISO 8601 with milliseconds. Letters that are not known stand for themselves.
    pub(super) fn parse(text: &str) -> Self {
        let text = if text.is_empty() {
            "%Y-%m-%dT%H:%M:%S.%3fZ"
        } else {
            text
        };
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character != '%' {
                literal.push(character);
                continue;
            }
            let digits = characters
                .next_if(char::is_ascii_digit)
                .and_then(|digit| digit.to_digit(10));
            let piece = match characters.next() {
                Some('f') => Piece::Fraction(digits.map_or(9, |digits| digits.min(9) as usize)),
                Some('s') => Piece::Epoch(digits.unwrap_or(0).min(9)),
                Some(letter) if "YmdHMSyTzZbBaAjeFDs".contains(letter) => Piece::Letter(letter),
                Some(other) => {
                    literal.push(other);
                    continue;
                }
                None => break,
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Self(pieces)
    }

    /// The text, in UTC.
    pub(super) fn text(&self, at: SystemTime) -> String {
        let time = OffsetDateTime::from(at);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut out = String::with_capacity(32);
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Fraction(digits) => out.push_str(&format!("{:09}", since.subsec_nanos())[..*digits]),
                Piece::Epoch(digits) => {
                    let scaled = since.as_nanos() / 10_u128.pow(9 - digits);
                    out.push_str(&scaled.to_string());
                }
                Piece::Letter(letter) => letter_of(&mut out, *letter, time),
            }
        }
        out
    }
}

fn letter_of(out: &mut String, letter: char, time: OffsetDateTime) {
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let (month_name, weekday) = (time.month().to_string(), time.weekday().to_string());
    let text = match letter {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year.rem_euclid(100)),
        'm' => format!("{month:02}"),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'H' => format!("{hour:02}"),
        'M' => format!("{minute:02}"),
        'S' => format!("{second:02}"),
        'T' => format!("{hour:02}:{minute:02}:{second:02}"),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'D' => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
        'j' => format!("{:03}", time.ordinal()),
        'b' => month_name[..3].to_owned(),
        'B' => month_name,
        'a' => weekday[..3].to_owned(),
        'A' => weekday,
        'z' => "+0000".to_owned(),
        _ => "UTC".to_owned(),
    };
    out.push_str(&text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_asked() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let text = |format| TimeFormat::parse(format).text(at);
        assert_eq!(text(""), "2023-11-14T22:13:20.123Z");
        assert_eq!(text("%Y/%m/%dT%H:%M:%S%z %s"), "2023/11/14T22:13:20+0000 1700000000");
        assert_eq!(text("%3f|%6f|%f|%3s"), "123|123456|123456789|1700000000123");
        assert_eq!(text("%d/%b/%Y %a"), "14/Nov/2023 Tue");
    }
}
