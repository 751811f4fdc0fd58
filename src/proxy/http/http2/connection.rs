//! An HTTP/2 connection without its socket: the state of the connection and its streams, and the frames to be written.
//!
//! The driver of the socket shares it with those who receive and send on streams, all on one thread. Whatever any of
//! them writes goes to one outbox, which the driver flushes at the end of each of its turns.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::uri::Authority;

use super::error::{Error, Reason};
use super::flow::{self, Receiving, Sending};
use super::frame;
use super::head::RequestHead;
use super::hpack::{Decoder, Encoder, TABLE_SIZE};
use super::outbox::Outbox;
use super::settings::{Own, Settings};
use super::stream::{RecvState, SendState, register};
use super::table::Table;
use crate::proxy::http::Underscores;

/// How many streams may be reset for the peer's errors before the connection ends.
const RESET_STREAMS: u32 = 1024;

/// How many reset streams are remembered, as the peer may still send on them.
const REMEMBERED: usize = 128;

/// How many control frames (PING and SETTINGS ACKs, RST_STREAM) may be unwritten. Beyond that nothing is read, since
/// each frame may need another.
const MAX_PENDING_CONTROL: u32 = 1000;

/// How many bytes other than data may be unwritten on a downstream connection. Beyond that no requests are read.
const UNWRITTEN: usize = 256 << 10;

/// Payloads of our PINGs, by purpose.
pub(super) const ALIVE: [u8; 8] = *b"alive?  ";
pub(super) const SHUTDOWN: [u8; 8] = *b"shutdown";

/// A shared connection.
pub(super) type Shared = Rc<RefCell<Connection>>;

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The peer is a client.
    Server,
    /// The peer is a host.
    Client,
}

/// What we grant the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) role: Role,
    /// Receive window of each stream.
    pub(super) stream_window: u32,
    /// Receive window of the connection.
    pub(super) connection_window: u32,
    /// Size of a header list, counted as in RFC 9113 section 6.5.2.
    pub(super) header_bytes: u32,
    /// Concurrent streams.
    pub(super) max_streams: u32,
    /// Whether extended CONNECT is accepted (RFC 8441).
    pub(super) connect_protocol: bool,
    /// What becomes of trailers with `_` in their names.
    pub(super) underscores: Underscores,
    /// Whether bytes on the wire are counted for each downstream request.
    pub(super) metered: bool,
}

/// How far the graceful close of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoAway {
    Not,
    /// A first GOAWAY is sent; the peer may have started streams before it received that.
    Announced,
    /// The final GOAWAY: no streams after this one.
    After(u32),
}

/// A header block that CONTINUATION frames complete.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ended: bool,
    pub(super) bytes: BytesMut,
    pub(super) frames: usize,
}

/// Frames that do nothing, counted against floods.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Consecutive frames with an empty payload.
    pub(super) empty: u32,
    pub(super) priorities: u32,
    pub(super) window_updates: u32,
    /// Requests reset before anyone looked at them, since one was last looked at.
    pub(super) unseen: u32,
}

/// A received request.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) stream: usize,
    pub(super) received: RequestHead,
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) config: Config,
    pub(super) peer: Settings,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) out: Outbox,
    pub(super) table: Table,
    /// The highest stream id that the client (we, if upstream) has used.
    pub(super) last: u32,
    /// Streams that count against the concurrency limit.
    pub(super) active: u32,
    /// Streams started so far.
    pub(super) opened: u32,
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// Streams with data to send, in round-robin order.
    pub(super) turns: VecDeque<usize>,
    /// Requests that nobody has looked at yet.
    pub(super) requests: VecDeque<PendingRequest>,
    /// The authority of the last request, reused since most are the same.
    pub(super) authority: Option<Authority>,
    pub(super) block: Option<Block>,
    /// Size of the last received header block, with its frame heads.
    pub(super) header_block_len: usize,
    /// Whether the peer's SETTINGS have been received, which must be its first frame.
    pub(super) settings_received: bool,
    pub(super) goaway: GoAway,
    /// Whether the peer has sent GOAWAY.
    pub(super) peer_goaway: bool,
    /// Whether our keepalive PING was acknowledged.
    pub(super) alive: bool,
    /// Bytes received.
    pub(super) received: u64,
    pub(super) idle: Idle,
    /// DATA frames sent.
    pub(super) data_frames: u32,
    pub(super) pending_control: u32,
    resets: u32,
    reset: VecDeque<u32>,
    /// Why it has ended.
    over: Option<Error>,
    driver: Option<Waker>,
    /// Whether the driver sleeps, and has to be woken to write.
    resting: bool,
    /// Waiting for the peer to allow another stream.
    pub(super) open_waiters: Vec<Waker>,
}

