//! Processing received frames.
//!
//! An `Err` here is a connection error, which ends the connection; stream errors only reset their stream.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::Method;

use super::connection::{ALIVE, Block, Connection, GoAway, PendingRequest, Role, SHUTDOWN};
use super::error::{Error, Reason};
use super::frame::{self, Head};
use super::head::{Fields, Flaw};
use super::stream::{RecvState, Stream};
use crate::proxy::http::Underscores;

/// Consecutive frames with an empty payload that are allowed, as in Envoy
/// (`max_consecutive_inbound_frames_with_empty_payload`).
const EMPTY: u32 = 1;

/// PRIORITY frames allowed for each stream started, plus one, as in Envoy (`max_inbound_priority_frames_per_stream`).
const PRIORITIES: u32 = 100;

/// WINDOW_UPDATE frames allowed for each DATA frame sent, plus some for each stream started, as in Envoy
/// (`max_inbound_window_update_frames_per_data_frame_sent`).
const WINDOW_UPDATES: u32 = 10;

/// Why a stream is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// It has not been started (RFC 9113 section 5.1: idle).
    Idle,
    /// It is closed: we have reset it recently.
    Reset,
    Closed,
}

impl Connection {
    /// Processes a frame.
    ///
    /// # Errors
    /// If it is a connection error.
    pub(super) fn receive(&mut self, head: Head, payload: Bytes) -> Result<(), Reason> {
        if self.block.is_some() != (head.kind == frame::CONTINUATION) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.settings_received && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match head.kind {
            frame::DATA => self.data(head, payload),
            frame::HEADERS => self.headers(head, payload),
            frame::CONTINUATION => self.continuation(head, &payload),
            frame::PRIORITY => self.priority(head, &payload),
            frame::RST_STREAM => self.rst_stream(head, &payload),
            frame::SETTINGS => self.settings(head, &payload),
            frame::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            frame::PING => self.ping(head, &payload),
            frame::GOAWAY => self.goaway(head, &payload),
            frame::WINDOW_UPDATE => self.window_update(head, &payload),
            // Unknown types are ignored (RFC 9113 section 4.1), as is PRIORITY_UPDATE (RFC 9218).
            _ => Ok(()),
        }
    }

    /// Counts a frame with an empty payload.
    fn empty(&mut self) -> Result<(), Reason> {
        self.idle.empty += 1;
        check_flood(self.idle.empty <= EMPTY)
    }

    /// Why a stream is not in the table.
    fn absent(&self, id: u32) -> Absent {
        let clients = id % 2 == 1;
        if !clients || id > self.last {
            return Absent::Idle;
        }
        match self.was_reset(id) {
            true => Absent::Reset,
            false => Absent::Closed,
        }
    }

    /// A frame was received for a stream that is not in the table.
    fn late(&mut self, id: u32) -> Result<(), Reason> {
        match self.absent(id) {
            Absent::Idle => Err(Reason::PROTOCOL_ERROR),
            Absent::Reset => Ok(()),
            Absent::Closed => self.refuse(id, Reason::STREAM_CLOSED),
        }
    }

