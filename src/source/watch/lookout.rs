//! The watcher thread: maintains the watches and translates kernel events into file changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::Shared;
use super::armed::{Armed, Handler};
use super::compare::{changed_lately, compare};
use super::interpret::interpret;
use super::sighting::{self, Kind, PathEvent};
use crate::source::Root;
use crate::source::layout::Layout;

/// Interval of full checks, in case an event is missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Polling interval if events are unavailable.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Polling interval while a file is being written.
const POLL_WRITING_EVERY: Duration = Duration::from_millis(50);

/// Full checks may take at most 1/n of the time.
const LOOK_SHARE: u32 = 10;

/// Maximum number of consecutive walks, each of which finds a new directory to watch.
const WALKS: usize = 4;

/// Capacity of the event queue, allocated in advance. If it overflows, everything is checked.
const QUEUE: usize = 1 << 12;

/// Number of events handled between two reads of the clock.
const BATCH: usize = 1024;

/// Wakes the thread.
pub(super) enum Message {
    /// A kernel event.
    Event(notify::Result<notify::Event>),
    /// The watcher was dropped.
    Stop,
}

/// Creates the watches: [`Armed::new`].
pub(super) type Connect = fn(Handler) -> notify::Result<Armed>;

/// State of the thread.
pub(super) struct WatchThread {
    root: Root,
    shared: Arc<Shared>,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    connect: Connect,
    /// `None` while events are unavailable.
    armed: Option<Armed>,
    /// Whether the watches cover the layout; otherwise it polls.
    covered: bool,
    layout: Layout,
    /// Real paths that may have been replaced although the layout looks the same.
    disturbed: BTreeSet<PathBuf>,
    /// Whether the root must be walked again.
    restructure: bool,
    /// Earliest time of the next walk, to limit walks while a tree is being copied.
    not_before: Instant,
    next_look: Instant,
}

impl WatchThread {
    /// Walks the root and watches it: changes from here on are seen.
    pub(super) fn new(root: Root, shared: Arc<Shared>, connect: Connect) -> Self {
        let (sender, messages) = sync_channel(QUEUE);
        let now = Instant::now();
        let mut lookout = Self {
            layout: Layout::scan(&root),
            root,
            shared,
            sender,
            messages,
            connect,
            armed: None,
            covered: false,
            disturbed: BTreeSet::new(),
            restructure: false,
            not_before: now,
            next_look: now,
        };
        lookout.ask_for_events();
        lookout.walk(now);
        lookout.schedule_look(now);
        lookout
    }

    /// Sender to wake the thread.
    pub(super) fn sender(&self) -> SyncSender<Message> {
        self.sender.clone()
    }

