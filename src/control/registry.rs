//! Workloads that register themselves: from streams to WorkloadEntries.
//!
//! A member of a group becomes a WorkloadEntry when it joins. It is not ready, and so receives no traffic, until it has
//! ACKed its first configuration, in which its inbound side is, and, where its sidecar says so in its node, until that has
//! said that its application is ready. When its stream ends it stays for a grace period:
//!
//! ```text
//!             joins             ACKs, says              stream ends                 grace is over
//!   nothing ─────────> not ready ─────────> ready ──────────────────────> away ───────────────────> nothing
//!                                             ^   back, nothing changes    │
//!                                             └────────────────────────────┘
//! ```
//!
//! While it is away it stays ready if only its stream broke, since its application may go on; if its connection was
//! closed by its own side its process has ended, and it is not ready from that moment on.
//!
//! Nothing here asks for the time or does anything: it is told what happens and says what there should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::registration::Registration;
use super::roster::MemberId;
use crate::api::Object;
use crate::name::{ObjectId, WorkloadName};

/// Who has registered.
#[derive(Debug)]
pub(super) struct Registry {
    grace: Duration,
    workloads: BTreeMap<WorkloadName, Registered>,
    /// Whose stream each is: the last of a workload, even if that has ended.
    streams: BTreeMap<MemberId, WorkloadName>,
    /// When those go that are away.
    ends: BTreeSet<(Instant, WorkloadName)>,
    /// Whose WorkloadEntry is another than was last asked for.
    changed: BTreeSet<WorkloadName>,
    /// Whether what is shown of someone is another thing than when it was last asked for.
    news: bool,
    /// Nothing that is heard counts any more.
    stopped: bool,
    /// When something was heard last, and until when closed connections say nothing.
    heard: Option<Instant>,
    distrust: Option<Instant>,
}

#[derive(Debug)]
struct Registered {
    registration: Registration,
    object: Option<Arc<Object>>,
    /// The last stream, none since the server started.
    stream: Option<MemberId>,
    /// Whether that has ACKed its first configuration, and its workload has not said goodbye since.
    acked: bool,
    /// Which run of its sidecar has to say that its application is ready; none if nobody has to.
    run: Option<u64>,
    /// What was said last of its application, and by which run.
    said: Option<(u64, bool)>,
    /// When it goes, while it is away.
    ends: Option<Instant>,
}

/// A registered workload, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegisteredWorkload {
    /// `NAME.NAMESPACE`.
    pub workload: String,
    /// The group, `NAME.NAMESPACE`.
    pub group: String,
    /// Its address.
    pub address: String,
    /// Whether it receives traffic.
    pub ready: bool,
    /// Whether its stream is there.
    pub connected: bool,
}

/// Nothing is heard for so long only if the server itself stood still. Connections that proxies close then say
/// nothing about their processes: they gave the server up.
const STANDSTILL: Duration = Duration::from_secs(8);

impl Registry {
    /// Those who were registered when the server ended. They count as away from [`Registry::start`] on.
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

    /// From now on those who were restored are away, unless they are back already.
    pub(super) fn start(&mut self, now: Instant) {
        let names: Vec<WorkloadName> = self.workloads.keys().cloned().collect();
        for name in names {
            let registered = self.workloads.get(&name);
            if registered.is_some_and(|registered| registered.stream.is_none()) {
                self.set_end(&name, Some(now + self.grace));
            }
        }
    }

    /// The server is about to end. Who was registered then will be when the next one starts.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Something is heard, whatever it is.
    pub(super) fn hear(&mut self, now: Instant) {
        let silence = self
            .heard
            .replace(now)
            .map(|before| now.saturating_duration_since(before));
        if silence.is_some_and(|silence| silence > STANDSTILL) {
            tracing::warn!(
                "the server stood still for {silence:?}: connections closed meanwhile say nothing of workloads"
            );
            self.distrust = Some(now + self.grace);
        }
    }

