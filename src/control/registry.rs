//! Auto-registered workloads: a state machine from xDS streams to WorkloadEntries.
//!
//! A group member becomes a WorkloadEntry when it joins. It stays unready, and receives no traffic,
//! until it has ACKed its first configuration, which includes its inbound listeners, and, if its
//! node metadata has a readiness run (`TOPSAIL_READINESS_RUN`), until that sidecar process reports
//! that the application is ready. When its stream ends it is kept for a grace period:
//!
//! ```text
//!             joins             ACKed and ready         stream ends                 grace over
//!   nothing ─────────> not ready ─────────> ready ──────────────────────> away ───────────────────> nothing
//!                                             ^   back, nothing changes    │
//!                                             └────────────────────────────┘
//! ```
//!
//! A workload that is away stays ready if only its stream broke, since the application may still be
//! running. If the peer closed the connection, its process has ended and it becomes unready at
//! once.
//!
//! The registry does no I/O and reads no clock: it is fed events and queried for the result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::registration::Registration;
use super::roster::MemberId;
use crate::api::Object;
use crate::name::{ObjectId, WorkloadName};

/// The registered workloads.
#[derive(Debug)]
pub(super) struct Registry {
    grace: Duration,
    workloads: BTreeMap<WorkloadName, Registered>,
    /// The workload of each stream; for each workload the latest one, even if it has ended.
    streams: BTreeMap<MemberId, WorkloadName>,
    /// Expiry times of workloads that are away.
    ends: BTreeSet<(Instant, WorkloadName)>,
    /// Workloads whose WorkloadEntry has changed since it was last taken.
    changed: BTreeSet<WorkloadName>,
    /// Whether the displayed state has changed since it was last taken.
    news: bool,
    /// Whether the server is shutting down, so that events are ignored.
    stopped: bool,
    /// Time of the last event, and until when closed connections are ignored.
    heard: Option<Instant>,
    distrust: Option<Instant>,
}

#[derive(Debug)]
struct Registered {
    registration: Registration,
    object: Option<Arc<Object>>,
    /// The latest stream; `None` if there was none since the server started.
    stream: Option<MemberId>,
    /// Whether that stream has ACKed its first configuration. Reset when its connection is closed or
    /// a shutdown is announced.
    acked: bool,
    /// The sidecar process whose readiness report is required; `None` if none is.
    run: Option<u64>,
    /// The last readiness report, and the sidecar process it came from.
    said: Option<(u64, bool)>,
    /// When its grace period expires, while it is away.
    ends: Option<Instant>,
}

/// A registered workload, for display.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegisteredWorkload {
    /// `NAME.NAMESPACE`.
    pub workload: String,
    /// The WorkloadGroup, `NAME.NAMESPACE`.
    pub group: String,
    /// Its address.
    pub address: String,
    /// Whether it receives traffic.
    pub ready: bool,
    /// Whether its stream is open.
    pub connected: bool,
}

/// A gap this long between events means the server itself was suspended. Connections closed right
/// after it say nothing about the peers' processes, which gave up on the server.
const STANDSTILL: Duration = Duration::from_secs(8);

impl Registry {
    /// Restores the workloads registered when the server last stopped. They count as away from
    /// [`Registry::start`] on.
    pub(super) fn new(grace: Duration, restored: impl IntoIterator<Item = Arc<Object>>) -> Self {
        let workloads = restored.into_iter().filter_map(|object| {
            let registration = Registration::of_object(&object)?;
            let registered = Registered {
                registration,
                object: Some(object),
                stream: None,
                acked: false,
                run: None,
                said: None,
                ends: None,
            };
            Some((registered.registration.workload.clone(), registered))
        });
        Self {
            grace,
            workloads: workloads.collect(),
            streams: BTreeMap::new(),
            ends: BTreeSet::new(),
            changed: BTreeSet::new(),
            news: true,
            stopped: false,
            heard: None,
            distrust: None,
        }
    }

