//! Formatting times with `strftime` specifiers and Envoy's for fractions of a second.

use std::cell::{LazyCell, RefCell};
use std::fmt::{self, Write};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use time::{OffsetDateTime, UtcOffset};

use super::write::Short;

/// A time format.
#[derive(Clone, Debug)]
pub(super) struct TimeFormat {
    pieces: Vec<Piece>,
    /// Whether in the local time zone instead of UTC.
    local: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    /// `%Y-%m-%dT%H:%M:%S` in UTC, which most formats contain; cached, as it is the same for a whole second.
    IsoSecond,
    /// A `strftime` specifier.
    Letter(char),
    /// `%f`, `%3f`, …: so many digits of the fraction of a second.
    Fraction(u32),
    /// `%s`, `%3s`, …: time since 1970 in seconds, or in smaller units.
    Epoch(u32),
}

impl TimeFormat {
    /// Parses a format; the empty one is ISO 8601 with milliseconds. Unknown specifiers stand for themselves.
    pub(super) fn parse(text: &str) -> Self {
        let text = if text.is_empty() {
            "%Y-%m-%dT%H:%M:%S.%3fZ"
        } else {
            text
        };
        let (mut pieces, iso) = (Self::pieces(text), Self::pieces("%Y-%m-%dT%H:%M:%S"));
        if let Some(at) = pieces.windows(iso.len()).position(|some| some == iso) {
            pieces.splice(at..at + iso.len(), [Piece::IsoSecond]);
        }
        Self { pieces, local: false }
    }

    fn pieces(text: &str) -> Vec<Piece> {
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
                Some('f') => Piece::Fraction(digits.map_or(9, |digits| digits.min(9))),
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
        pieces
    }

    /// The same in the local time zone, which the empty format then shows.
    pub(super) fn parse_local(text: &str) -> Self {
        let text = if text.is_empty() {
            "%Y-%m-%dT%H:%M:%S.%3f%z"
        } else {
            text
        };
        Self {
            pieces: Self::pieces(text),
            local: true,
        }
    }

    /// Writes a time.
    pub(super) fn write(&self, out: &mut impl Write, at: SystemTime) -> fmt::Result {
        /// The local zone, from `TZ` or `/etc/localtime`; UTC if that fails.
        static HERE: LazyLock<TimeZone> = LazyLock::new(|| TimeZone::try_system().unwrap_or(TimeZone::UTC));
        self.write_in(out, at, self.local.then(|| &*HERE))
    }

    fn write_in(&self, out: &mut impl Write, at: SystemTime, zone: Option<&TimeZone>) -> fmt::Result {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let here = LazyCell::new(|| {
            let moment = Timestamp::try_from(at).ok()?;
            zone.map(|zone| zone.to_offset_info(moment))
        });
        let time = LazyCell::new(|| {
            let time = OffsetDateTime::from(at);
            let east = here
                .as_ref()
                .map(|here| UtcOffset::from_whole_seconds(here.offset().seconds()));
            let there = east.and_then(|east| time.checked_to_offset(east.ok()?));
            there.unwrap_or(time)
        });
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => out.write_str(text),
            Piece::IsoSecond => write_iso_second(out, since.as_secs()),
            Piece::Fraction(digits) => {
                let divisor = 10_u32.pow(9_u32.saturating_sub(*digits));
                self::digits(out, since.subsec_nanos() / divisor, *digits as usize)
            }
            Piece::Epoch(digits) => write!(out, "{}", since.as_nanos() / 10_u128.pow(9 - digits)),
            Piece::Letter('z') => write_offset(out, time.offset()),
            Piece::Letter('Z') => out.write_str(here.as_ref().map_or("UTC", |here| here.abbreviation())),
            Piece::Letter(letter) => write_letter(out, *letter, *time),
        })
    }
}

/// Writes a second since 1970 as `2006-01-02T15:04:05`.
fn write_iso_second(out: &mut impl Write, second: u64) -> fmt::Result {
    thread_local! {
        /// The second that was written last, and its text.
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second || text.is_empty() {
            (*last, *text) = (second, iso_second(second)?);
        }
        out.write_str(text)
    })
}

fn iso_second(second: u64) -> Result<String, fmt::Error> {
    let (mut text, time) = (
        String::new(),
        OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(second)),
    );
    for (letter, after) in [('F', "T"), ('T', "")] {
        write_letter(&mut text, letter, time)?;
        text.push_str(after);
    }
    Ok(text)
}

