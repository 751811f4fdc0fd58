use std::collections::BTreeMap;

use super::super::hint::Hint;
use super::super::measure::Version;
use super::*;

fn version(name: &str, share: f64, rate: f64) -> Version {
    Version {
        name: name.into(),
        share,
        rate,
    }
}

fn report() -> Report {
    let reviews = vec![
        version("v1", 0.6, 12.0),
        version("v2", 0.3, 6.0),
        version("v3", 0.1, 2.0),
    ];
    let hop = |from: &str, to: &str, versions| Hop {
        from: from.into(),
        to: to.into(),
        versions,
    };
    Report {
        rate: 20.0,
        p50: Duration::from_micros(4_120),
        p99: Duration::from_millis(123),
        total: 1440,
        hops: vec![
            hop("productpage", "details", vec![version("v1", 1.0, 20.0)]),
            hop("productpage", "reviews", reviews),
            hop("reviews", "ratings", vec![version("v1", 1.0, 8.0)]),
        ],
        ..Report::default()
    }
}

fn plane() -> PlaneState {
    PlaneState {
        answers: true,
        generation: Some(3),
        objects: 24,
        edit_to_ack: Some(Duration::from_micros(8_240)),
        problems: Vec::new(),
        proxies: BTreeMap::from([("a.default".to_owned(), "SYNCED"), ("b.default".to_owned(), "SYNCED")]),
        hint: Some(Hint {
            place: "examples/bookinfo/config/reviews.yaml:25".into(),
            text: "weight: 60".into(),
            meaning: "weights are now v1 60, v2 30, v3 10".into(),
        }),
    }
}

fn shown(report: &Report, plane: &PlaneState, missing: &[String], news: &[String]) -> (String, String) {
    let model = Model {
        elapsed: Duration::from_secs(72),
        page: "http://127.0.10.1:9080/productpage",
        report,
        plane,
        workloads: &["a.default".to_owned(), "b.default".to_owned()],
        missing,
        news: news.iter().map(String::as_str).collect(),
        directory: Path::new("examples/bookinfo/config"),
        logs: Path::new("/tmp/topsail-demo-1/logs"),
    };
    (fit(&model.frame(), (120, 50), false).join("\n"), model.line())
}

#[test]
fn a_good_moment() {
    let (frame, line) = shown(&report(), &plane(), &[], &[]);
    insta::assert_snapshot!(frame);
    assert_eq!(
        line,
        "  72s  20.0/s, p50 4.1 ms, p99 123 ms, errors 0 | details v1 100% | reviews v1 60% v2 30% v3 10% | \
         ratings v1 100% | generation 3 of 24 objects, last edit to last ACK 8.2 ms | 2 of 2 proxies SYNCED"
    );
}

#[test]
fn a_bad_moment() {
    let mut report = report();
    report.failed = 7;
    report.total_failed = 9;
    report.last_failure = Some("productpage got no good answer from reviews".into());
    report.hops[1].versions = vec![version("failed", 0.35, 7.0), version("v1", 0.65, 13.0)];
    let mut plane = plane();
    plane.answers = false;
    plane.proxies.remove("b.default");
    plane.problems = (1..=9)
        .map(|line| format!("config/reviews.yaml:{line}:1: error[TS0002]: no field `x`"))
        .collect();
    plane.hint = None;
    let news = ["the sidecar of a.default ended with signal: 9 (SIGKILL)\n  the end".to_owned()];
    let (frame, line) = shown(&report, &plane, &["control plane".to_owned()], &news);
    insta::assert_snapshot!(frame);
    assert!(
        line.ends_with("| the control plane does not respond | no control plane"),
        "{line}"
    );

    plane.answers = true;
    let (frame, line) = shown(&report, &plane, &[], &[]);
    assert!(frame.contains("1 of 2 SYNCED   b.default not connected"), "{frame}");
    assert!(line.ends_with("| 1 of 2 proxies SYNCED"), "{line}");
}

#[test]
fn before_the_first_answer() {
    let (frame, _) = shown(&Report::default(), &PlaneState::default(), &[], &[]);
    assert!(
        frame.contains("no request was answered in the last 5 seconds"),
        "{frame}"
    );
}

#[test]
fn bars_grow_by_eighths() {
    assert_eq!(bar(0.0), " ".repeat(30));
    assert_eq!(bar(1.0), "█".repeat(30));
    assert_eq!(bar(0.5), format!("{}{}", "█".repeat(15), " ".repeat(15)));
    assert_eq!(bar(1.0 / 240.0).trim(), "▏");
    assert_eq!(bar(7.0), bar(1.0));
}