    /// Starts the grace period of restored workloads that have not reconnected.
    pub(super) fn start(&mut self, now: Instant) {
        let names: Vec<WorkloadName> = self.workloads.keys().cloned().collect();
        for name in names {
            let registered = self.workloads.get(&name);
            if registered.is_some_and(|registered| registered.stream.is_none()) {
                self.set_end(&name, Some(now + self.grace));
            }
        }
    }

    /// The server is shutting down: keeps the registered workloads for the next start.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Records the time of an event of any kind.
    pub(super) fn hear(&mut self, now: Instant) {
        let silence = self
            .heard
            .replace(now)
            .map(|before| now.saturating_duration_since(before));
        if silence.is_some_and(|silence| silence > STANDSTILL) {
            tracing::warn!("the server was suspended for {silence:?}: ignoring connections closed in the meantime");
            self.distrust = Some(now + self.grace);
        }
    }

    /// A member opened a stream, which supersedes earlier ones. `run` is the sidecar process that
    /// will report application readiness, if any.
    pub(super) fn join(&mut self, stream: MemberId, mut registration: Registration, run: Option<u64>) {
        let name = registration.workload.clone();
        self.set_end(&name, None);
        let known = self.workloads.remove(&name);
        if let Some(former) = known.as_ref().and_then(|known| known.stream) {
            self.streams.remove(&former);
        }
        if known.is_none() {
            let (group, address) = (&registration.group, registration.address());
            tracing::info!(workload = %name, %group, %address, "registered a workload");
        }
        // A new sidecar process means the application restarted. The process of restored workloads
        // is not known.
        let goes_on = |known: &&Registered| known.run == run || known.stream.is_none();
        let ready = |known: &Registered| known.registration.ready;
        registration.ready = known.as_ref().filter(goes_on).is_some_and(ready);
        let acked = known
            .as_ref()
            .is_some_and(|known| known.acked && known.stream == Some(stream));
        let said = known.as_ref().and_then(|known| known.said);
        let object = match known.filter(|known| known.registration == registration) {
            Some(same) => same.object,
            None => {
                self.changed.insert(name.clone());
                registration.object()
            }
        };
        self.news = true;
        self.streams.insert(stream, name.clone());
        let registered = Registered {
            registration,
            object,
            stream: Some(stream),
            acked,
            run,
            said,
            ends: None,
        };
        self.workloads.insert(name, registered);
    }

    /// A WorkloadGroup changed: re-registers connected members with what `registration` derives
    /// from their streams.
    pub(super) fn regroup(&mut self, group: &WorkloadName, registration: impl Fn(MemberId) -> Option<Registration>) {
        let of_group = |registered: &&Registered| registered.registration.group == *group && registered.ends.is_none();
        let streams = self
            .workloads
            .values()
            .filter(of_group)
            .filter_map(|registered| Some((registered.stream?, registered.run)));
        let streams: Vec<(MemberId, Option<u64>)> = streams.collect();
        for (stream, run) in streams {
            if let Some(registration) = registration(stream) {
                self.join(stream, registration, run);
            }
        }
    }

    /// The client of a stream ACKed its first configuration.
    pub(super) fn acked(&mut self, stream: MemberId) {
        let Some(name) = self.streams.get(&stream).cloned() else {
            return;
        };
        if let Some(registered) = self.workloads.get_mut(&name) {
            registered.acked = true;
        }
        self.ready_if_all_is(&name);
    }

    /// A sidecar process reports its application's readiness.
    pub(super) fn said(&mut self, name: &WorkloadName, run: u64, ready: bool) {
        let Some(registered) = self.workloads.get_mut(name) else {
            return;
        };
        registered.said = Some((run, ready));
        if ready {
            self.ready_if_all_is(name);
        } else if self.set_ready(name, false) {
            tracing::info!(workload = %name, "the application of a registered workload is not ready: removed from endpoints");
        }
    }

