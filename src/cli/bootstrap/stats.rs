//! Statistics configuration: which statistics the proxy creates, and the tags extracted from their names.

use serde_json::{Value, json};

/// Prefixes of the statistics to create: the proxy's own, those of its listeners, and HTTP and TCP traffic
/// per listener. Per-cluster statistics would cost 35 KiB per cluster, and a proxy uses few of the mesh's
/// clusters.
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

/// Tag names and extraction regexes. The first capture group is removed from the statistic's name, the second
/// is the tag's value. Cluster and listener names contain dots, so they end with `;`.
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
