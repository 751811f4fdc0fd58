//! A connection without its socket: what is known of it and of its streams, and what it has to say.
//!
//! Whoever drives the socket shares it with those who send and receive on its streams, all on one thread. What any of
//! them has to say is written into one outbox, which the driver empties at the end of each of its turns.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::uri::Authority;

use super::error::{Error, Reason};
use super::flow::{self, Receiving, Sending};
use super::frame;
use super::head::Asked;
use super::hpack::{Decoder, Encoder, TABLE_SIZE};
use super::outbox::Outbox;
use super::settings::{Own, Settings};
use super::stream::{Heard, Said, register};
use super::table::Table;
use crate::proxy::http::Underscores;

/// Streams that we reset for what the peer did wrong, before the connection ends.
const RESET_STREAMS: u32 = 1024;

/// Streams that we have reset and remember, because the peer may not know yet.
const REMEMBERED: usize = 128;

/// Answers (to PING, SETTINGS and what is wrong) that wait to be written. While there are as many, nothing is read, which
/// could need one more.
const OWED: u32 = 1000;

/// What waits to be written on a client's connection, apart from data. While there is as much, no requests are read.
const UNWRITTEN: usize = 256 << 10;

/// Pings that we send, by what they carry.
pub(super) const ALIVE: [u8; 8] = *b"alive?  ";
pub(super) const SHUTDOWN: [u8; 8] = *b"shutdown";

/// A connection that is shared.
pub(super) type Shared = Rc<RefCell<Connection>>;

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The peer is a client.
    Server,
    /// The peer is a host.
    Client,
}

/// What we allow the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) role: Role,
    /// What each stream may have on its way to us.
    pub(super) stream_window: u32,
    /// The same for all of them together.
    pub(super) connection_window: u32,
    /// The headers of a message, as RFC 9113 section 6.5.2 counts them.
    pub(super) header_bytes: u32,
    /// Streams at the same time.
    pub(super) max_streams: u32,
    /// Whether clients may ask for other protocols (RFC 8441).
    pub(super) connect_protocol: bool,
    /// What becomes of trailers with `_` in their names.
    pub(super) underscores: Underscores,
    /// Whether bytes on the wire are counted for each of a client's requests.
    pub(super) metered: bool,
}

/// How far a connection is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    Not,
    /// The peer was told, and may have sent requests before it knew.
    Announced,
    /// There are no streams after this one.
    After(u32),
}

/// A block of headers of which there is more to come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ended: bool,
    pub(super) bytes: BytesMut,
    pub(super) frames: usize,
}

/// What a peer does that brings nothing.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Frames without anything in them, one after the other.
    pub(super) empty: u32,
    pub(super) priorities: u32,
    pub(super) window_updates: u32,
    /// Requests that were given up before they were looked at, since somebody last looked.
    pub(super) unseen: u32,
}

/// A request that has come.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) stream: usize,
    pub(super) asked: Asked,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) config: Config,
    pub(super) peer: Settings,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) out: Outbox,
    pub(super) table: Table,
    /// The highest stream that either the client or we as one have begun.
    pub(super) last: u32,
    /// Streams that count against the limits.
    pub(super) active: u32,
    /// Streams that were begun at any time.
    pub(super) opened: u32,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// Streams with data that waits, in the order of their turns.
    pub(super) turns: VecDeque<usize>,
    /// Requests that nobody has looked at.
    pub(super) begun: VecDeque<Begun>,
    /// The authority of the last request: most are alike.
    pub(super) authority: Option<Authority>,
    pub(super) block: Option<Block>,
    /// How many bytes the frames of the headers have that came last.
    pub(super) heading: usize,
    /// Whether the peer's settings have come, which are the first that it says.
    pub(super) greeted: bool,
    pub(super) going: Going,
    /// Whether the peer has said that it takes no more streams.
    pub(super) peer_going: bool,
    /// Whether the ping that asks whether the peer is there was answered.
    pub(super) alive: bool,
    /// How many bytes have come.
    pub(super) received: u64,
    pub(super) idle: Idle,
    /// Frames with data that were sent.
    pub(super) data_frames: u32,
    pub(super) owed: u32,
    resets: u32,
    reset: VecDeque<u32>,
    /// Why it is over.
    over: Option<Error>,
    driver: Option<Waker>,
    /// Whether the driver has to be woken for what is to be written.
    resting: bool,
    /// Who waits for room for one more stream.
    pub(super) openers: Vec<Waker>,
}

