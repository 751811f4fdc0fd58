//! Compiling retry policies.

use std::sync::Arc;
use std::time::Duration;

use crate::proxy::config::value::{duration, limit, number, unpack};
use crate::proxy::config::{At, Compiled, Refusal, matcher};
use crate::proxy::http::route::{HeaderMatch, RetryOn, RetryPolicy};
use crate::xds::pb::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::xds::pb::route;

/// Envoy's defaults: a base interval of 25 ms, and a maximum of ten times the base.
const BASE_INTERVAL: Duration = Duration::from_millis(25);
const MAX_FACTOR: u32 = 10;

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";

/// Compiles a `retry_policy`, if there is one.
pub(super) fn policy(message: Option<&route::RetryPolicy>) -> Compiled<Option<Arc<RetryPolicy>>> {
    let policy = message.map(compiled).transpose().at("retry_policy")?;
    Ok(policy.map(Arc::new))
}

fn compiled(message: &route::RetryPolicy) -> Compiled<RetryPolicy> {
    let back_off = message.retry_back_off.as_ref();
    let base = back_off.and_then(|back_off| back_off.base_interval.as_ref());
    let base = base.map_or(BASE_INTERVAL, duration).max(Duration::from_millis(1));
    let longest = back_off.and_then(|back_off| back_off.max_interval.as_ref());
    let other_hosts = predicates(message)?;
    Ok(RetryPolicy {
        on: RetryOn::parse(&message.retry_on),
        retries: number(message.num_retries.as_ref(), 1),
        per_try_timeout: limit(message.per_try_timeout.as_ref(), None),
        status_codes: message
            .retriable_status_codes
            .iter()
            .filter_map(|code| u16::try_from(*code).ok())
            .collect(),
        headers: headers("retriable_headers", &message.retriable_headers)?,
        request_headers: headers("retriable_request_headers", &message.retriable_request_headers)?,
        base_interval: base,
        max_interval: longest.map_or(base * MAX_FACTOR, duration).max(base),
        other_priorities: message
            .retry_priority
            .as_ref()
            .map(priorities)
            .transpose()
            .at("retry_priority")?,
        other_hosts,
        host_attempts: u32::try_from(message.host_selection_retry_max_attempts)
            .unwrap_or(1)
            .max(1),
    })
}

/// After how many attempts tried priorities are skipped.
fn priorities(message: &route::retry_policy::RetryPriority) -> Compiled<usize> {
    match message.config_type.as_ref() {
        Some(route::retry_policy::retry_priority::ConfigType::TypedConfig(config)) => {
            let config: PreviousPrioritiesConfig = unpack(config)?;
            Ok(usize::try_from(config.update_frequency).unwrap_or(1).max(1))
        }
        None => Err(Refusal::not_implemented(format!(
            "`{}` without a configuration",
            message.name
        ))),
    }
}

/// Whether tried hosts are avoided; no other predicate is supported.
fn predicates(message: &route::RetryPolicy) -> Compiled<bool> {
    let unknown = message
        .retry_host_predicate
        .iter()
        .find(|predicate| predicate.name != PREVIOUS_HOSTS);
    match unknown {
        Some(predicate) => {
            Err(Refusal::not_implemented(format!("`{}`", predicate.name)).within("retry_host_predicate"))
        }
        None => Ok(!message.retry_host_predicate.is_empty()),
    }
}

fn headers(field: &str, matchers: &[route::HeaderMatcher]) -> Compiled<Vec<HeaderMatch>> {
    let matchers = matchers.iter().enumerate();
    matchers
        .map(|(index, one)| matcher::header(one).at_index(field, index))
        .collect()
}
