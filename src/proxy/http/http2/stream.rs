//! The state of a stream.
//!
//! ```text
//! recv:   Head ── Body ── Ended          send:  Head ── Body ── Ending ── Ended
//!           └──────┴── broken ──────────────────┴──────┴──────────┘
//! ```
//!
//! RFC 9113 section 5.1 has one state for both directions. Here each direction has its own, and a stream is closed when
//! both have ended or it has failed.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};

use super::error::Error;
use super::flow::{Receiving, Sending};
use super::frame;
use crate::proxy::http::meter::Meter;

/// Shorter pieces are merged while nobody takes them: each would keep its whole read buffer alive.
const SHORT: usize = 4 << 10;

/// The state of the receiving direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvState {
    /// Headers have not been received.
    Head,
    Body,
    Ended,
}

/// The state of the sending direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SendState {
    /// Headers have not been sent.
    Head,
    Body,
    /// The data that waits to be sent is the last.
    Ending,
    Ended,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) recv: RecvState,
    pub(super) send: SendState,
    /// Why it failed, if it did.
    pub(super) broken: Option<Error>,
    /// Whether it no longer counts against the concurrency limit.
    pub(super) closed: bool,
    /// Whether its receiving half exists.
    pub(super) receiver: bool,
    /// Whether its sending half exists.
    pub(super) sender: bool,
    /// The first interim response, until it is taken. Boxed, as it is rare.
    pub(super) interim: Option<Box<Response<()>>>,
    /// Response headers, until they are taken.
    pub(super) answer: Option<Response<()>>,
    /// Whether the response has no body (HEAD).
    pub(super) bodiless: bool,
    /// Whether it is a client's CONNECT.
    pub(super) connect: bool,
    /// Received data, until it is taken.
    pub(super) data: Pieces,
    pub(super) trailers: Option<HeaderMap>,
    /// What `content-length` says is still to be received.
    pub(super) length: Option<u64>,
    pub(super) receiving: Receiving,
    /// Data that waits to be sent.
    pub(super) waiting: Bytes,
    /// Whether it is queued for sending.
    pub(super) queued: bool,
    pub(super) sending: Sending,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Counts its bytes on the wire.
    pub(super) meter: Option<Rc<Meter>>,
}

impl Stream {
    pub(super) fn new(id: u32, receiving: u32, sending: u32) -> Self {
        Self {
            id,
            recv: RecvState::Head,
            send: SendState::Head,
            broken: None,
            closed: false,
            receiver: true,
            sender: true,
            interim: None,
            answer: None,
            bodiless: false,
            connect: false,
            data: Pieces::default(),
            trailers: None,
            length: None,
            receiving: Receiving::new(receiving),
            waiting: Bytes::new(),
            queued: false,
            sending: Sending::new(sending),
            reader: None,
            writer: None,
            meter: None,
        }
    }

    /// Counts header bytes received.
    pub(super) fn count_received_headers(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.receive(bytes);
            meter.receive_headers(bytes);
        }
    }

    /// Counts an RST_STREAM received.
    pub(super) fn count_received_reset(&self) {
        if let Some(meter) = self.meter.as_ref().filter(|_| self.broken.is_none()) {
            meter.receive(frame::RESET);
        }
    }

    /// Counts an RST_STREAM sent.
    pub(super) fn count_sent_reset(&self) {
        if let Some(meter) = &self.meter {
            meter.send(frame::RESET);
        }
    }

    /// Counts header bytes sent.
    pub(super) fn count_sent_headers(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.send(bytes);
            meter.send_headers(bytes);
        }
    }

    /// Whether both directions have ended.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || (self.recv == RecvState::Ended && self.send == SendState::Ended)
    }

    /// Whether the whole received message was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.recv == RecvState::Ended && self.data.is_empty() && self.trailers.is_none()
    }

    /// Wakes the reader.
    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Wakes the writer.
    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Registers a waker.
pub(super) fn register(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
}

/// Received data, in order.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    whole: VecDeque<Bytes>,
    /// Short pieces, merged; after all others.
    together: BytesMut,
    len: usize,
}

impl Pieces {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        let first = self.is_empty();
        self.len += piece.len();
        if piece.len() < SHORT && !first {
            return self.together.extend_from_slice(&piece);
        }
        if !self.together.is_empty() {
            self.whole.push_back(self.together.split().freeze());
        }
        if !piece.is_empty() {
            self.whole.push_back(piece);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let together = |together: &mut BytesMut| (!together.is_empty()).then(|| together.split().freeze());
        let piece = self.whole.pop_front().or_else(|| together(&mut self.together))?;
        self.len -= piece.len();
        Some(piece)
    }

    /// Drops everything; returns how much that was.
    pub(super) fn clear(&mut self) -> usize {
        self.whole.clear();
        self.together = BytesMut::new();
        std::mem::take(&mut self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_kept_in_order(steps in prop::collection::vec(prop::option::of(0..2 * SHORT), 0..40)) {
            let (mut pieces, mut put, mut got) = (Pieces::default(), Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(len) => {
                        let piece = Bytes::from(vec![number as u8; len]);
                        put.extend_from_slice(&piece);
                        pieces.push(piece);
                    }
                    None => got.extend(pieces.pop().unwrap_or_default()),
                }
                prop_assert_eq!(pieces.len(), put.len() - got.len());
                prop_assert_eq!(pieces.is_empty(), put.len() == got.len());
            }
            while let Some(piece) = pieces.pop() {
                prop_assert!(!piece.is_empty());
                got.extend(piece);
            }
            prop_assert!(put == got);
        }
    }

    #[test]
    fn short_pieces_that_nobody_takes_are_one() {
        let mut pieces = Pieces::default();
        (0..1000).for_each(|_| pieces.push(Bytes::from_static(b"x")));
        assert_eq!((pieces.pop().unwrap().len(), pieces.pop().unwrap().len()), (1, 999));
        assert!(pieces.pop().is_none());
    }
}
