//! `envoy.filters.http.fault`.

use http::StatusCode;

use crate::proxy::config::value::{duration, per_million};
use crate::proxy::config::{At, Compiled, Refusal, matcher};
use crate::proxy::http::filter::fault::{Abort, Fault};
use crate::xds::pb::common_fault::FaultDelay;
use crate::xds::pb::common_fault::fault_delay::FaultDelaySecifier;
use crate::xds::pb::http_filter::fault::fault_abort::ErrorType;
use crate::xds::pb::http_filter::fault::{FaultAbort, HttpFault};

/// An `HTTPFault`.
pub(super) fn fault(message: &HttpFault) -> Compiled<Fault> {
    let headers = message.headers.iter().enumerate();
    Ok(Fault {
        delay: message.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: message.abort.as_ref().map(abort).transpose().at("abort")?,
        headers: headers
            .map(|(index, one)| matcher::header(one).at_index("headers", index))
            .collect::<Compiled<_>>()?,
    })
}

fn delay(message: &FaultDelay) -> Compiled<(std::time::Duration, u32)> {
    let share = message.percentage.as_ref().map_or(0, per_million);
    match message.fault_delay_secifier.as_ref() {
        Some(FaultDelaySecifier::FixedDelay(fixed)) => Ok((duration(fixed), share)),
        Some(FaultDelaySecifier::HeaderDelay(_)) => Err(Refusal::not_implemented("header_delay")),
        None => Err(Refusal::new("a delay is required")),
    }
}

fn abort(message: &FaultAbort) -> Compiled<(Abort, u32)> {
    let share = message.percentage.as_ref().map_or(0, per_million);
    let abort = match message.error_type {
        Some(ErrorType::HttpStatus(status)) => {
            let status = u16::try_from(status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok());
            Abort::Http(status.ok_or_else(|| Refusal::new("no HTTP status").within("http_status"))?)
        }
        Some(ErrorType::GrpcStatus(status)) => Abort::Grpc(status),
        Some(ErrorType::HeaderAbort(_)) => return Err(Refusal::not_implemented("header_abort")),
        None => return Err(Refusal::new("an error is required")),
    };
    Ok((abort, share))
}
