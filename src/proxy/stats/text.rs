//! `/stats` as text and JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Snapshot;
use super::histogram::{Distribution, QUANTILES};

/// One line each: counters and gauges, then histograms.
pub(crate) fn lines(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for metric in &snapshot.metrics {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}: {}", metric.name, metric.value);
    }
    for (name, distribution) in &snapshot.histograms {
        let _ = writeln!(out, "{name}: {}", quantiles(distribution));
    }
    out
}

/// Each quantile as `P50(interval,cumulative)`. Intervals are not kept: the first is `nan`, as Envoy prints for an
/// empty interval.
fn quantiles(distribution: &Distribution) -> String {
    if distribution.is_empty() {
        return "No recorded values".to_owned();
    }
    let values = QUANTILES.iter().filter_map(|quantile| {
        let value = distribution.quantile(*quantile)?;
        Some(format!("P{quantile}(nan,{value})"))
    });
    values.collect::<Vec<_>>().join(" ")
}

/// The output for `format=json`.
pub(crate) fn json(snapshot: &Snapshot) -> Value {
    let metrics = snapshot.metrics.iter();
    let mut stats: Vec<_> = metrics
        .map(|metric| json!({"name": metric.name, "value": metric.value}))
        .collect();
    if !snapshot.histograms.is_empty() {
        let computed: Vec<_> = snapshot.histograms.iter().map(computed).collect();
        let histograms = json!({"supported_quantiles": QUANTILES.map(number), "computed_quantiles": computed});
        stats.push(json!({"histograms": histograms}));
    }
    json!({"stats": stats})
}

fn computed((name, distribution): &(String, Distribution)) -> Value {
    let values = QUANTILES.map(|quantile| {
        let cumulative = distribution.quantile(quantile).map(number);
        json!({"cumulative": cumulative, "interval": null})
    });
    json!({"name": name, "values": values})
}

/// An integer without a decimal point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 {
        json!(value as u64)
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::histogram::Histogram;
    use super::super::{Kind, Metric};
    use super::*;

    fn snapshot() -> Snapshot {
        let metric = |name: &str, value| Metric {
            name: name.to_owned(),
            kind: Kind::Counter,
            value,
        };
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(6));
        Snapshot {
            metrics: vec![metric("http.in;.no_route", 2), metric("server.live", 1)],
            histograms: vec![
                ("a".to_owned(), Distribution::default()),
                ("b".to_owned(), histogram.distribution()),
            ],
        }
    }

    #[test]
    fn text_is_envoys() {
        assert_eq!(
            lines(&snapshot()),
            "http.in;.no_route: 2\nserver.live: 1\na: No recorded values\n\
             b: P0(nan,6.05) P25(nan,6.05) P50(nan,6.05) P75(nan,6.05) P90(nan,6.05) P95(nan,6.05) \
             P99(nan,6.05) P99.5(nan,6.05) P99.9(nan,6.05) P100(nan,6.05)\n"
        );
    }

    #[test]
    fn json_is_envoys() {
        let shown = json(&snapshot());
        assert_eq!(shown["stats"][0], json!({"name": "http.in;.no_route", "value": 2}));
        let histograms = &shown["stats"][2]["histograms"];
        assert_eq!(
            histograms["supported_quantiles"].to_string(),
            "[0,25,50,75,90,95,99,99.5,99.9,100]"
        );
        assert_eq!(
            histograms["computed_quantiles"][1]["values"][2],
            json!({"cumulative": 6.05, "interval": null})
        );
        assert_eq!(
            histograms["computed_quantiles"][0]["values"][0]["cumulative"],
            Value::Null
        );
    }
}
