//! Which statistics the proxy keeps, and how their names become Prometheus labels.

use serde_json::{Value, json};

/// What is kept: the proxy's own health, its listeners, and HTTP and TCP traffic by listener.
/// Statistics of each cluster would cost 35 KiB a cluster, and most clusters of a mesh are not used
/// by any one proxy.
const KEPT: [&str; 9] = [
    "cluster_manager",
    "cluster.xds-grpc",
    "control_plane",
    "http",
    "listener.",
    "listener_manager",
    "sds",
    "server",
    "tcp",
];

/// Labels, and the expression whose first group is cut out of a statistic's name and whose second
/// group is the label's value. The names of clusters and listeners hold dots; a `;` ends them.
const LABELS: [(&str, &str); 6] = [
    ("cluster_name", r"^cluster(\.(.+);)"),
    ("http_conn_manager_prefix", r"^http(\.(.+);)"),
    ("tcp_prefix", r"^tcp(\.(.+);)"),
    ("listener_address", r"^listener(\.(.+?_\d+))\."),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
];

/// `stats_config`.
pub(super) fn config() -> Value {
    json!({
        "use_all_default_tags": false,
        "stats_tags": LABELS.map(|(name, regex)| json!({"tag_name": name, "regex": regex})),
        "stats_matcher": {"inclusion_list": {"patterns": KEPT.map(|prefix| json!({"prefix": prefix}))}},
    })
}