    /// A stream of a member is there; the last one counts. `run` is the run of its sidecar that says when its application
    /// is ready, if one does.
    pub(super) fn join(&mut self, stream: MemberId, mut registration: Registration, run: Option<u64>) {
        let name = registration.workload.clone();
        self.set_end(&name, None);
        let known = self.workloads.remove(&name);
        if let Some(former) = known.as_ref().and_then(|known| known.stream) {
            self.streams.remove(&former);
        }
        if known.is_none() {
            let (group, address) = (&registration.group, registration.address());
            tracing::info!(workload = %name, %group, %address, "a workload registers itself");
        }
        // Of another run, the application has started anew; of those who were restored the run is not known.
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

    /// What the members of a group have in common has changed: those that are connected register anew, by what
    /// `registration` makes of their streams.
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

    /// A stream's client has ACKed its first configuration.
    pub(super) fn acked(&mut self, stream: MemberId) {
        let Some(name) = self.streams.get(&stream).cloned() else {
            return;
        };
        if let Some(registered) = self.workloads.get_mut(&name) {
            registered.acked = true;
        }
        self.ready_if_all_is(&name);
    }

    /// A run of a workload's sidecar says whether its application is ready.
    pub(super) fn said(&mut self, name: &WorkloadName, run: u64, ready: bool) {
        let Some(registered) = self.workloads.get_mut(name) else {
            return;
        };
        registered.said = Some((run, ready));
        if ready {
            self.ready_if_all_is(name);
        } else if self.set_ready(name, false) {
            tracing::info!(workload = %name, "the application of a registered workload is not ready: it receives nothing more");
        }
    }

    /// A stream is gone.
    pub(super) fn leave(&mut self, stream: MemberId, now: Instant) {
        if let Some(name) = self.streams.get(&stream).cloned() {
            self.set_end(&name, Some(now + self.grace));
        }
    }

    /// The connection of a stream that is gone was closed by the client's side. If no stream came after it, the
    /// workload's process has ended.
    pub(super) fn closed(&mut self, stream: MemberId, now: Instant) {
        let Some(name) = self.streams.get(&stream).cloned() else {
            return;
        };
        let trusted = !self.stopped && self.distrust.is_none_or(|until| until <= now);
        if trusted && self.take_out(&name) {
            tracing::info!(workload = %name, "a registered workload has closed its connection: it receives nothing more");
        }
    }

    /// A workload is about to end: it receives nothing more, whatever becomes of its connection, until it has ACKed a
    /// configuration on another stream.
    pub(super) fn leaving(&mut self, name: &WorkloadName) {
        if self.take_out(name) {
            tracing::info!(workload = %name, "a registered workload is about to end: it receives nothing more");
        }
    }

    /// Those whose grace period is over are no more.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.ends.first()
            && !self.stopped
            && *at <= now
            && let Some((_, name)) = self.ends.pop_first()
        {
            tracing::info!(workload = %name, "a registered workload is removed: its stream has not come back");
            let gone = self.workloads.remove(&name);
            if let Some(stream) = gone.and_then(|gone| gone.stream) {
                self.streams.remove(&stream);
            }
            self.news = true;
            self.changed.insert(name);
        }
    }

    /// When somebody's grace period is over.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Whether there are changes to be taken.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether [`Registry::shown`] says something else than when this was asked last.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whose WorkloadEntry is another than before.
    pub(super) fn take_changed(&mut self) -> BTreeSet<WorkloadName> {
        std::mem::take(&mut self.changed)
    }

    /// The WorkloadEntry under an id, if there should be one.
    pub(super) fn object(&self, id: &ObjectId) -> Option<&Arc<Object>> {
        self.workloads.get(&WorkloadName::of_object(id))?.object.as_ref()
    }

    /// Everybody, to be shown.
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

    /// Nothing more goes there until another stream has ACKed a configuration, whatever is said of its application.
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