impl Connection {
    /// A new connection, with our SETTINGS in the outbox.
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
            requests: VecDeque::new(),
            authority: None,
            block: None,
            header_block_len: 0,
            settings_received: false,
            goaway: GoAway::Not,
            peer_goaway: false,
            alive: false,
            received: 0,
            idle: Idle::default(),
            data_frames: 0,
            pending_control: 0,
            resets: 0,
            reset: VecDeque::new(),
            over: None,
            driver: None,
            resting: false,
            open_waiters: Vec::new(),
        };
        connection.send_settings(window - flow::INITIAL);
        connection
    }

    fn send_settings(&mut self, more: u32) {
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

    /// The driver's turn begins: whatever is written now goes out at its end.
    pub(super) fn turn_begins(&mut self, cx: &Context<'_>) {
        self.resting = false;
        register(&mut self.driver, cx);
    }

    /// The turn ends: from now on the driver has to be woken to write.
    pub(super) fn turn_ends(&mut self) {
        self.resting = true;
    }

    /// There is something to write.
    pub(super) fn wake_driver(&mut self) {
        if std::mem::take(&mut self.resting)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// Whether nothing more may be read until something is written.
    pub(super) fn is_backlogged(&self) -> bool {
        let unwritten = self.config.role == Role::Server && self.out.short_len() >= UNWRITTEN;
        unwritten || self.pending_control >= MAX_PENDING_CONTROL
    }

    /// Why it has ended, if it has.
    pub(super) fn over(&self) -> Option<Error> {
        self.over
    }

    /// Ends the connection and all of its streams.
    pub(super) fn fail(&mut self, error: Error) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(error);
        self.requests.clear();
        for place in self.table.places() {
            self.breaks(place, error);
        }
        self.open_waiters.drain(..).for_each(Waker::wake);
    }

    /// Sends GOAWAY with this error code.
    pub(super) fn send_goaway(&mut self, reason: Reason) {
        let last = if self.config.role == Role::Server { self.last } else { 0 };
        frame::write_goaway(self.out.short(), last, reason);
        self.goaway = GoAway::After(last);
    }

    /// Closes gracefully, by a first GOAWAY: streams that the client has already started are served.
    pub(super) fn announce_goaway(&mut self) {
        if self.goaway == GoAway::Not {
            self.goaway = GoAway::Announced;
            let out = self.out.short();
            frame::write_goaway(out, frame::MAX_STREAM, Reason::NO_ERROR);
            frame::write_ping(out, 0, SHUTDOWN);
        }
    }

    /// Takes no more streams, whether or not the client has acknowledged the first GOAWAY.
    pub(super) fn finish_goaway(&mut self) {
        if !matches!(self.goaway, GoAway::After(_)) {
            self.send_goaway(Reason::NO_ERROR);
        }
    }

    /// Whether the last stream has ended, and no other may start.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.goaway, GoAway::After(_)) && self.table.is_empty()
    }

    /// Takes the next received request.
    pub(super) fn next_request(&mut self) -> Option<PendingRequest> {
        if self.requests.is_empty() {
            self.idle.unseen = 0;
        }
        self.requests.pop_front()
    }

    /// A stream has failed.
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

    /// Resets a stream, with an error code for the peer and an error for our side.
    pub(super) fn reset(&mut self, place: usize, reason: Reason, error: Error) {
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        if stream.is_over() {
            return;
        }
        if self.config.metered {
            // Upstream streams have been recorded by then.
            stream.count_sent_reset();
        }
        let (id, unread) = (stream.id, stream.data.clear());
        if unread > 0 {
            // What has been received of it must not count as complete.
            stream.recv = RecvState::Body;
        }
        self.free(unread);
        self.forget(id, reason);
        self.breaks(place, error);
    }

    /// Resets a stream on which the peer violated the protocol.
    ///
    /// # Errors
    /// If that happens too often.
    pub(super) fn stream_error(&mut self, place: usize, reason: Reason) -> Result<(), Reason> {
        self.reset(place, reason, Error::Broken(reason));
        self.offended()
    }

    /// Resets a stream that is not in the table.
    ///
    /// # Errors
    /// If that happens too often.
    pub(super) fn refuse(&mut self, id: u32, reason: Reason) -> Result<(), Reason> {
        self.forget(id, reason);
        self.offended()
    }

    fn offended(&mut self) -> Result<(), Reason> {
        self.pending_control += 1;
        self.resets += 1;
        match self.resets > RESET_STREAMS {
            true => Err(Reason::ENHANCE_YOUR_CALM),
            false => Ok(()),
        }
    }

    /// Sends RST_STREAM and remembers the id: frames still under way on it are ignored.
    pub(super) fn forget(&mut self, id: u32, reason: Reason) {
        frame::write_reset(self.out.short(), id, reason);
        self.wake_driver();
        if self.reset.len() >= REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Whether we have reset it recently.
    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset.contains(&id)
    }

    /// Gives receive window back for data that was forwarded.
    pub(super) fn free(&mut self, len: usize) {
        if let Some(more) = self.receiving.free(len as u32) {
            frame::write_window_update(self.out.short(), 0, more);
            self.wake_driver();
        }
    }

    /// Whether the whole receive window is accounted for: with the peer, buffered, or forwarded.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_conserved(&mut self) -> bool {
        let places = self.table.places().into_iter();
        let held = places
            .filter_map(|place| Some(self.table.get_mut(place)?.data.len()))
            .sum();
        self.receiving.is_whole_with(held)
    }

    /// Handles what follows when one side of a stream has ended, and removes it when both have.
    pub(super) fn settle(&mut self, place: usize) {
        let role = self.config.role;
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        if !stream.is_over() {
            let given_up = match role {
                _ if !stream.sender && stream.send < SendState::Ending => Some(Reason::CANCEL),
                Role::Client if !stream.receiver && stream.recv != RecvState::Ended => Some(Reason::CANCEL),
                // The response is complete: the rest of the request is of no use (RFC 9113 section 8.1).
                Role::Server if !stream.receiver && stream.send == SendState::Ended => Some(match stream.connect {
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
            self.open_waiters.drain(..).for_each(Waker::wake);
        }
        if !stream.receiver && !stream.sender {
            let removed = self.table.remove(place);
            self.free(removed.map_or(0, |stream| stream.data.len()));
            if self.table.is_empty() && (self.goaway != GoAway::Not || self.peer_goaway) {
                // It may have been the last stream.
                self.wake_driver();
            }
        }
    }

    /// The receiving half was dropped.
    pub(super) fn receiver_leaves(&mut self, place: usize) {
        if let Some(stream) = self.table.get_mut(place) {
            stream.receiver = false;
            stream.reader = None;
            let unread = stream.data.clear();
            self.free(unread);
            self.settle(place);
        }
    }

    /// The sending half was dropped.
    pub(super) fn sender_leaves(&mut self, place: usize) {
        if let Some(stream) = self.table.get_mut(place) {
            stream.sender = false;
            stream.writer = None;
            self.settle(place);
        }
    }

    /// How many more concurrent streams the host allows; until it says, the number that the RFC recommends.
    pub(super) fn room(&self) -> u32 {
        match self.peer.max_streams {
            Some(max) => max,
            None if self.settings_received => u32::MAX,
            None => 100,
        }
    }

    /// Whether no further streams can be started.
    pub(super) fn is_leaving(&self) -> bool {
        self.peer_goaway || self.goaway != GoAway::Not || self.last >= frame::MAX_STREAM - 2
    }

    /// The peer's SETTINGS were received.
    pub(super) fn wake_open_waiters(&mut self) {
        self.open_waiters.drain(..).for_each(Waker::wake);
    }
}