    /// A stream ended.
    pub(super) fn leave(&mut self, stream: MemberId, now: Instant) {
        if let Some(name) = self.streams.get(&stream).cloned() {
            self.set_end(&name, Some(now + self.grace));
        }
    }

    /// The peer closed the connection of an ended stream. Unless a later stream exists, the
    /// workload's process has ended.
    pub(super) fn closed(&mut self, stream: MemberId, now: Instant) {
        let Some(name) = self.streams.get(&stream).cloned() else {
            return;
        };
        let trusted = !self.stopped && self.distrust.is_none_or(|until| until <= now);
        if trusted && self.take_out(&name) {
            tracing::info!(workload = %name, "a registered workload closed its connection: removed from endpoints");
        }
    }

    /// A workload announces its shutdown: it receives no more traffic until it ACKs a configuration
    /// on another stream.
    pub(super) fn leaving(&mut self, name: &WorkloadName) {
        if self.take_out(name) {
            tracing::info!(workload = %name, "a registered workload is shutting down: removed from endpoints");
        }
    }

    /// Removes workloads whose grace period has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.ends.first()
            && !self.stopped
            && *at <= now
            && let Some((_, name)) = self.ends.pop_first()
        {
            tracing::info!(workload = %name, "unregistered a workload: it did not reconnect");
            let gone = self.workloads.remove(&name);
            if let Some(stream) = gone.and_then(|gone| gone.stream) {
                self.streams.remove(&stream);
            }
            self.news = true;
            self.changed.insert(name);
        }
    }

    /// The earliest grace period expiry.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Whether there are changes to take.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether [`Registry::shown`] has changed since the last call.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Takes the names of workloads whose WorkloadEntry has changed.
    pub(super) fn take_changed(&mut self) -> BTreeSet<WorkloadName> {
        std::mem::take(&mut self.changed)
    }

    /// The WorkloadEntry registered under an id.
    pub(super) fn object(&self, id: &ObjectId) -> Option<&Arc<Object>> {
        self.workloads.get(&WorkloadName::of_object(id))?.object.as_ref()
    }

    /// All registered workloads, for display.
    pub(super) fn shown(&self) -> Vec<RegisteredWorkload> {
        let shown = |registered: &Registered| RegisteredWorkload {
            workload: registered.registration.workload.to_string(),
            group: registered.registration.group.to_string(),
            address: registered.registration.address().to_owned(),
            ready: registered.registration.ready,
            connected: registered.stream.is_some() && registered.ends.is_none(),
        };
        self.workloads.values().map(shown).collect()
    }

    fn ready_if_all_is(&mut self, name: &WorkloadName) {
        let is = |registered: &Registered| {
            let application = registered.run.is_none_or(|run| registered.said == Some((run, true)));
            registered.acked && application
        };
        if self.workloads.get(name).is_some_and(is) && self.set_ready(name, true) {
            tracing::info!(workload = %name, "a registered workload is ready");
        }
    }

    /// Makes a workload unready until another stream ACKs a configuration, whatever its application
    /// reports.
    fn take_out(&mut self, name: &WorkloadName) -> bool {
        if let Some(registered) = self.workloads.get_mut(name) {
            registered.acked = false;
        }
        self.set_ready(name, false)
    }

    fn set_ready(&mut self, name: &WorkloadName, ready: bool) -> bool {
        let Some(registered) = self.workloads.get_mut(name) else {
            return false;
        };
        if registered.registration.ready == ready {
            return false;
        }
        self.news = true;
        registered.registration.ready = ready;
        registered.object = registered.registration.object();
        self.changed.insert(name.clone());
        true
    }

    fn set_end(&mut self, name: &WorkloadName, end: Option<Instant>) {
        let Some(registered) = self.workloads.get_mut(name) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut registered.ends, end) {
            self.ends.remove(&(before, name.clone()));
        }
        self.news = true;
        self.ends.extend(end.map(|end| (end, name.clone())));
    }
}

#[cfg(test)]
mod tests;
