//! Versions of Compose and their features.

use std::fmt;
use std::str::FromStr;

/// A version of Compose; unspecified parts mean the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    major: u32,
    minor: Option<u32>,
    patch: Option<u32>,
}

/// The text is not a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a Compose version, such as 2, 1.29 or 2.24.4")]
pub struct NoVersion;

impl Version {
    /// The first version in which a file can reset or override fields of earlier ones (`!reset`,
    /// `!override`) in any number of services.
    pub const TAKES_BACK: Self = Self {
        major: 2,
        minor: Some(24),
        patch: Some(4),
    };

    /// Whether `!reset` and `!override` are supported.
    pub fn takes_back(self) -> bool {
        self.parts() >= Self::TAKES_BACK.parts()
    }

    /// Whether it is version 1, the standalone `docker-compose`.
    pub fn is_first(self) -> bool {
        self.major == 1
    }

    fn parts(self) -> [u32; 3] {
        [
            self.major,
            self.minor.unwrap_or(u32::MAX),
            self.patch.unwrap_or(u32::MAX),
        ]
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    /// Parses `2`, `1.29.2`, and versions of distributions: `v2.26.1-4`, `2.20.2+ds1`.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let mut parts = text[..end.unwrap_or(text.len())].split('.').map(str::parse);
        let mut next = || parts.next().transpose().map_err(|_| NoVersion);
        Ok(Self {
            major: next()?.ok_or(NoVersion)?,
            minor: next()?,
            patch: next()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.major)?;
        let more = [self.minor, self.patch];
        more.iter().flatten().try_for_each(|part| write!(f, ".{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let takes_back = |text: &str| text.parse::<Version>().unwrap().takes_back();
        for text in [
            "2",
            "2.24.4",
            "v2.26.1-4",
            "2.24.4+ds1-0ubuntu1",
            "2.25",
            "5.0.1",
            " 2.30.0\n",
        ] {
            assert!(takes_back(text), "{text}");
        }
        for text in ["1", "1.29.2", "2.24.3", "v2.20.2+ds1", "2.23"] {
            assert!(!takes_back(text), "{text}");
        }
        for text in ["", "v", "two", "2.", ".1", "-1", "99999999999"] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text}");
        }
        assert_eq!("v2.26.1-4".parse::<Version>().unwrap().to_string(), "2.26.1");
        assert_eq!("2".parse::<Version>().unwrap().to_string(), "2");
    }
}
