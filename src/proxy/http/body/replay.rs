//! A request body that can be sent more than once, for retries and mirrors.
//!
//! The first attempt streams it. What has passed is buffered up to a limit, so that a later attempt starts from the
//! buffer and continues with what is still to be received. Only one attempt reads at a time.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::client::ClientBody;
use super::{BodyError, Progress};

/// A buffered body. Clones share the buffer.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    state: Rc<RefCell<State>>,
    progress: Rc<Progress>,
}

/// One attempt's reading of it.
#[derive(Debug)]
pub(crate) struct Replay {
    state: Rc<RefCell<State>>,
    progress: Rc<Progress>,
    next: usize,
    trailers_sent: bool,
}

#[derive(Debug)]
struct State {
    source: ClientBody,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Bytes that may still be buffered; `None`: the limit was exceeded and the buffer dropped.
    left: Option<usize>,
    hint: SizeHint,
}

impl Kept {
    /// Buffers up to `limit` bytes.
    pub(crate) fn new(source: ClientBody, progress: Rc<Progress>, limit: usize) -> Self {
        let (hint, ended) = (source.size_hint(), source.is_end_stream());
        Self {
            state: Rc::new(RefCell::new(State {
                source,
                chunks: Vec::new(),
                trailers: None,
                ended,
                left: Some(limit),
                hint,
            })),
            progress,
        }
    }

    /// Whether everything read so far is buffered.
    pub(crate) fn is_complete(&self) -> bool {
        self.state.borrow().left.is_some()
    }

    /// Reads it from the beginning; `None` if the limit was exceeded.
    pub(crate) fn replay(&self) -> Option<Replay> {
        self.state.borrow().left?;
        Some(Replay {
            state: self.state.clone(),
            progress: self.progress.clone(),
            next: 0,
            trailers_sent: false,
        })
    }
}

impl Replay {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        if let Some(chunk) = state.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if state.ended {
            let trailers = state
                .trailers
                .clone()
                .filter(|_| !std::mem::replace(&mut self.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut state.source).poll_frame(cx));
        state.ended = frame.is_none() || state.source.is_end_stream();
        self.progress.saw(frame.as_ref(), state.ended);
        if let Some(Ok(frame)) = &frame {
            if state.keep(frame) {
                self.next += 1;
            }
            self.trailers_sent |= frame.is_trailers();
            state.ended |= frame.is_trailers();
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.ended && self.next >= state.chunks.len() && (state.trailers.is_none() || self.trailers_sent)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.next == 0 {
            self.state.borrow().hint
        } else {
            SizeHint::default()
        }
    }
}

impl State {
    /// Buffers a frame; returns whether it added a chunk.
    fn keep(&mut self, frame: &Frame<Bytes>) -> bool {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(data) = frame.data_ref() else {
            return false;
        };
        self.left = self.left.and_then(|left| left.checked_sub(data.len()));
        if self.left.is_none() {
            self.chunks.clear();
            return false;
        }
        self.chunks.push(data.clone());
        true
    }
}