impl Connection {
    /// One that has just begun: our settings are the first that it says.
    pub(super) fn new(config: Config) -> Self {
        let window = config.connection_window.max(flow::INITIAL);
        let mut connection = Self {
            config,
            peer: Settings::default(),
            decoder: Decoder::new(TABLE_SIZE),
            encoder: Encoder::new(),
            out: Outbox::default(),
            table: Table::default(),
            last: 0,
            active: 0,
            opened: 0,
            receiving: Receiving::new(window),
            sending: Sending::new(flow::INITIAL),
            turns: VecDeque::new(),
            begun: VecDeque::new(),
            authority: None,
            block: None,
            heading: 0,
            greeted: false,
            going: Going::Not,
            peer_going: false,
            alive: false,
            received: 0,
            idle: Idle::default(),
            data_frames: 0,
            owed: 0,
            resets: 0,
            reset: VecDeque::new(),
            over: None,
            driver: None,
            resting: false,
            openers: Vec::new(),
        };
        connection.greet(window - flow::INITIAL);
        connection
    }

    fn greet(&mut self, more: u32) {
        let (config, out) = (self.config, self.out.short());
        let own = Own {
            no_push: config.role == Role::Client,
            max_streams: (config.role == Role::Server).then_some(config.max_streams),
            window: config.stream_window,
            max_header_list: config.header_bytes,
            connect_protocol: config.connect_protocol,
        };
        if config.role == Role::Client {
            out.extend_from_slice(crate::proxy::http::connection::PREFACE);
        }
        own.write(out);
        if more > 0 {
            frame::write_window_update(out, 0, more);
        }
    }

    /// The driver's turn begins: what is to be written goes out at its end.
    pub(super) fn turn_begins(&mut self, cx: &Context<'_>) {
        self.resting = false;
        register(&mut self.driver, cx);
    }

    /// It ends: whoever wants to write from now on wakes the driver.
    pub(super) fn turn_ends(&mut self) {
        self.resting = true;
    }

    /// There is something to write.
    pub(super) fn kick(&mut self) {
        if std::mem::take(&mut self.resting)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// Whether nothing more is to be read until something is written.
    pub(super) fn is_clogged(&self) -> bool {
        let unwritten = self.config.role == Role::Server && self.out.short_len() >= UNWRITTEN;
        unwritten || self.owed >= OWED
    }

    /// Why it is over, if it is.
    pub(super) fn over(&self) -> Option<Error> {
        self.over
    }

    /// Nothing more comes or goes on it.
    pub(super) fn fail(&mut self, error: Error) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(error);
        self.begun.clear();
        for place in self.table.places() {
            self.breaks(place, error);
        }
        self.openers.drain(..).for_each(Waker::wake);
    }

    /// Tells the peer of the end, and why.
    pub(super) fn go_away(&mut self, reason: Reason) {
        let last = if self.config.role == Role::Server { self.last } else { 0 };
        frame::write_goaway(self.out.short(), last, reason);
        self.going = Going::After(last);
    }

    /// Takes no more streams, as soon as the client knows: those that are on their way are answered.
    pub(super) fn shut_down(&mut self) {
        if self.going == Going::Not {
            self.going = Going::Announced;
            let out = self.out.short();
            frame::write_goaway(out, frame::MAX_STREAM, Reason::NO_ERROR);
            frame::write_ping(out, 0, SHUTDOWN);
        }
    }

    /// Takes no more streams, whether the client knows or not.
    pub(super) fn last_call(&mut self) {
        if !matches!(self.going, Going::After(_)) {
            self.go_away(Reason::NO_ERROR);
        }
    }

