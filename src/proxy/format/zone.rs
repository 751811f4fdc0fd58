//! The time zone of this machine, as its database has it (RFC 9636).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Where the zones are, and this machine's own.
const ZONES: &str = "/usr/share/zoneinfo";
const LOCAL: &str = "/etc/localtime";

/// A time zone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    /// From which second since 1970 on which of the offsets holds; sorted.
    transitions: Vec<(i64, usize)>,
    offsets: Vec<Offset>,
    /// What holds after the last of them.
    rule: Option<Rule>,
}

/// What is added to UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offset {
    /// Seconds east of Greenwich.
    pub(super) seconds: i32,
    /// What it is called, such as `CET`.
    pub(super) name: Box<str>,
}

/// What holds year by year.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    standard: Offset,
    /// Daylight saving time: from when to when in the year, by the clock that holds until then.
    daylight: Option<(Offset, Change, Change)>,
}

/// A moment of each year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    day: Day,
    /// Seconds after midnight.
    time: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// The n-th of the year from 1 on, February 29 never counted.
    Julian(i64),
    /// The n-th of the year from 0 on.
    Zero(i64),
    /// A day of the week, counted from Sunday, in a week of a month from 1 on; 5: the last.
    Month(i64, i64, i64),
}

/// This machine's zone: the one that `TZ` names, or else its own; UTC if it cannot be read.
pub(super) static HERE: LazyLock<Zone> = LazyLock::new(|| {
    let path = match std::env::var("TZ") {
        Ok(name) => match name.trim_start_matches(':') {
            "" => return Zone::default(),
            "localtime" => PathBuf::from(LOCAL),
            // An absolute path stays one.
            name => Path::new(ZONES).join(name),
        },
        Err(_) => PathBuf::from(LOCAL),
    };
    let read = std::fs::read(path).ok();
    read.and_then(|bytes| Zone::parse(&bytes)).unwrap_or_default()
});

impl Zone {
    /// Reads a file of the database; none if it is none.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let first = Header::parse(bytes)?;
        // The first block has no more than 32 bits for a time.
        let after = bytes.get(Header::LEN + first.len(4)..)?;
        let header = Header::parse(after).filter(|_| first.version >= b'2')?;
        let mut rest = after.get(Header::LEN..)?;
        let times = take(&mut rest, header.times * 8)?;
        let places = take(&mut rest, header.times)?;
        let types = take(&mut rest, header.types * 6)?;
        let names = take(&mut rest, header.names)?;
        take(&mut rest, header.leaps * 12 + header.standards + header.universals)?;
        let offsets = types.chunks_exact(6).map(|one| {
            let name = names.get(usize::from(one[5])..)?.split(|byte| *byte == 0).next()?;
            Some(Offset {
                seconds: i32::from_be_bytes(*one.first_chunk()?),
                name: String::from_utf8_lossy(name).into(),
            })
        });
        let offsets: Vec<_> = offsets.collect::<Option<_>>()?;
        let times = times.as_chunks().0.iter().map(|time| i64::from_be_bytes(*time));
        let transitions: Vec<_> = times.zip(places.iter().map(|place| usize::from(*place))).collect();
        let footer = rest.strip_prefix(b"\n")?.split(|byte| *byte == b'\n').next()?;
        let rule = std::str::from_utf8(footer).ok()?;
        let known = |(_, place): &(i64, usize)| *place < offsets.len();
        (transitions.iter().all(known) && !offsets.is_empty()).then(|| Self {
            rule: Rule::parse(rule),
            transitions,
            offsets,
        })
    }

    /// The offset at a moment, in seconds since 1970; none: UTC.
    pub(super) fn at(&self, seconds: i64) -> Option<&Offset> {
        let next = self.transitions.partition_point(|(from, _)| *from <= seconds);
        if next == self.transitions.len()
            && let Some(rule) = &self.rule
        {
            return Some(rule.at(seconds));
        }
        let place = match next.checked_sub(1) {
            Some(before) => self.transitions.get(before)?.1,
            None => 0,
        };
        self.offsets.get(place)
    }
}

/// The counts of a block.
struct Header {
    version: u8,
    universals: usize,
    standards: usize,
    leaps: usize,
    times: usize,
    types: usize,
    names: usize,
}

