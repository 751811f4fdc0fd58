//! The running demo: generates traffic, displays it, and restarts processes.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};

use super::end::{End, EndReason};
use super::hint;
use super::measure::{Measure, Report, Sample};
use super::part::{Event, Parts};
use super::plane::{self, PlaneState};
use super::screen::Screen;
use super::setup::Setup;
use super::traffic;
use super::view::Model;
use crate::cli::output::Output;

/// Interval at which the display is refreshed and processes are checked.
const REFRESH: Duration = Duration::from_millis(250);
/// How long events are shown.
const NEWS: Duration = Duration::from_secs(20);

/// A running demo.
#[derive(Debug)]
pub(super) struct Show<'s> {
    setup: &'s Setup,
    page: String,
    workloads: Vec<String>,
    logs: PathBuf,
    started: Instant,
    measure: Measure,
    samples: mpsc::Receiver<Sample>,
    plane: watch::Receiver<PlaneState>,
    /// Events, with the time of each.
    news: Vec<(Instant, String)>,
    /// The load generator and the control plane poller; aborted on drop.
    _tasks: JoinSet<()>,
}

impl<'s> Show<'s> {
    /// Starts sending requests.
    ///
    /// # Errors
    /// If there is no `productpage`.
    pub(super) fn start(setup: &'s Setup, rate: u32) -> anyhow::Result<Self> {
        let page = setup
            .page()
            .context("the directory does not define a productpage workload")?;
        let (samples_in, samples) = mpsc::channel(1024);
        let (plane_in, plane) = watch::channel(PlaneState {
            hint: hint::find(&setup.directory),
            ..PlaneState::default()
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(traffic::send(page, rate, samples_in));
        tasks.spawn(plane::follow(setup.admin, setup.directory.clone(), plane_in));
        let started = Instant::now();
        Ok(Self {
            setup,
            page: format!("http://{page}/productpage"),
            workloads: setup
                .workloads
                .iter()
                .map(|workload| workload.name.to_string())
                .collect(),
            logs: setup.logs(),
            started,
            measure: Measure::new(started),
            samples,
            plane,
            news: Vec::new(),
            _tasks: tasks,
        })
    }

    /// Runs the display until the demo ends.
    ///
    /// # Errors
    /// If the output is closed.
    pub(super) async fn run(&mut self, parts: &mut Parts, end: &mut End, output: &mut Output) -> io::Result<EndReason> {
        let mut screen = Screen::open(output, Instant::now())?;
        let mut tick = time::interval(REFRESH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                why = end.reached() => return Ok(why),
                Some(sample) = self.samples.recv() => self.measure.add(sample),
                _ = tick.tick() => {
                    let now = Instant::now();
                    let news = self.tend(parts, now);
                    let report = self.measure.report(now);
                    let plane = self.plane.borrow_and_update().clone();
                    let missing: Vec<String> = parts.missing().map(str::to_owned).collect();
                    screen.show(&self.model(&report, &plane, &missing, now), &news, now)?;
                }
            }
        }
    }

    /// A one-sentence summary.
    pub(super) fn summary(&mut self) -> String {
        let report = self.measure.report(Instant::now());
        format!("{} requests, {} of them failed", report.total, report.total_failed)
    }

    fn tend(&mut self, parts: &mut Parts, now: Instant) -> Vec<String> {
        let at = now.duration_since(self.started).as_secs();
        let news = parts.tend(now).into_iter().map(|event| match event {
            Event::Ended(ending) => format!("{at}s: the {ending}"),
            Event::Restarted(name) => format!("{at}s: the {name} has been restarted"),
            Event::Failed(error) => format!("{at}s: {error}"),
        });
        let news: Vec<String> = news.collect();
        self.news.extend(news.iter().map(|text| (now, text.clone())));
        self.news.retain(|(at, _)| now.duration_since(*at) < NEWS);
        news
    }

    fn model<'m>(
        &'m self,
        report: &'m Report,
        plane: &'m PlaneState,
        missing: &'m [String],
        now: Instant,
    ) -> Model<'m> {
        Model {
            elapsed: now.duration_since(self.started),
            page: &self.page,
            report,
            plane,
            workloads: &self.workloads,
            missing,
            news: self.news.iter().map(|(_, text)| text.as_str()).collect(),
            directory: &self.setup.directory,
            logs: &self.logs,
        }
    }
}