fn write_letter(out: &mut impl Write, letter: char, time: OffsetDateTime) -> fmt::Result {
    let (year, month, day) = (time.year(), u32::from(u8::from(time.month())), u32::from(time.day()));
    let (hour, minute, second) = (time.hour().into(), time.minute().into(), time.second().into());
    let short_year = year.rem_euclid(100).unsigned_abs();
    match letter {
        'Y' => write_year(out, year),
        'y' => digits(out, short_year, 2),
        'm' => digits(out, month, 2),
        'd' => digits(out, day, 2),
        'e' => write!(out, "{day:2}"),
        'H' => digits(out, hour, 2),
        'M' => digits(out, minute, 2),
        'S' => digits(out, second, 2),
        'T' => three(out, [hour, minute, second], b':'),
        'F' => {
            write_year(out, year)?;
            out.write_char('-')?;
            digits(out, month, 2)?;
            out.write_char('-')?;
            digits(out, day, 2)
        }
        'D' => three(out, [month, day, short_year], b'/'),
        'j' => digits(out, time.ordinal().into(), 3),
        'b' => write!(out, "{:.3}", time.month().to_string()),
        'B' => write!(out, "{}", time.month()),
        'a' => write!(out, "{:.3}", time.weekday().to_string()),
        'A' => write!(out, "{}", time.weekday()),
        _ => Ok(()),
    }
}

fn write_offset(out: &mut impl Write, offset: UtcOffset) -> fmt::Result {
    let (hours, minutes, _) = offset.as_hms();
    out.write_char(if offset.is_negative() { '-' } else { '+' })?;
    digits(out, hours.unsigned_abs().into(), 2)?;
    digits(out, minutes.unsigned_abs().into(), 2)
}

fn write_year(out: &mut impl Write, year: i32) -> fmt::Result {
    match u32::try_from(year) {
        Ok(year @ 1000..10_000) => digits(out, year, 4),
        Ok(_) | Err(_) => write!(out, "{year}"),
    }
}

/// The last `count` digits of a number.
fn digits(out: &mut impl Write, number: u32, count: usize) -> fmt::Result {
    let mut short = Short::default();
    short.push_digits(number, count);
    short.write(out)
}

/// Three two-digit numbers with a separator.
fn three(out: &mut impl Write, numbers: [u32; 3], between: u8) -> fmt::Result {
    let mut short = Short::default();
    for (at, number) in numbers.into_iter().enumerate() {
        if at > 0 {
            short.push(between);
        }
        short.push_digits(number, 2);
    }
    short.write(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_asked() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let text = |format| {
            let mut out = String::new();
            TimeFormat::parse(format).write(&mut out, at).unwrap();
            out
        };
        assert_eq!(text(""), "2023-11-14T22:13:20.123Z");
        assert_eq!(text("%Y/%m/%dT%H:%M:%S%z %s"), "2023/11/14T22:13:20+0000 1700000000");
        assert_eq!(text("%3f|%6f|%f|%3s"), "123|123456|123456789|1700000000123");
        assert_eq!(text("%d/%b/%Y %a"), "14/Nov/2023 Tue");
        assert_eq!(text("at %Y-%m-%dT%H:%M:%S%z"), "at 2023-11-14T22:13:20+0000");
        assert_eq!(text("%%Y-%m-%dT%H:%M:%S"), "%Y-11-14T22:13:20");
        assert_eq!(text("%F %T %D %y %e %j"), "2023-11-14 22:13:20 11/14/23 23 14 318");
        assert_eq!(text("%B %A %H.%M.%S %Z %0f"), "November Tuesday 22.13.20 UTC ");
    }

    #[test]
    fn seconds_are_told_apart() {
        let format = TimeFormat::parse("");
        for (second, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (59, "1970-01-01T00:00:59.000Z"),
            (60, "1970-01-01T00:01:00.000Z"),
        ] {
            let mut out = String::new();
            format
                .write(&mut out, UNIX_EPOCH + Duration::from_secs(second))
                .unwrap();
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn local_times_are_those_of_the_zone() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let text = |zone| {
            let mut out = String::new();
            let format = TimeFormat::parse_local("%F %T.%3f %z %Z %s");
            let zone = TimeZone::posix(zone).unwrap();
            format.write_in(&mut out, at, Some(&zone)).unwrap();
            out
        };
        assert_eq!(
            text("EET-2EEST,M3.5.0/3,M10.5.0/4"),
            "2023-11-15 00:13:20.123 +0200 EET 1700000000"
        );
        assert_eq!(
            text("NST3:30NDT,M3.2.0,M11.1.0"),
            "2023-11-14 18:43:20.123 -0330 NST 1700000000"
        );
    }
}