impl Header {
    const LEN: usize = 44;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(..Self::LEN)?.strip_prefix(b"TZif")?;
        let version = *rest.first()?;
        let counts = rest.get(16..)?.as_chunks().0;
        let counts = counts.iter().map(|count| u32::from_be_bytes(*count) as usize);
        let [universals, standards, leaps, times, types, names] = counts.collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            version,
            universals,
            standards,
            leaps,
            times,
            types,
            names,
        })
    }

    /// How long the block is if a time has so many bytes.
    fn len(&self, time: usize) -> usize {
        let fixed = self.types * 6 + self.names + self.standards + self.universals;
        self.times * (time + 1) + self.leaps * (time + 4) + fixed
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

impl Rule {
    /// Reads `CET-1CEST,M3.5.0,M10.5.0/3` and the like (POSIX, with the extensions of RFC 9636).
    fn parse(text: &str) -> Option<Self> {
        let mut text = Text(text);
        let standard = Offset {
            name: text.name()?,
            seconds: -i32::try_from(text.time()?).ok()?,
        };
        if text.0.is_empty() {
            return Some(Self {
                standard,
                daylight: None,
            });
        }
        let name = text.name()?;
        let seconds = match text.0.starts_with(',') {
            true => standard.seconds + 3600,
            false => -i32::try_from(text.time()?).ok()?,
        };
        let (from, to) = (text.change()?, text.change()?);
        let daylight = Some((Offset { seconds, name }, from, to));
        text.0.is_empty().then_some(Self { standard, daylight })
    }

    fn at(&self, seconds: i64) -> &Offset {
        let Some((daylight, from, to)) = &self.daylight else {
            return &self.standard;
        };
        let year = year_of(seconds + i64::from(self.standard.seconds));
        let begins = from.in_year(year) - i64::from(self.standard.seconds);
        let ends = to.in_year(year) - i64::from(daylight.seconds);
        let is_daylight = match begins < ends {
            true => (begins..ends).contains(&seconds),
            // Summer is at the turn of the year.
            false => !(ends..begins).contains(&seconds),
        };
        if is_daylight { daylight } else { &self.standard }
    }
}

impl Change {
    /// The moment in a year, in seconds since 1970 by the clock on the wall.
    fn in_year(self, year: i64) -> i64 {
        let first = days_to(year);
        let leap = i64::from(days_to(year + 1) - first == 366);
        let day = match self.day {
            Day::Zero(day) => first + day,
            Day::Julian(day) => first + day - 1 + if day >= 60 { leap } else { 0 },
            Day::Month(month, week, weekday) => {
                let starts = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];
                let start = |month: i64| {
                    let days = usize::try_from(month - 1).ok().and_then(|month| starts.get(month));
                    first + days.copied().unwrap_or(0) + if month > 2 { leap } else { 0 }
                };
                // 1970 began with a Thursday.
                let until = (weekday - (start(month) + 4)).rem_euclid(7);
                let day = start(month) + until + (week - 1) * 7;
                if day < start(month + 1) { day } else { day - 7 }
            }
        };
        day * 86400 + self.time
    }
}

/// How many days there are from 1970 to a year.
fn days_to(year: i64) -> i64 {
    let before = year - 1;
    let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (year - 1970) * 365 + leaps(before) - leaps(1969)
}

fn year_of(seconds: i64) -> i64 {
    let day = seconds.div_euclid(86400);
    // Not after it: years are at most so long, or those before 1970 at least.
    let about = 1970 + day.div_euclid(if day < 0 { 365 } else { 366 });
    let later = (about..).find(|year| days_to(year + 1) > day);
    later.unwrap_or(about)
}

/// What is still to be read.
struct Text<'a>(&'a str);

