//! Statistics of the demo's traffic: routing, failures and latency.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Length of the sliding window: short enough to show an edit, long enough to be stable.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// A completed request.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it completed.
    pub at: Instant,
    /// Its latency.
    pub took: Duration,
    /// The services involved (the header [`SERVED_BY`]), or the failure.
    ///
    /// [`SERVED_BY`]: super::service::services::SERVED_BY
    pub outcome: Result<String, String>,
}

/// Samples of the last [`WINDOW`], and totals.
#[derive(Debug)]
pub(super) struct Measure {
    started: Instant,
    samples: VecDeque<Sample>,
    total: u64,
    failed: u64,
    last_failure: Option<(Instant, String)>,
    /// Calls seen before, so that their share is still shown when it drops to zero.
    known: BTreeSet<(usize, String, String, String)>,
}

/// Statistics over the last [`WINDOW`], except for the totals.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    /// Requests per second.
    pub rate: f64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
    /// Failed requests, including those with a failed call to another service.
    pub failed: usize,
    /// The latest failure.
    pub last_failure: Option<String>,
    /// Requests since the start.
    pub total: u64,
    /// Failed requests since the start.
    pub total_failed: u64,
    /// Calls between services.
    pub hops: Vec<Hop>,
}

/// Calls from one service to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hop {
    /// The caller.
    pub from: String,
    /// The service called.
    pub to: String,
    /// The versions that responded.
    pub versions: Vec<Version>,
}

/// A version's share of a [`Hop`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Version {
    /// `v1`, or `failed`.
    pub name: String,
    /// Share of the hop's calls, 0 to 1.
    pub share: f64,
    /// Calls per second.
    pub rate: f64,
}

/// Pseudo-version for failed calls.
pub(super) const FAILED: &str = "failed";

impl Measure {
    /// Creates an empty measurement.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            samples: VecDeque::new(),
            total: 0,
            failed: 0,
            last_failure: None,
            known: BTreeSet::new(),
        }
    }

    /// Records a request.
    pub(super) fn add(&mut self, sample: Sample) {
        self.total += 1;
        if let Some(why) = failure(&sample) {
            self.failed += 1;
            self.last_failure = Some((sample.at, why));
        }
        if let Ok(served_by) = &sample.outcome {
            let answered = calls(served_by).into_iter().filter(|(.., version)| *version != FAILED);
            let known = answered.map(|(depth, from, to, version)| (depth, from.into(), to.into(), version.into()));
            self.known.extend(known);
        }
        self.samples.push_back(sample);
    }

    /// Computes the statistics at this time.
    pub(super) fn report(&mut self, now: Instant) -> Report {
        while self
            .samples
            .front()
            .is_some_and(|sample| now.duration_since(sample.at) > WINDOW)
        {
            self.samples.pop_front();
        }
        let seconds = now.duration_since(self.started).min(WINDOW).as_secs_f64().max(0.001);
        let mut times: Vec<Duration> = self.samples.iter().map(|sample| sample.took).collect();
        times.sort_unstable();
        let last_failure = self
            .last_failure
            .as_ref()
            .filter(|(at, _)| now.duration_since(*at) <= WINDOW);
        Report {
            rate: per(self.samples.len(), seconds),
            p50: quantile(&times, 50),
            p99: quantile(&times, 99),
            failed: self.samples.iter().filter(|sample| failure(sample).is_some()).count(),
            last_failure: last_failure.map(|(_, why)| why.clone()),
            total: self.total,
            total_failed: self.failed,
            hops: self.hops(seconds),
        }
    }

    fn hops(&self, seconds: f64) -> Vec<Hop> {
        let mut hops: BTreeMap<(usize, &str, &str), BTreeMap<&str, usize>> = BTreeMap::new();
        for (depth, from, to, version) in &self.known {
            hops.entry((*depth, from, to)).or_default().insert(version, 0);
        }
        for served_by in self.samples.iter().filter_map(|sample| sample.outcome.as_ref().ok()) {
            for (depth, from, to, version) in calls(served_by) {
                *hops.entry((depth, from, to)).or_default().entry(version).or_default() += 1;
            }
        }
        hops.into_iter()
            .map(|((_, from, to), versions)| Hop::new(from, to, versions, seconds))
            .collect()
    }
}

impl Hop {
    fn new(from: &str, to: &str, versions: BTreeMap<&str, usize>, seconds: f64) -> Self {
        let all: usize = versions.values().sum();
        let version = |(name, count): (&str, usize)| Version {
            name: name.to_owned(),
            share: per(count, per(all.max(1), 1.0)),
            rate: per(count, seconds),
        };
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            versions: versions.into_iter().map(version).collect(),
        }
    }
}

