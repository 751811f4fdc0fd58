//! `/stats/prometheus`: the Prometheus text format, with Envoy's names.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::histogram::{BOUNDS, Distribution};
use super::naming::{Naming, sanitized};
use super::{Kind, Snapshot};

/// The samples of each name: labels and value.
type Samples<T> = BTreeMap<String, Vec<(String, T)>>;

/// Renders counters, gauges and histograms, each sorted by name.
pub(crate) fn render(snapshot: &Snapshot, naming: &Naming) -> String {
    let mut out = String::new();
    numbers(&mut out, snapshot, naming, Kind::Counter, "counter");
    numbers(&mut out, snapshot, naming, Kind::Gauge, "gauge");
    let histograms = snapshot.histograms.iter();
    let histograms = histograms.map(|(name, distribution)| (&**name, distribution));
    for (name, samples) in named(naming, histograms) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (labels, distribution) in samples {
            histogram(&mut out, &name, &labels, distribution);
        }
    }
    out
}

fn numbers(out: &mut String, snapshot: &Snapshot, naming: &Naming, kind: Kind, word: &str) {
    let metrics = snapshot.metrics.iter().filter(|metric| metric.kind == kind);
    for (name, samples) in named(naming, metrics.map(|metric| (&*metric.name, metric.value))) {
        let _ = writeln!(out, "# TYPE {name} {word}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
    }
}

fn named<'a, T>(naming: &Naming, all: impl Iterator<Item = (&'a str, T)>) -> Samples<T> {
    let mut samples = Samples::new();
    for (full, value) in all {
        let labelled = naming.labelled(full);
        let name = format!("envoy_{}", sanitized(&labelled.name));
        let labels = labelled.labels.iter();
        let labels = labels.map(|(name, value)| format!("{}=\"{}\"", sanitized(name), escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        samples.entry(name).or_default().push((labels, value));
    }
    samples
}

fn histogram(out: &mut String, name: &str, labels: &str, distribution: &Distribution) {
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in BOUNDS {
        let count = distribution.at_most(bound);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    }
    let count = distribution.count();
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", distribution.sum());
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

/// Escapes a label value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Metric;
    use super::super::histogram::Histogram;
    use super::super::naming::Shown;
    use super::*;

    #[test]
    fn samples_of_one_name_stand_together_under_its_type() {
        let metric = |name: &str, kind, value| Metric {
            name: name.to_owned(),
            kind,
            value,
        };
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(3));
        let snapshot = Snapshot {
            metrics: vec![
                metric("cluster.a.upstream_rq_200", Kind::Counter, 3),
                metric("cluster.a.upstream_rq_active", Kind::Gauge, 1),
                metric("cluster.b\"q.upstream_rq_200", Kind::Counter, 4),
                metric("server.live", Kind::Gauge, 1),
            ],
            histograms: vec![("http.in.downstream_rq_time".to_owned(), histogram.distribution())],
        };
        let text = render(&snapshot, &Naming::new(true, Vec::new(), Shown::All));
        let start = "\
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"a\"} 3
envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"b\\\"q\"} 4
# TYPE envoy_cluster_upstream_rq_active gauge
envoy_cluster_upstream_rq_active{envoy_cluster_name=\"a\"} 1
# TYPE envoy_server_live gauge
envoy_server_live{} 1
# TYPE envoy_http_downstream_rq_time histogram
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"in\",le=\"0.5\"} 0
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"in\",le=\"1\"} 0
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"in\",le=\"5\"} 1
";
        assert!(text.starts_with(start), "{text}");
        let end = "\
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"in\",le=\"+Inf\"} 1
envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix=\"in\"} 3.05
envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix=\"in\"} 1
";
        assert!(text.ends_with(end), "{text}");
    }
}