impl Text<'_> {
    fn skip(&mut self, expected: char) -> bool {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn number(&mut self) -> Option<i64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        number.parse().ok().filter(|number| *number < 1000)
    }

    /// Letters, or anything between `<` and `>`.
    fn name(&mut self) -> Option<Box<str>> {
        let (name, rest) = match self.0.strip_prefix('<') {
            Some(rest) => rest.split_once('>')?,
            None => {
                let letters = self.0.bytes().take_while(u8::is_ascii_alphabetic).count();
                self.0.split_at(letters)
            }
        };
        self.0 = rest;
        (!name.is_empty()).then(|| name.into())
    }

    /// `[+|-]hh[:mm[:ss]]`, in seconds.
    fn time(&mut self) -> Option<i64> {
        let negative = self.skip('-');
        if !negative {
            self.skip('+');
        }
        let mut seconds = self.number()? * 3600;
        for unit in [60, 1] {
            if !self.skip(':') {
                break;
            }
            seconds += self.number()? * unit;
        }
        Some(if negative { -seconds } else { seconds })
    }

    /// `,date[/time]`.
    fn change(&mut self) -> Option<Change> {
        if !self.skip(',') {
            return None;
        }
        let day = if self.skip('M') {
            let month = self.number().filter(|month| (1..=12).contains(month))?;
            let week = self
                .skip('.')
                .then(|| self.number())?
                .filter(|week| (1..=5).contains(week))?;
            let weekday = self.skip('.').then(|| self.number())?.filter(|day| *day < 7)?;
            Day::Month(month, week, weekday)
        } else if self.skip('J') {
            Day::Julian(self.number()?)
        } else {
            Day::Zero(self.number()?)
        };
        let time = if self.skip('/') { self.time()? } else { 2 * 3600 };
        Some(Change { day, time })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The offset at a moment of UTC, by the rule.
    fn at(rule: &str, moment: &str) -> (i32, String) {
        let format = &time::format_description::well_known::Rfc3339;
        let moment = time::OffsetDateTime::parse(moment, format).unwrap();
        let rule = Rule::parse(rule).unwrap();
        let offset = rule.at(moment.unix_timestamp());
        (offset.seconds / 60, offset.name.to_string())
    }

    #[test]
    fn rules_say_when_summer_is() {
        const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
        for (moment, minutes, name) in [
            ("2026-01-01T00:00:00Z", 60, "CET"),
            ("2026-03-29T00:59:59Z", 60, "CET"),
            ("2026-03-29T01:00:00Z", 120, "CEST"),
            ("2026-10-25T00:59:59Z", 120, "CEST"),
            ("2026-10-25T01:00:00Z", 60, "CET"),
            ("2028-03-26T01:00:00Z", 120, "CEST"),
        ] {
            assert_eq!(at(BERLIN, moment), (minutes, name.to_owned()), "{moment}");
        }
        const SYDNEY: &str = "AEST-10AEDT,M10.1.0,M4.1.0/3";
        assert_eq!(at(SYDNEY, "2026-01-01T00:00:00Z").1, "AEDT");
        assert_eq!(at(SYDNEY, "2026-07-01T00:00:00Z").1, "AEST");
        assert_eq!(at("<+0545>-5:45", "2026-07-01T00:00:00Z"), (345, "+0545".to_owned()));
        assert_eq!(at("EST5", "2026-07-01T00:00:00Z"), (-300, "EST".to_owned()));
        // February 29 counts, or not.
        for (day, moment) in [("J60", "2028-03-01T07:00:00Z"), ("59", "2028-02-29T07:00:00Z")] {
            let rule = format!("EST5EDT,{day},J300");
            assert_eq!(at(&rule, moment).1, "EDT");
        }
        for wrong in [
            "",
            "5",
            "CET",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,J1",
            "<CET-1",
            "UTC0 ",
        ] {
            assert_eq!(Rule::parse(wrong), None, "{wrong}");
        }
    }

    /// A file of two offsets, with a transition to the second.
    fn file(at: i64, rule: &str) -> Vec<u8> {
        let header = |times: u32, types: u32, names: u32| {
            let counts = [0, 0, 0, times, types, names];
            let counts = counts.into_iter().flat_map(u32::to_be_bytes);
            [b"TZif2".to_vec(), vec![0; 15], counts.collect()].concat()
        };
        let kind = |seconds: i32, name| [&seconds.to_be_bytes()[..], &[0, name]].concat();
        [
            header(0, 1, 4),
            kind(0, 0),
            b"UTC\0".to_vec(),
            header(1, 2, 8),
            at.to_be_bytes().to_vec(),
            vec![1],
            kind(3600, 0),
            kind(-7200, 4),
            b"ONE\0TWO\0".to_vec(),
            format!("\n{rule}\n").into_bytes(),
        ]
        .concat()
    }

    #[test]
    fn files_say_what_was() {
        let zone = Zone::parse(&file(1000, "")).unwrap();
        let named = |zone: &Zone, seconds| zone.at(seconds).map(|offset| (offset.seconds, offset.name.to_string()));
        assert_eq!(named(&zone, 999), Some((3600, "ONE".to_owned())));
        assert_eq!(named(&zone, 1000), Some((-7200, "TWO".to_owned())));
        let zone = Zone::parse(&file(1000, "NOW-3")).unwrap();
        assert_eq!(named(&zone, 1000), Some((10_800, "NOW".to_owned())));
        assert_eq!(named(&Zone::default(), 0), None);
    }

    #[test]
    fn years_begin_when_they_do() {
        for (year, days) in [
            (1970, 0),
            (1971, 365),
            (1973, 1096),
            (2000, 10_957),
            (2001, 11_323),
            (1969, -365),
        ] {
            assert_eq!(days_to(year), days, "{year}");
            assert_eq!((year_of(days * 86400), year_of(days * 86400 - 1)), (year, year - 1));
        }
    }

    proptest! {
        #[test]
        fn no_file_does_harm(cut in 0..250_usize, at in 0..200_usize, byte: u8, seconds: i64) {
            let mut file = file(1000, "CET-1CEST,M3.5.0,M10.5.0/3");
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            file.truncate(cut);
            if let Some(zone) = Zone::parse(&file) {
                zone.at(seconds >> 20);
            }
        }
    }
}
