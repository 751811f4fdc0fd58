//! Conversions between `SystemTime` and the whole seconds used in certificates and tokens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since the Unix epoch, rounded down; 0 for earlier times.
pub(super) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The inverse; `None` if `SystemTime` cannot represent it.
pub(super) fn from_unix_seconds(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A time for X.509; `None` after the year 9999.
pub(super) fn calendar(at: SystemTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds(at)).ok()?).ok()
}

/// A time for display: `2026-11-22T21:22:25Z`.
pub(super) fn display(at: SystemTime) -> String {
    calendar(at)
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} seconds after 1970", unix_seconds(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_and_readable() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_382_545_900);
        assert_eq!(unix_seconds(at), 1_795_382_545);
        assert_eq!(display(at), "2026-11-22T21:22:25Z");
        assert_eq!(
            display(from_unix_seconds(1 << 40).unwrap()),
            "1099511627776 seconds after 1970"
        );
        assert_eq!(from_unix_seconds(u64::MAX), None);
    }
}
