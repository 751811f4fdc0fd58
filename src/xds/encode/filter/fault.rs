//! `envoy.filters.http.fault`: configured by route.

use std::time::Duration;

use crate::mesh::virtual_service::{self, FaultAbort as Abort};
use crate::name::Percent;
use crate::xds::encode::value::{duration, fraction};
use crate::xds::pb::common_fault::FaultDelay;
use crate::xds::pb::common_fault::fault_delay::FaultDelaySecifier;
use crate::xds::pb::http_filter::fault::fault_abort::ErrorType;
use crate::xds::pb::http_filter::fault::{FaultAbort, HttpFault};

pub(super) const NAME: &str = "envoy.filters.http.fault";

/// Nothing by itself.
pub(super) fn config() -> HttpFault {
    HttpFault::default()
}

/// The faults of a route.
pub(super) fn per_route(fault: &virtual_service::Fault) -> HttpFault {
    HttpFault {
        delay: fault.delay.map(|(length, share)| delay(length, share)),
        abort: fault.abort.map(|(with, share)| abort(with, share)),
        ..Default::default()
    }
}

fn delay(length: Duration, share: Percent) -> FaultDelay {
    FaultDelay {
        percentage: Some(fraction(share)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(length))),
    }
}

fn abort(with: Abort, share: Percent) -> FaultAbort {
    let error = match with {
        Abort::Http(status) => ErrorType::HttpStatus(status.into()),
        Abort::Grpc(status) => ErrorType::GrpcStatus(status),
    };
    FaultAbort {
        percentage: Some(fraction(share)),
        error_type: Some(error),
        ..Default::default()
    }
}