    /// Whether the last stream has ended, and no other may begin.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.going, Going::After(_)) && self.table.is_empty()
    }

    /// The next request that has come.
    pub(super) fn next_begun(&mut self) -> Option<Begun> {
        if self.begun.is_empty() {
            self.idle.unseen = 0;
        }
        self.begun.pop_front()
    }

    /// A stream is over, for this reason.
    pub(super) fn breaks(&mut self, place: usize, error: Error) {
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        stream.broken.get_or_insert(error);
        stream.waiting = Bytes::new();
        stream.wake_reader();
        stream.wake_writer();
        self.settle(place);
    }

    /// Resets a stream, for a reason that is told to the peer and one for ourselves.
    pub(super) fn reset(&mut self, place: usize, reason: Reason, error: Error) {
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        if stream.is_over() {
            return;
        }
        if self.config.metered {
            // Those of hosts are taken down by then.
            stream.said_reset();
        }
        let (id, unread) = (stream.id, stream.data.clear());
        if unread > 0 {
            // Nobody is to take for the whole what is left of it.
            stream.heard = Heard::Body;
        }
        self.free(unread);
        self.forget(id, reason);
        self.breaks(place, error);
    }

    /// Resets what the peer did wrong on a stream.
    ///
    /// # Errors
    /// When it does so too often.
    pub(super) fn offends(&mut self, place: usize, reason: Reason) -> Result<(), Reason> {
        self.reset(place, reason, Error::Broken(reason));
        self.offended()
    }

    /// Resets a stream that is not there.
    ///
    /// # Errors
    /// When that happens too often.
    pub(super) fn refuse(&mut self, id: u32, reason: Reason) -> Result<(), Reason> {
        self.forget(id, reason);
        self.offended()
    }

    fn offended(&mut self) -> Result<(), Reason> {
        self.owed += 1;
        self.resets += 1;
        match self.resets > RESET_STREAMS {
            true => Err(Reason::ENHANCE_YOUR_CALM),
            false => Ok(()),
        }
    }

    /// Says that a stream is reset. What is still on its way on it is passed over.
    pub(super) fn forget(&mut self, id: u32, reason: Reason) {
        frame::write_reset(self.out.short(), id, reason);
        self.kick();
        if self.reset.len() >= REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Whether we have reset it, and not long ago.
    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset.contains(&id)
    }

    /// Data was passed on: as much more may come.
    pub(super) fn free(&mut self, len: usize) {
        if let Some(more) = self.receiving.free(len as u32) {
            frame::write_window_update(self.out.short(), 0, more);
            self.kick();
        }
    }

    /// Whether every byte of the connection's window is with the peer, with us, or passed on.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_conserved(&mut self) -> bool {
        let places = self.table.places().into_iter();
        let held = places
            .filter_map(|place| Some(self.table.get_mut(place)?.data.len()))
            .sum();
        self.receiving.is_whole_with(held)
    }

    /// Sees to what follows when something about a stream has ended.
    pub(super) fn settle(&mut self, place: usize) {
        let role = self.config.role;
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        if !stream.is_over() {
            let given_up = match role {
                _ if !stream.sender && stream.said < Said::Ending => Some(Reason::CANCEL),
                Role::Client if !stream.receiver && stream.heard != Heard::Ended => Some(Reason::CANCEL),
                // The answer is complete: the rest of the request is of no use (RFC 9113 section 8.1).
                Role::Server if !stream.receiver && stream.said == Said::Ended => Some(match stream.connect {
                    true => Reason::CONNECT_ERROR,
                    false => Reason::NO_ERROR,
                }),
                Role::Client | Role::Server => None,
            };
            if let Some(reason) = given_up {
                self.reset(place, reason, Error::GivenUp(reason));
            }
            return;
        }
        if !std::mem::replace(&mut stream.closed, true) {
            self.active -= 1;
            self.openers.drain(..).for_each(Waker::wake);
        }
        if !stream.receiver && !stream.sender {
            let removed = self.table.remove(place);
            self.free(removed.map_or(0, |stream| stream.data.len()));
            if self.table.is_empty() && (self.going != Going::Not || self.peer_going) {
                // It may have been the last.
                self.kick();
            }
        }
    }

    /// Whoever receives from a stream takes no more.
    pub(super) fn receiver_leaves(&mut self, place: usize) {
        if let Some(stream) = self.table.get_mut(place) {
            stream.receiver = false;
            stream.reader = None;
            let unread = stream.data.clear();
            self.free(unread);
            self.settle(place);
        }
    }

    /// Whoever sends on a stream sends no more.
    pub(super) fn sender_leaves(&mut self, place: usize) {
        if let Some(stream) = self.table.get_mut(place) {
            stream.sender = false;
            stream.writer = None;
            self.settle(place);
        }
    }

    /// Streams that the host takes at the same time. What it has not said yet is taken to be what the RFC recommends.
    pub(super) fn room(&self) -> u32 {
        match self.peer.max_streams {
            Some(max) => max,
            None if self.greeted => u32::MAX,
            None => 100,
        }
    }

    /// Whether no further streams can be begun.
    pub(super) fn is_leaving(&self) -> bool {
        self.peer_going || self.going != Going::Not || self.last >= frame::MAX_STREAM - 2
    }

    /// The peer's settings have changed, or come for the first time.
    pub(super) fn wake_openers(&mut self) {
        self.openers.drain(..).for_each(Waker::wake);
    }
}
