//! Access log filters (`AccessLogFilter`).

use std::time::Duration;

use http::StatusCode;

use crate::proxy::flags::Flags;
use crate::proxy::format::Context;
use crate::proxy::http::local_reply::grpc_status;
use crate::proxy::http::route::{HeaderMatch, Request};
use crate::proxy::trace::decision::{Share, number};

/// A condition for logging.
#[derive(Debug)]
pub(crate) enum LogFilter {
    /// Compares the status.
    Status(Comparison),
    /// Compares the duration in milliseconds.
    Duration(Comparison),
    /// Any of these response flags; empty: any flag.
    Flags(Vec<Flags>),
    /// By a header of the request.
    Header(HeaderMatch),
    /// `runtime_filter`: a share of requests, chosen by the request id, which all proxies do alike, or at random.
    Share(Share, bool),
    /// No health checks answered by the proxy.
    NotHealthCheck,
    /// `traceable_filter`: only what is traced because a service has forced it, the one case that Envoy's filter still
    /// knows.
    Traceable,
    /// All of these.
    All(Vec<LogFilter>),
    /// One of these.
    Any(Vec<LogFilter>),
    /// gRPC statuses; or all others, if `true`.
    GrpcStatus(Vec<u64>, bool),
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `EQ`.
    Equal(u64),
    /// `GE`.
    AtLeast(u64),
    /// `LE`.
    AtMost(u64),
    /// `NE`.
    NotEqual(u64),
}

impl Comparison {
    fn holds(self, value: u64) -> bool {
        match self {
            Comparison::Equal(number) => value == number,
            Comparison::AtLeast(number) => value >= number,
            Comparison::AtMost(number) => value <= number,
            Comparison::NotEqual(number) => value != number,
        }
    }
}

impl LogFilter {
    /// Whether a finished request or connection is to be logged.
    pub(crate) fn passes(&self, context: &Context<'_>) -> bool {
        let stream = context.stream;
        match self {
            LogFilter::Status(comparison) => comparison.holds(stream.status.into()),
            LogFilter::Duration(comparison) => {
                let duration = stream.timing.end.unwrap_or(Duration::ZERO);
                comparison.holds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            }
            LogFilter::Flags(flags) if flags.is_empty() => !stream.flags.is_empty(),
            LogFilter::Flags(flags) => flags.iter().any(|flag| stream.flags.contains(*flag)),
            LogFilter::Header(header) => matches(header, context),
            LogFilter::Share(share, independent) => {
                let id = stream.request_id.as_ref().filter(|_| !independent);
                share.has(
                    id.and_then(|id| number(id.as_bytes()))
                        .unwrap_or_else(|| fastrand::u64(..)),
                )
            }
            LogFilter::NotHealthCheck => !stream.health_check,
            LogFilter::Traceable => stream.trace_forced,
            LogFilter::All(filters) => filters.iter().all(|filter| filter.passes(context)),
            LogFilter::Any(filters) => filters.iter().any(|filter| filter.passes(context)),
            LogFilter::GrpcStatus(statuses, exclude) => {
                // As in Envoy, the HTTP status stands for a missing gRPC status; without either it is `UNKNOWN`.
                let of_http = || StatusCode::from_u16(stream.status).map_or(2, |status| grpc_status(status).into());
                statuses.contains(&context.grpc_status().unwrap_or_else(of_http)) != *exclude
            }
        }
    }

    pub(super) fn asks_for_request_headers(&self) -> bool {
        match self {
            LogFilter::Header(_) => true,
            LogFilter::All(filters) | LogFilter::Any(filters) => {
                filters.iter().any(LogFilter::asks_for_request_headers)
            }
            LogFilter::Status(_)
            | LogFilter::Duration(_)
            | LogFilter::Flags(_)
            | LogFilter::Share(..)
            | LogFilter::NotHealthCheck
            | LogFilter::Traceable
            | LogFilter::GrpcStatus(..) => false,
        }
    }
}

fn matches(header: &HeaderMatch, context: &Context<'_>) -> bool {
    let (Some(line), Some(headers)) = (context.request, context.request_headers) else {
        return false;
    };
    let Ok(uri) = line.path.parse() else {
        return false;
    };
    header.matches(&Request {
        method: line.method,
        uri: &uri,
        scheme: line.scheme,
        host: line.authority,
        headers,
        random: 0,
    })
}
