//! When a certificate is renewed: at half of its lifetime, as Istio's agent does
//! (`SECRET_GRACE_PERIOD_RATIO` 0.5 with a jitter of 0.01).

use std::time::SystemTime;

use super::issue::BACKDATE;

/// How far jitter may move a renewal, as a share of the lifetime.
const JITTER: f64 = 0.01;

/// The time a certificate is valid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether the moment lies inside.
    pub fn contains(&self, at: SystemTime) -> bool {
        self.not_before <= at && at <= self.not_after
    }
}

/// The moment to renew a certificate of that validity: half of its lifetime (of which the backdating
/// against clocks that are slow is no part), moved by up to one per cent of it so that certificates issued together are not renewed together. `jitter` is
/// between -1 (earliest) and 1 (latest); anything beyond counts as that, and NaN as 0.
pub fn renew_at(validity: Validity, jitter: f64) -> SystemTime {
    let issued = (validity.not_before + BACKDATE).min(validity.not_after.max(validity.not_before));
    let lifetime = validity.not_after.duration_since(issued).unwrap_or_default();
    let jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(-1.0, 1.0) };
    issued + lifetime.mul_f64(0.5 + JITTER * jitter)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn renewal_is_at_half_life_give_or_take_one_per_cent() {
        let validity = Validity {
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + BACKDATE + Duration::from_secs(86_400),
        };
        let after = |jitter| {
            renew_at(validity, jitter)
                .duration_since(UNIX_EPOCH + BACKDATE)
                .unwrap()
                .as_secs_f64()
                .round()
        };
        assert_eq!(after(0.0), 43_200.0);
        assert_eq!(after(-1.0), 42_336.0);
        assert_eq!(after(1.0), 44_064.0);
        assert_eq!(after(7.0), 44_064.0);
        assert_eq!(after(f64::NAN), 43_200.0);
    }

    #[test]
    fn a_validity_that_ends_before_it_begins_is_due_at_once() {
        let validity = Validity {
            not_before: UNIX_EPOCH + Duration::from_secs(9),
            not_after: UNIX_EPOCH,
        };
        assert_eq!(renew_at(validity, 1.0), validity.not_before);
        assert!(!validity.contains(UNIX_EPOCH + Duration::from_secs(5)));
    }
}