    fn data(&mut self, head: Head, payload: Bytes) -> Result<(), Reason> {
        let len = payload.len();
        // Padding counts, too (RFC 9113 section 6.1).
        if !self.receiving.take(len as u32) {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        let data = frame::without_padding(head, payload)?;
        let last = head.has(frame::END_STREAM);
        match data.is_empty() && !last {
            true => self.empty()?,
            false => self.idle.empty = 0,
        }
        let Some(place) = self.table.find(head.stream) else {
            self.free(len);
            return self.late(head.stream);
        };
        match self.take(place, data, len, last) {
            Ok(held) => {
                self.free(len - held);
                self.settle(place);
                Ok(())
            }
            Err(reason) => {
                self.free(len);
                self.stream_error(place, reason)
            }
        }
    }

    /// Gives DATA to its stream, in a frame of `len` bytes with padding. Returns how much of it is buffered.
    ///
    /// # Errors
    /// If it is a connection error.
    fn take(&mut self, place: usize, data: Bytes, len: usize, last: bool) -> Result<usize, Reason> {
        let Some(stream) = self.table.get_mut(place) else {
            return Ok(0);
        };
        if stream.broken.is_some() {
            return Ok(0);
        }
        if let Some(meter) = &stream.meter {
            meter.receive(frame::HEAD + len);
        }
        match stream.recv {
            RecvState::Head => return Err(Reason::PROTOCOL_ERROR),
            RecvState::Ended => return Err(Reason::STREAM_CLOSED),
            RecvState::Body => {}
        }
        if !stream.receiving.take(len as u32) {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        if let Some(length) = &mut stream.length {
            let left = length.checked_sub(data.len() as u64);
            *length = left.filter(|left| !last || *left == 0).ok_or(Reason::PROTOCOL_ERROR)?;
        }
        let held = data.len();
        let more = stream.receiving.free((len - held) as u32);
        if let Some(more) = more.filter(|_| !last) {
            frame::write_window_update(self.out.short(), stream.id, more);
        }
        if last {
            stream.recv = RecvState::Ended;
        }
        if !stream.receiver {
            return Ok(0);
        }
        stream.data.push(data);
        stream.wake_reader();
        Ok(held)
    }

    fn headers(&mut self, head: Head, payload: Bytes) -> Result<(), Reason> {
        if head.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.header_block_len = frame::HEAD + head.len;
        let mut block = frame::without_padding(head, payload)?;
        if head.has(frame::WITH_PRIORITY) {
            if block.len() < 5 {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            drop(block.split_to(5));
        }
        let ended = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.block(head.stream, ended, block);
        }
        self.block = Some(Block {
            stream: head.stream,
            ended,
            bytes: BytesMut::from(&block[..]),
            frames: 0,
        });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let most = self.most_of_a_block();
        let Some(block) = self.block.as_mut().filter(|block| block.stream == head.stream) else {
            return Err(Reason::PROTOCOL_ERROR);
        };
        block.frames += 1;
        check_flood(block.bytes.len() + payload.len() <= most && block.frames <= 5 + most / frame::LARGEST)?;
        block.bytes.extend_from_slice(payload);
        self.header_block_len += frame::HEAD + head.len;
        match self.block.take_if(|_| head.has(frame::END_HEADERS)) {
            Some(block) => self.block(block.stream, block.ended, block.bytes.freeze()),
            None => Ok(()),
        }
    }

    /// The size limit of a header block: above that of a valid one, so that most that are too large can still be
    /// answered.
    fn most_of_a_block(&self) -> usize {
        2 * self.config.header_bytes as usize + frame::LARGEST
    }

    fn block(&mut self, id: u32, ended: bool, block: Bytes) -> Result<(), Reason> {
        let mut fields = Fields::new(self.config.header_bytes as usize);
        let decoded = self
            .decoder
            .decode(block, |name, value, sensitive| fields.add(name, value, sensitive));
        decoded.map_err(|_| Reason::COMPRESSION_ERROR)?;
        self.idle.empty = 0;
        match (self.table.find(id), self.config.role) {
            (Some(place), _) => self.more_headers(place, ended, fields),
            (None, Role::Server) if id % 2 == 1 && id > self.last => self.request(id, ended, fields),
            (None, _) => self.late(id),
        }
    }

    fn request(&mut self, id: u32, ended: bool, fields: Fields) -> Result<(), Reason> {
        self.last = id;
        if matches!(self.goaway, GoAway::After(_)) {
            // A stream beyond our GOAWAY is ignored.
            return Ok(());
        }
        if self.active >= self.config.max_streams {
            // The client may not have known the limit when it sent this.
            self.pending_control += 1;
            self.forget(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let received = fields.into_request(self.config.connect_protocol, &mut self.authority);
        let received = match received {
            Ok(received) if ended && received.length.is_some_and(|length| length > 0) => Err(Flaw::Malformed),
            received => received,
        };
        let Ok(received) = received else {
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        };
        let mut stream = Stream::new(id, self.config.stream_window, self.peer.window);
        stream.recv = if ended { RecvState::Ended } else { RecvState::Body };
        stream.length = received.length;
        stream.connect = received.request.method() == Method::CONNECT;
        stream.meter = self.config.metered.then(Rc::default);
        stream.count_received_headers(self.header_block_len);
        self.active += 1;
        self.opened = self.opened.saturating_add(1);
        let place = self.table.insert(stream);
        self.requests.push_back(PendingRequest {
            stream: place,
            received,
        });
        Ok(())
    }

    /// HEADERS on a stream in the table: a response, or trailers.
    fn more_headers(&mut self, place: usize, ended: bool, fields: Fields) -> Result<(), Reason> {
        let Some(stream) = self.table.get_mut(place) else {
            return Ok(());
        };
        if stream.broken.is_some() {
            return Ok(());
        }
        stream.count_received_headers(self.header_block_len);
        let taken = match stream.recv {
            RecvState::Ended => Err(Reason::STREAM_CLOSED),
            RecvState::Head => fields.into_answer(stream, ended),
            RecvState::Body => fields.into_trailers(stream, ended),
        };
        if let Err(reason) = taken {
            return self.stream_error(place, reason);
        }
        stream.wake_reader();
        if self.config.underscores != Underscores::Allow {
            self.look_at_trailers(place);
        }
        self.settle(place);
        Ok(())
    }

    /// Drops trailers with `_` in their names, or resets their stream.
    fn look_at_trailers(&mut self, place: usize) {
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        let Some(trailers) = &mut stream.trailers else { return };
        let names = trailers.keys().filter(|name| name.as_str().contains('_'));
        let names: Vec<_> = names.cloned().collect();
        if names.is_empty() {
            return;
        }
        if self.config.underscores == Underscores::Drop {
            names.iter().for_each(|name| drop(trailers.remove(name)));
            stream.trailers.take_if(|trailers| trailers.is_empty());
            return;
        }
        // What was received of it must not count as complete.
        stream.recv = RecvState::Body;
        stream.trailers = None;
        let error = Error::Unwanted("http2.unexpected_underscore");
        self.reset(place, Reason::INTERNAL_ERROR, error);
    }

    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        frame::number::<5>(payload)?;
        self.idle.priorities = self.idle.priorities.saturating_add(1);
        let most = PRIORITIES.saturating_mul(self.opened.saturating_add(1));
        check_flood(self.idle.priorities <= most)
    }

    fn rst_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let reason = Reason(u32::from_be_bytes(frame::number(payload)?));
        let Some(place) = self.table.find(head.stream) else {
            return match self.absent(head.stream) {
                Absent::Idle => Err(Reason::PROTOCOL_ERROR),
                Absent::Reset | Absent::Closed => Ok(()),
            };
        };
        if let Some(stream) = self.table.get_mut(place) {
            stream.count_received_reset();
        }
        self.breaks(place, Error::Reset(reason));
        if self.requests.iter().any(|begun| begun.stream == place) {
            // A reset request that nobody has looked at costs little; many of them in a row are an attack.
            self.idle.unseen += 1;
            return check_flood(self.idle.unseen <= self.config.max_streams);
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.has(frame::ACK) {
            return frame::number::<0>(payload).map(|_| ());
        }
        let before = self.peer;
        self.peer.apply(payload)?;
        self.settings_received = true;
        self.encoder.set_max_table(self.peer.header_table);
        if self.peer.window != before.window {
            self.widen_all(i64::from(self.peer.window) - i64::from(before.window))?;
        }
        self.wake_open_waiters();
        self.pending_control += 1;
        self.out
            .short()
            .extend_from_slice(&Head::new(0, frame::SETTINGS, frame::ACK, 0).bytes());
        Ok(())
    }

    fn widen_all(&mut self, by: i64) -> Result<(), Reason> {
        for place in self.table.places() {
            let Some(stream) = self.table.get_mut(place) else {
                continue;
            };
            if !stream.sending.widen(by) {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            self.queue(place);
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let payload = frame::number::<8>(payload)?;
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !head.has(frame::ACK) {
            self.pending_control += 1;
            frame::write_ping(self.out.short(), frame::ACK, payload);
        } else if payload == ALIVE {
            self.alive = true;
        } else if payload == SHUTDOWN && self.goaway == GoAway::Announced {
            // What the client sent before it received our GOAWAY has been received.
            self.send_goaway(Reason::NO_ERROR);
        }
        Ok(())
    }

    fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(Reason::FRAME_SIZE_ERROR);
        };
        let Some(reason) = rest.first_chunk::<4>() else {
            return Err(Reason::FRAME_SIZE_ERROR);
        };
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let last = u32::from_be_bytes(*last) & frame::MAX_STREAM;
        let reason = Reason(u32::from_be_bytes(*reason));
        self.peer_goaway = true;
        self.wake_open_waiters();
        if self.config.role == Role::Client {
            for place in self.table.places() {
                if self.table.get_mut(place).is_some_and(|stream| stream.id > last) {
                    self.breaks(place, Error::GoneAway(reason));
                }
            }
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let by = u32::from_be_bytes(frame::number(payload)?) & frame::MAX_STREAM;
        self.idle.window_updates = self.idle.window_updates.saturating_add(1);
        let most = self
            .data_frames
            .saturating_mul(WINDOW_UPDATES)
            .saturating_add(self.opened);
        check_flood(self.idle.window_updates <= most.saturating_mul(2).saturating_add(5))?;
        if head.stream == 0 {
            if by == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            return match self.sending.widen(by.into()) {
                true => Ok(()),
                false => Err(Reason::FLOW_CONTROL_ERROR),
            };
        }
        let Some(place) = self.table.find(head.stream) else {
            return match self.absent(head.stream) {
                Absent::Idle => Err(Reason::PROTOCOL_ERROR),
                Absent::Reset | Absent::Closed => Ok(()),
            };
        };
        if by == 0 {
            return self.stream_error(place, Reason::PROTOCOL_ERROR);
        }
        match self
            .table
            .get_mut(place)
            .is_none_or(|stream| stream.sending.widen(by.into()))
        {
            true => self.queue(place),
            false => return self.stream_error(place, Reason::FLOW_CONTROL_ERROR),
        }
        Ok(())
    }
}

/// Checks a limit against floods.
///
/// # Errors
/// `ENHANCE_YOUR_CALM` if it is exceeded.
fn check_flood(within_limit: bool) -> Result<(), Reason> {
    match within_limit {
        true => Ok(()),
        false => Err(Reason::ENHANCE_YOUR_CALM),
    }
}
