//! Retry policies.

use crate::mesh::virtual_service::RetryPolicy;
use crate::xds::encode::value::{any, duration, uint32};
use crate::xds::pb::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use crate::xds::pb::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::xds::pb::route;
use crate::xds::pb::route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};

/// `host_selection_retry_max_attempts`, as in Istio.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// `update_frequency` of `previous_priorities`: after this many attempts the priorities tried so
/// far are excluded. As in Istio.
const ATTEMPTS_PER_PRIORITY: i32 = 2;

/// The retry policy; `other_hosts` avoids hosts already attempted.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::xds::encode::testing::printed;

    #[test]
    fn the_default_is_istios() {
        assert_eq!(
            printed(&policy(&RetryPolicy::default(), true)),
            json!({
                "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                "num_retries": 2,
                "retry_host_predicate": [{
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/\
                                  envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                    },
                }],
                "host_selection_retry_max_attempts": "5",
            })
        );
    }

    #[test]
    fn all_fields_are_encoded() {
        let retry = RetryPolicy {
            attempts: 3,
            per_try_timeout: Some(Duration::from_secs(2)),
            retry_on: vec!["5xx".into()],
            status_codes: vec![429],
            remote_localities: true,
            ignore_previous_hosts: None,
            backoff: Some(Duration::from_millis(5)),
        };
        let shown = printed(&policy(&retry, false));
        assert_eq!(shown["retry_on"], "5xx");
        assert_eq!(shown["per_try_timeout"], "2s");
        assert_eq!(shown["retriable_status_codes"], json!([429]));
        assert_eq!(shown["retry_back_off"], json!({"base_interval": "0.005s"}));
        assert_eq!(shown["retry_priority"]["typed_config"]["update_frequency"], 2);
        assert_eq!(shown.get("retry_host_predicate"), None);
    }
}