    /// Runs until the watcher is dropped.
    pub(super) fn run(mut self) {
        while !self.shared.stopped.load(Ordering::Relaxed) {
            let wait = self.deadline().saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(wait) {
                Ok(message) => self.take_in(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.keep_up(Instant::now());
            self.shared.wake.notify_one();
        }
    }

    fn deadline(&self) -> Instant {
        match self.restructure {
            true => self.next_look.min(self.not_before),
            false => self.next_look,
        }
    }

    fn take_in(&mut self, first: Message) {
        let now = Instant::now();
        self.message(first, now);
        for _ in 1..BATCH {
            let Ok(message) = self.messages.try_recv() else { break };
            self.message(message, now);
        }
    }

    fn message(&mut self, message: Message, now: Instant) {
        match message {
            Message::Event(Ok(event)) if event.need_rescan() => self.start_over(now),
            Message::Event(Ok(event)) => sighting::sightings(event).into_iter().for_each(|it| self.see(it, now)),
            Message::Event(Err(error)) => {
                self.uncovered(&error);
                self.start_over(now + POLL_EVERY);
            }
            Message::Stop => {}
        }
    }

    fn see(&mut self, sighting: PathEvent, now: Instant) {
        let path = &sighting.path;
        let lone = self.layout.lone_files.contains(path);
        let armed = &mut self.armed;
        let mut forget = || armed.as_mut().is_some_and(|armed| armed.forget(path));
        let unwatched = match sighting.kind {
            Kind::Created | Kind::Arrived => forget() || lone,
            Kind::Left => forget() && !lone,
            Kind::Written | Kind::Closed | Kind::Touched | Kind::Moved(_) => false,
        };
        let structural = interpret(&sighting, &mut self.layout, &mut self.shared.settle(), now);
        if unwatched || structural {
            self.disturbed.insert(sighting.path);
            self.restructure = true;
        }
    }

    /// Discards all watches and schedules a full check at this time.
    fn start_over(&mut self, at: Instant) {
        self.armed = None;
        self.covered = false;
        self.next_look = self.next_look.min(at.max(self.not_before));
    }

    fn keep_up(&mut self, now: Instant) {
        if self.shared.overflowed.swap(false, Ordering::Relaxed) {
            self.start_over(now);
        }
        if now >= self.next_look {
            self.look(now);
            self.schedule_look(now);
        } else if self.restructure && now >= self.not_before {
            self.walk(now);
        }
    }

    /// Checks everything, as if there had been no events.
    fn look(&mut self, now: Instant) {
        if self.armed.is_none() {
            self.ask_for_events();
        }
        self.walk(now);
        let files = self.layout.files.iter();
        let young: Vec<_> = files
            .filter_map(|(shown, real)| Some((shown, changed_lately(real, now)?)))
            .collect();
        let mut settle = self.shared.settle();
        for (shown, changed) in young {
            if !settle.is_ready(shown) {
                settle.seen_changed(shown.clone(), changed);
            }
        }
        settle.everything(now);
    }

    fn schedule_look(&mut self, started: Instant) {
        let every = match self.covered {
            true => LOOK_EVERY,
            false if self.shared.settle().is_any_written() => POLL_WRITING_EVERY,
            false => POLL_EVERY,
        };
        self.next_look = started + every.max(started.elapsed() * LOOK_SHARE);
    }

    fn ask_for_events(&mut self) {
        let (sender, shared) = (self.sender.clone(), self.shared.clone());
        let handler = move |event: notify::Result<notify::Event>| {
            let is_news = event.as_ref().map_or(true, sighting::is_news);
            if is_news && sender.try_send(Message::Event(event)).is_err() {
                shared.overflowed.store(true, Ordering::Relaxed);
            }
        };
        match (self.connect)(Box::new(handler)) {
            Ok(armed) => self.armed = Some(armed),
            Err(error) => self.uncovered(&error),
        }
    }

    /// Walks the root, updates the watches and reports differences. Repeats if a watch was added,
    /// since earlier changes there may have been missed.
    fn walk(&mut self, now: Instant) {
        self.restructure = false;
        let mut walks = 0;
        while self.walk_once(now) {
            walks += 1;
            if walks == WALKS {
                self.restructure = true;
                break;
            }
        }
        self.not_before = now + now.elapsed() * 3;
    }

    fn walk_once(&mut self, now: Instant) -> bool {
        let next = Layout::scan(&self.root);
        let armed = self.armed.as_mut().map(|armed| armed.arm(&next));
        let disturbed = std::mem::take(&mut self.disturbed);
        compare(&self.layout, &next, &disturbed, now, &mut self.shared.settle());
        self.layout = next;
        match armed {
            Some(Ok(added)) => {
                self.covered = true;
                added
            }
            Some(Err(error)) => {
                self.uncovered(&error);
                false
            }
            None => false,
        }
    }

    /// Falls back to polling until watches are available.
    fn uncovered(&mut self, error: &notify::Error) {
        self.covered = false;
        if !self.shared.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "file events are not available, so the configuration is polled every second; \
                 raising fs.inotify.max_user_watches or max_user_instances may help"
            );
        }
    }
}
