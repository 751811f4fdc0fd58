//! Outlier detection: hosts that fail leave the rotation for a while.

use std::sync::atomic::AtomicU32;

/// What is counted of a host.
#[derive(Debug, Default)]
pub(crate) struct OutlierState {
    /// 5xx answers in a row.
    pub(crate) consecutive_5xx: AtomicU32,
    /// 502, 503 and 504 in a row.
    pub(crate) consecutive_gateway: AtomicU32,
    /// Failures of our own making in a row.
    pub(crate) consecutive_local: AtomicU32,
}
