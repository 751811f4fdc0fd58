//! What a connection knows of one of its streams.
//!
//! ```text
//! heard:  Head ── Body ── Ended          said:  Head ── Body ── Ending ── Ended
//!           └──────┴── broken ──────────────────┴──────┴──────────┘
//! ```
//!
//! RFC 9113 section 5.1 has one state for both directions; here each has its own, and a stream is closed when both have
//! ended or it is broken.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};

use super::error::Error;
use super::flow::{Receiving, Sending};
use super::frame;
use crate::proxy::http::meter::Meter;

/// Pieces that are shorter are put together while nobody takes them: each would keep all of what was read with it.
const SHORT: usize = 4 << 10;

/// How far the peer is with its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its headers are still to come.
    Head,
    Body,
    Ended,
}

/// How far we are with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// The headers are still to come.
    Head,
    Body,
    /// What waits for room is the last.
    Ending,
    Ended,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) heard: Heard,
    pub(super) said: Said,
    /// Why it is over before its time.
    pub(super) broken: Option<Error>,
    /// Whether it does not count as one that is under way any more.
    pub(super) closed: bool,
    /// Who receives from it.
    pub(super) receiver: bool,
    /// Who sends on it.
    pub(super) sender: bool,
    /// A host's first interim answer that nobody has taken. Few have one.
    pub(super) interim: Option<Box<Response<()>>>,
    /// A host's answer that nobody has taken.
    pub(super) answer: Option<Response<()>>,
    /// Whether the answer to what was asked has no body (HEAD).
    pub(super) bodiless: bool,
    /// Whether a client asked for a tunnel.
    pub(super) connect: bool,
    /// Data that nobody has taken.
    pub(super) data: Pieces,
    pub(super) trailers: Option<HeaderMap>,
    /// What is still to come of the length that the headers say.
    pub(super) length: Option<u64>,
    pub(super) receiving: Receiving,
    /// Data that waits for room.
    pub(super) waiting: Bytes,
    /// Whether it has its place among the streams that take turns.
    pub(super) queued: bool,
    pub(super) sending: Sending,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// What goes by is counted there.
    pub(super) meter: Option<Rc<Meter>>,
}

impl Stream {
    pub(super) fn new(id: u32, receiving: u32, sending: u32) -> Self {
        Self {
            id,
            heard: Heard::Head,
            said: Said::Head,
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

    /// So many bytes of headers have come.
    pub(super) fn heard_headers(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.receive(bytes);
            meter.receive_headers(bytes);
        }
    }

    /// The peer has reset it.
    pub(super) fn heard_reset(&self) {
        if let Some(meter) = self.meter.as_ref().filter(|_| self.broken.is_none()) {
            meter.receive(frame::RESET);
        }
    }

    /// It is reset.
    pub(super) fn said_reset(&self) {
        if let Some(meter) = &self.meter {
            meter.send(frame::RESET);
        }
    }

    /// So many bytes of headers were written.
    pub(super) fn said_headers(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.send(bytes);
            meter.send_headers(bytes);
        }
    }

    /// Whether neither side has more to say.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || (self.heard == Heard::Ended && self.said == Said::Ended)
    }

    /// Whether all of the peer's message was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.heard == Heard::Ended && self.data.is_empty() && self.trailers.is_none()
    }

    /// Wakes whoever waits for something to come.
    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Wakes whoever waits to send.
    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Remembers who waits.
pub(super) fn register(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
}

/// Data in the order it came in.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    whole: VecDeque<Bytes>,
    /// Short pieces, put together; after all others.
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

    /// Forgets all of it, and says how much that was.
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
