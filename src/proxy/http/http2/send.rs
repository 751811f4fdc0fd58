//! Sending on streams: headers at once; data as far as flow control and the outbox allow, round-robin among the
//! streams.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::connection::Connection;
use super::error::Error;
use super::frame::{self, Head};
use super::head;
use super::hpack::Encoder;
use super::stream::{SendState, Stream};
use crate::proxy::http::meter::Meter;

impl Connection {
    /// Starts a stream with a request, whose headers `write` writes.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(super) fn open(
        &mut self,
        ended: bool,
        bodiless: bool,
        meter: Option<Rc<Meter>>,
        write: impl FnOnce(&mut Encoder, &mut BytesMut),
    ) -> Result<usize, Error> {
        if let Some(error) = self.over() {
            return Err(error);
        }
        let id = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = id;
        self.active += 1;
        self.opened = self.opened.saturating_add(1);
        let mut stream = Stream::new(id, self.config.stream_window, self.peer.window);
        (stream.send, stream.sender) = if ended {
            (SendState::Ended, false)
        } else {
            (SendState::Body, true)
        };
        stream.bodiless = bodiless;
        let bytes = self.block_of(id, ended, write);
        stream.meter = meter;
        stream.count_sent_headers(bytes);
        Ok(self.table.insert(stream))
    }

    /// Sends response headers on a stream.
    ///
    /// # Errors
    /// If it has failed.
    pub(super) fn answer(
        &mut self,
        place: usize,
        ended: bool,
        write: impl FnOnce(&mut Encoder, &mut BytesMut),
    ) -> Result<(), Error> {
        let stream = self.sendable(place)?;
        stream.send = if ended { SendState::Ended } else { SendState::Body };
        let id = stream.id;
        let bytes = self.block_of(id, ended, write);
        self.count_sent_headers(place, bytes);
        self.settle(place);
        Ok(())
    }

    /// Sends an interim response on a stream, unless that has failed.
    pub(super) fn interim(&mut self, place: usize, write: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let stream = self
            .sendable(place)
            .ok()
            .filter(|stream| stream.send == SendState::Head);
        if let Some(id) = stream.map(|stream| stream.id) {
            let bytes = self.block_of(id, false, write);
            self.count_sent_headers(place, bytes);
        }
    }

    /// Ends a stream with trailers. All data given to it before must have been sent.
    ///
    /// # Errors
    /// If it has failed.
    pub(super) fn trailers(&mut self, place: usize, trailers: &HeaderMap) -> Result<(), Error> {
        let stream = self.sendable(place)?;
        debug_assert!(stream.waiting.is_empty());
        stream.send = SendState::Ended;
        let id = stream.id;
        let bytes = self.block_of(id, true, |encoder, out| head::write_fields(encoder, trailers, out));
        self.count_sent_headers(place, bytes);
        self.settle(place);
        Ok(())
    }

    /// Sends data. All data given to the stream before must have been sent; what there is no room for now waits.
    ///
    /// # Errors
    /// If the stream has failed.
    pub(super) fn say(&mut self, place: usize, data: Bytes, last: bool) -> Result<(), Error> {
        let stream = self.sendable(place)?;
        debug_assert!(stream.waiting.is_empty());
        if last {
            stream.send = SendState::Ending;
        }
        if data.is_empty() {
            if last {
                self.end(place);
            }
            return Ok(());
        }
        stream.waiting = data;
        if self.turns.is_empty() {
            while self.send_frame(place) {}
        }
        self.queue(place);
        Ok(())
    }

    /// Sends waiting data, one frame of each stream at a time, as long as there is room.
    pub(super) fn send_waiting(&mut self) {
        while !self.turns.is_empty() && self.out.has_room() && self.sending.room() > 0 {
            let Some(place) = self.turns.pop_front() else {
                return;
            };
            if let Some(stream) = self.table.get_mut(place) {
                stream.queued = false;
                self.send_frame(place);
                self.queue(place);
            }
        }
    }

    /// Queues a stream for sending, if it has something to send.
    pub(super) fn queue(&mut self, place: usize) {
        let Some(stream) = self.table.get_mut(place) else {
            return;
        };
        if !stream.queued && !stream.waiting.is_empty() && stream.sending.room() > 0 {
            stream.queued = true;
            self.turns.push_back(place);
            self.wake_driver();
        }
    }

    /// Sends a frame of a stream's waiting data. Returns whether it has more that can be sent now.
    fn send_frame(&mut self, place: usize) -> bool {
        let Some(stream) = self.table.get_mut(place) else {
            return false;
        };
        let room = self.sending.room().min(stream.sending.room()).min(frame::LARGEST);
        let len = stream.waiting.len().min(room);
        if len == 0 || !self.out.has_room() {
            return false;
        }
        let data = stream.waiting.split_to(len);
        let all = stream.waiting.is_empty();
        let last = all && stream.send == SendState::Ending;
        if let Some(meter) = &stream.meter {
            meter.send(frame::HEAD + len);
        }
        stream.sending.take(len);
        self.sending.take(len);
        self.data_frames = self.data_frames.saturating_add(1);
        let flags = if last { frame::END_STREAM } else { 0 };
        let head = Head::new(len, frame::DATA, flags, stream.id).bytes();
        self.out.short().extend_from_slice(&head);
        self.out.put(data);
        if last {
            stream.send = SendState::Ended;
        }
        if all {
            stream.waiting = Bytes::new();
            stream.wake_writer();
        }
        self.wake_driver();
        if last {
            self.settle(place);
        }
        !all
    }

    /// Ends a stream with an empty DATA frame.
    fn end(&mut self, place: usize) {
        if let Some(stream) = self.table.get_mut(place) {
            stream.send = SendState::Ended;
            if let Some(meter) = &stream.meter {
                meter.send(frame::HEAD);
            }
            let head = Head::new(0, frame::DATA, frame::END_STREAM, stream.id).bytes();
            self.out.short().extend_from_slice(&head);
            self.wake_driver();
            self.settle(place);
        }
    }

    /// Writes a header block; returns its size.
    fn block_of(&mut self, id: u32, ended: bool, write: impl FnOnce(&mut Encoder, &mut BytesMut)) -> usize {
        let encoder = &mut self.encoder;
        let out = self.out.short();
        let before = out.len();
        frame::write_block(out, id, ended, |out| {
            encoder.begin(out);
            write(encoder, out);
        });
        let bytes = out.len() - before;
        self.wake_driver();
        bytes
    }

    /// Counts header bytes sent on a stream.
    fn count_sent_headers(&mut self, place: usize, bytes: usize) {
        if let Some(stream) = self.table.get_mut(place) {
            stream.count_sent_headers(bytes);
        }
    }

    fn sendable(&mut self, place: usize) -> Result<&mut Stream, Error> {
        let stream = self.table.get_mut(place).ok_or(Error::Ended)?;
        match stream.broken {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}
