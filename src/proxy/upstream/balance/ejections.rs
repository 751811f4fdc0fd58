//! What hosts are ejected for, and how often.

use std::sync::atomic::AtomicU64;

/// What a host is ejected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Server errors in a row.
    Consecutive5xx,
    /// Errors of a gateway in a row.
    ConsecutiveGateway,
    /// Failures of our own making in a row.
    ConsecutiveLocal,
    /// Fewer good answers than others have.
    SuccessRate,
    /// It is reached less often than others.
    SuccessRateLocal,
    /// Too many bad answers of a hundred.
    FailurePercentage,
    /// It is not reached too often of a hundred times.
    FailurePercentageLocal,
}

/// How often hosts were ejected for one cause.
#[derive(Debug, Default)]
pub(crate) struct ForCause {
    /// `ejections_detected_…`: it was seen, whatever came of it.
    pub(crate) detected: AtomicU64,
    /// `ejections_enforced_…`.
    pub(crate) enforced: AtomicU64,
}

/// `outlier_detection.…`, apart from the gauge of those that are ejected now.
#[derive(Debug, Default)]
pub(crate) struct Ejections {
    causes: [ForCause; Cause::NAMES.len()],
    /// `ejections_enforced_total`.
    pub(crate) enforced: AtomicU64,
    /// `ejections_overflow`: no more hosts may be ejected.
    pub(crate) overflow: AtomicU64,
    /// `ejections_total`, which Envoy keeps for those who know it from before: there was room to eject a host for errors in
    /// a row or for its success rate.
    pub(crate) total: AtomicU64,
}

impl Cause {
    /// What they are called in names of statistics, in their order.
    const NAMES: [&'static str; 7] = [
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "consecutive_local_origin_failure",
        "success_rate",
        "local_origin_success_rate",
        "failure_percentage",
        "local_origin_failure_percentage",
    ];

    /// Whether it counts in `ejections_total`.
    pub(super) fn is_of_old(self) -> bool {
        matches!(self, Cause::Consecutive5xx | Cause::SuccessRate)
    }
}

impl Ejections {
    /// Those for one cause.
    pub(super) fn of(&self, cause: Cause) -> &ForCause {
        &self.causes[cause as usize]
    }

    /// Tells each counter by what follows `outlier_detection.`.
    pub(crate) fn counters(&self, mut tell: impl FnMut(&str, &AtomicU64)) {
        for (name, cause) in Cause::NAMES.iter().zip(&self.causes) {
            tell(&format!("ejections_detected_{name}"), &cause.detected);
            tell(&format!("ejections_enforced_{name}"), &cause.enforced);
        }
        tell("ejections_enforced_total", &self.enforced);
        tell("ejections_overflow", &self.overflow);
        tell("ejections_total", &self.total);
        // Older names of what was detected.
        tell("ejections_consecutive_5xx", &self.of(Cause::Consecutive5xx).detected);
        tell("ejections_success_rate", &self.of(Cause::SuccessRate).detected);
    }
}
