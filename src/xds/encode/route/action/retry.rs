//! Retries.

use crate::mesh::virtual_service::RetryPolicy;
use crate::xds::encode::value::{any, duration, uint32};
use crate::xds::pb::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use crate::xds::pb::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::xds::pb::route;
use crate::xds::pb::route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};

/// How often another host is looked for, as in Istio.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// After how many attempts other localities are preferred, as in Istio.
const ATTEMPTS_PER_PRIORITY: i32 = 2;

/// The policy; `other_hosts` avoids hosts that were tried.
pub(super) fn policy(retry: &RetryPolicy, other_hosts: bool) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: retry.retry_on.join(","),
        num_retries: Some(uint32(retry.attempts)),
        per_try_timeout: retry.per_try_timeout.map(duration),
        retriable_status_codes: retry.status_codes.iter().map(|code| u32::from(*code)).collect(),
        retry_host_predicate: other_hosts.then(previous_hosts).into_iter().collect(),
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        retry_priority: retry.remote_localities.then(previous_priorities),
        retry_back_off: retry.backoff.map(|base| RetryBackOff {
            base_interval: Some(duration(base)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
            &PreviousHostsPredicate {},
        ))),
    }
}

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(any(
            &PreviousPrioritiesConfig {
                update_frequency: ATTEMPTS_PER_PRIORITY,
            },
        ))),
    }
}
