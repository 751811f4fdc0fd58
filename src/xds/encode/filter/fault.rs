//! `envoy.filters.http.fault`, configured per route.

use std::time::Duration;

use crate::mesh::virtual_service::{self, FaultAbort as Abort};
use crate::name::Percent;
use crate::xds::encode::value::{duration, fraction};
use crate::xds::pb::common_fault::FaultDelay;
use crate::xds::pb::common_fault::fault_delay::FaultDelaySecifier;
use crate::xds::pb::http_filter::fault::fault_abort::ErrorType;
use crate::xds::pb::http_filter::fault::{FaultAbort, HttpFault};

pub(super) const NAME: &str = "envoy.filters.http.fault";

/// The filter itself has no configuration.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::encode::testing::printed;

    #[test]
    fn delays_and_aborts_have_percentages_per_million() {
        let half = Percent::new(50.0).unwrap();
        let fault = virtual_service::Fault {
            delay: Some((Duration::from_secs(5), Percent::new(0.0001).unwrap())),
            abort: Some((Abort::Http(503), half)),
        };
        assert_eq!(
            printed(&per_route(&fault)),
            json!({
                "delay": {"fixed_delay": "5s", "percentage": {"numerator": 1, "denominator": "MILLION"}},
                "abort": {"http_status": 503, "percentage": {"numerator": 500_000, "denominator": "MILLION"}},
            })
        );
        let grpc = virtual_service::Fault {
            delay: None,
            abort: Some((Abort::Grpc(14), half)),
        };
        assert_eq!(printed(&per_route(&grpc))["abort"]["grpc_status"], 14);
    }
}
