//! Renewal time of certificates: half of the lifetime, as in Istio's agent
//! (`SECRET_GRACE_PERIOD_RATIO` 0.5, jitter 0.01).

use std::time::SystemTime;

use super::issue::BACKDATE;

/// Maximum jitter as a fraction of the lifetime.
const JITTER: f64 = 0.01;

/// Validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub not_before: SystemTime,
    /// `notAfter`.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether the time is within the period.
    pub fn contains(&self, at: SystemTime) -> bool {
        self.not_before <= at && at <= self.not_after
    }
}

/// The time to renew a certificate: half of its lifetime, without the backdating of `notBefore`,
/// plus jitter of up to one percent of it, so that certificates issued together are not renewed
/// together. `jitter` ranges from -1 (earliest) to 1 (latest) and is clamped; NaN counts as 0.
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
    fn renewal_is_at_half_life_with_jitter() {
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
