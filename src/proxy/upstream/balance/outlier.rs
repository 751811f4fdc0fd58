//! Outlier detection: hosts that fail leave the rotation for a while.

use std::sync::atomic::AtomicU32;

use http::StatusCode;

use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::connect::FailureKind;
use crate::proxy::upstream::host::Host;

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

/// What came of sending something to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It answered.
    Status(StatusCode),
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, or broke off.
    Failure(FailureKind),
    /// A TCP connection was made.
    Connected,
}

impl Cluster {
    /// Takes down what came of sending something to a host.
    pub(crate) fn report(&self, _host: &Host, _report: Report) {}
}
