//! Statistics of outlier detection: ejections by their cause.

use std::sync::atomic::AtomicU64;

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Consecutive 5xx.
    Consecutive5xx,
    /// Consecutive gateway errors.
    ConsecutiveGateway,
    /// Consecutive local origin failures.
    ConsecutiveLocal,
    /// Success rate below the other hosts'.
    SuccessRate,
    /// Success rate of local origin events below the other hosts'.
    SuccessRateLocal,
    /// Failure percentage.
    FailurePercentage,
    /// Failure percentage of local origin events.
    FailurePercentageLocal,
}

/// Ejections for one cause.
#[derive(Debug, Default)]
pub(crate) struct ForCause {
    /// `ejections_detected_…`: whether or not enforced.
    pub(crate) detected: AtomicU64,
    /// `ejections_enforced_…`.
    pub(crate) enforced: AtomicU64,
}

/// `outlier_detection.…`, but for the gauge of ejected hosts.
#[derive(Debug, Default)]
pub(crate) struct Ejections {
    causes: [ForCause; Cause::NAMES.len()],
    /// `ejections_enforced_total`.
    pub(crate) enforced: AtomicU64,
    /// `ejections_overflow`: not enforced because of `max_ejection_percent`.
    pub(crate) overflow: AtomicU64,
    /// `ejections_total`, deprecated in Envoy: ejections for consecutive errors or success rate that
    /// `max_ejection_percent` allowed.
    pub(crate) total: AtomicU64,
}

impl Cause {
    /// The causes' names in statistics, in the order of the enum.
    const NAMES: [&'static str; 7] = [
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "consecutive_local_origin_failure",
        "success_rate",
        "local_origin_success_rate",
        "failure_percentage",
        "local_origin_failure_percentage",
    ];

    /// Whether it counts in the deprecated `ejections_total`.
    pub(super) fn is_of_old(self) -> bool {
        matches!(self, Cause::Consecutive5xx | Cause::SuccessRate)
    }
}

impl Ejections {
    /// Counters of one cause.
    pub(super) fn of(&self, cause: Cause) -> &ForCause {
        &self.causes[cause as usize]
    }

    /// Reports each counter with its name after `outlier_detection.`.
    pub(crate) fn counters(&self, mut tell: impl FnMut(&str, &AtomicU64)) {
        for (name, cause) in Cause::NAMES.iter().zip(&self.causes) {
            tell(&format!("ejections_detected_{name}"), &cause.detected);
            tell(&format!("ejections_enforced_{name}"), &cause.enforced);
        }
        tell("ejections_enforced_total", &self.enforced);
        tell("ejections_overflow", &self.overflow);
        tell("ejections_total", &self.total);
        // Deprecated names of detected ejections.
        tell("ejections_consecutive_5xx", &self.of(Cause::Consecutive5xx).detected);
        tell("ejections_success_rate", &self.of(Cause::SuccessRate).detected);
    }
}
