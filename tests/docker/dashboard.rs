//! The queries of the Grafana dashboard, sent to the real Prometheus.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::harness::{eventually, get};

/// Every query of the dashboard returns a value.
pub(super) async fn every_dashboard_query_returns_data(observability: &Path, prometheus: SocketAddr) {
    let text = fs::read_to_string(observability.join("grafana/dashboards/mesh.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 5, "{queries:?}");
    for query in queries {
        let path = format!("/api/v1/query?query={}", escaped(query));
        eventually(query, async || {
            let answer = get(prometheus, "prometheus", &path).send().await?;
            let value: Value = serde_json::from_slice(&answer.body).map_err(|_| answer.text())?;
            let results = value["data"]["result"].as_array().map_or(0, Vec::len);
            (value["status"] == "success" && results > 0)
                .then_some(())
                .ok_or(answer.text())
        })
        .await;
    }
}

/// Percent-encodes every byte except letters and digits.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