/// The calls behind a request: depth, caller, called service and version. `served_by` lists the services in
/// call order, callers before callees: what follows `reviews` was called by `reviews`, everything else by the
/// first service.
fn calls(served_by: &str) -> Vec<(usize, &str, &str, &str)> {
    let mut services = served_by
        .split(", ")
        .filter_map(|part| part.split('@').next()?.split_once('/'));
    let Some((page, _)) = services.next() else {
        return Vec::new();
    };
    let called = services.map(|(service, version)| match service {
        "ratings" => (1, "reviews", service, version),
        _ => (0, page, service, version),
    });
    called.collect()
}

/// The failure of a request or of a call behind it.
fn failure(sample: &Sample) -> Option<String> {
    match &sample.outcome {
        Err(why) => Some(why.clone()),
        Ok(served_by) => {
            let failed = calls(served_by).into_iter().find(|(.., version)| *version == FAILED);
            failed.map(|(_, from, to, _)| format!("{from} got no successful response from {to}"))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn per(count: usize, of: f64) -> f64 {
    count as f64 / of
}

/// A percentile of sorted values.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEEP: &str =
        "productpage/v1@127.0.0.1:1, details/v1@127.0.0.1:2, reviews/v3@127.0.0.1:3, ratings/v1@127.0.0.1:4";
    const FLAT: &str = "productpage/v1@127.0.0.1:1, details/v1@127.0.0.1:2, reviews/v1@127.0.0.1:5";

    fn sample(at: Instant, millis: u64, outcome: Result<&str, &str>) -> Sample {
        Sample {
            at,
            took: Duration::from_millis(millis),
            outcome: outcome.map(str::to_owned).map_err(str::to_owned),
        }
    }

    fn versions(report: &Report, to: &str) -> Vec<(String, i32)> {
        let hop = report.hops.iter().find(|hop| hop.to == to).unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "shares are small")]
        let percent = |share: f64| (share * 100.0).round() as i32;
        hop.versions
            .iter()
            .map(|version| (version.name.clone(), percent(version.share)))
            .collect()
    }

    #[test]
    fn shares_and_rates_cover_the_window() {
        let start = Instant::now();
        let mut measure = Measure::new(start);
        for _ in 0..20 {
            measure.add(sample(start, 500, Ok(DEEP)));
        }
        for millis in 0..20 {
            let services = if millis % 4 == 0 { DEEP } else { FLAT };
            measure.add(sample(start + WINDOW * 2, 1 + millis, Ok(services)));
        }
        let report = measure.report(start + WINDOW * 2);
        assert_eq!((report.total, report.rate), (40, 4.0));
        assert_eq!(
            (report.p50, report.p99),
            (Duration::from_millis(10), Duration::from_millis(20))
        );
        assert_eq!(versions(&report, "reviews"), [("v1".into(), 75), ("v3".into(), 25)]);
        assert_eq!(versions(&report, "ratings"), [("v1".into(), 100)]);
        let order: Vec<_> = report
            .hops
            .iter()
            .map(|hop| (hop.from.as_str(), hop.to.as_str()))
            .collect();
        assert_eq!(
            order,
            [
                ("productpage", "details"),
                ("productpage", "reviews"),
                ("reviews", "ratings")
            ]
        );
        assert!((report.hops[2].versions[0].rate - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_failed_call_counts_as_a_failed_request() {
        let start = Instant::now();
        let mut measure = Measure::new(start);
        measure.add(sample(start, 1, Ok(FLAT)));
        measure.add(sample(
            start,
            1,
            Ok("productpage/v1@127.0.0.1:1, reviews/failed@127.0.11.1:9080"),
        ));
        let report = measure.report(start + WINDOW);
        assert_eq!((report.failed, report.total_failed), (1, 1));
        assert_eq!(
            report.last_failure.as_deref(),
            Some("productpage got no successful response from reviews")
        );
        assert_eq!(versions(&report, "reviews"), [("failed".into(), 50), ("v1".into(), 50)]);
        measure.add(sample(start + WINDOW, 1, Err("503 Service Unavailable")));
        let report = measure.report(start + WINDOW);
        assert_eq!(
            (report.failed, report.last_failure.as_deref()),
            (2, Some("503 Service Unavailable"))
        );
        let later = measure.report(start + WINDOW * 3);
        assert_eq!(
            versions(&later, "reviews"),
            [("v1".into(), 0)],
            "what was there once is shown going down"
        );
        assert_eq!((later.failed, later.last_failure, later.total_failed), (0, None, 2));
    }

    #[test]
    fn no_traffic_yields_an_empty_report() {
        let start = Instant::now();
        assert_eq!(Measure::new(start).report(start), Report::default());
    }

    #[test]
    fn malformed_served_by_headers_yield_no_calls() {
        for text in ["", "reviews", ", ,", "a/b@c, d"] {
            assert!(calls(text).is_empty(), "{text}");
        }
    }
}
