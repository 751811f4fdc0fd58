//! The thread that keeps the watches and turns what the kernel tells into what has changed.

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
use super::sighting::{self, Kind, Sighting};
use crate::source::Root;
use crate::source::layout::Layout;

/// Everything is looked at this often, should an event ever be missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Everything is looked at this often where events cannot be had.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The same while a file is being written.
const POLL_WRITING_EVERY: Duration = Duration::from_millis(50);

/// Looking takes at most one part of the time in so many.
const LOOK_SHARE: u32 = 10;

/// Walks in a row, where each one finds a directory that was not watched before.
const WALKS: usize = 4;

/// Events in the queue between the kernel's thread and ours, for which there is room from the start. When it is full,
/// everything is looked at.
const QUEUE: usize = 1 << 12;

/// Events handled before the clock is looked at again.
const BATCH: usize = 1024;

/// What wakes the thread.
pub(super) enum Message {
    /// The kernel told something.
    Event(notify::Result<notify::Event>),
    /// Nobody listens any more.
    Stop,
}

/// How events are had: [`Armed::new`].
pub(super) type Connect = fn(Handler) -> notify::Result<Armed>;

/// The state of the thread.
pub(super) struct Lookout {
    root: Root,
    shared: Arc<Shared>,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    connect: Connect,
    /// `None` where there are no events at the moment.
    armed: Option<Armed>,
    /// Whether the watches cover the layout. Where they do not, everything is polled.
    covered: bool,
    layout: Layout,
    /// Real paths at which something else may stand now, though the layout looks the same.
    disturbed: BTreeSet<PathBuf>,
    /// Whether the layout must be walked again.
    restructure: bool,
    /// No walk before this: while a tree is copied, one would follow the other.
    not_before: Instant,
    next_look: Instant,
}

impl Lookout {
    /// Walks the root and watches it: what happens from here on is seen.
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

    /// The way to wake the thread.
    pub(super) fn sender(&self) -> SyncSender<Message> {
        self.sender.clone()
    }

    /// Works until nobody listens.
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

    fn see(&mut self, sighting: Sighting, now: Instant) {
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

    /// Takes no watch for granted any more and looks at everything, at this time.
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

    /// Looks at everything, as if no event had ever come.
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

    /// Walks the root, watches what it finds, and tells what came and went. Walks again where a
    /// watch was added, since what happened there before is unknown.
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

    /// From here on everything is polled, until the watches can be had.
    fn uncovered(&mut self, error: &notify::Error) {
        self.covered = false;
        if !self.shared.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "file events cannot be had, so the configuration is looked at every second; \
                 raising fs.inotify.max_user_watches or max_user_instances may help"
            );
        }
    }
}
