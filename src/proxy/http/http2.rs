//! The HTTP/2 codec (RFC 9113), downstream and upstream.
//!
//! ```text
//! socket ── driver ── connection ──┬── streams ── exchange
//!                (frames, windows) └── half ── body, pump
//! ```
//!
//! A connection and its streams live on one thread, and one task drives the socket; what a turn of that task produces
//! is written at once. Downstream, the same task polls the requests of all streams. Upstream, each request's own task
//! drives its stream and wakes the connection's task when there is something to write. Data is forwarded without
//! copying; a slow reader is held back by flow control.

mod body;
mod client;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod conversation;
mod driver;
mod error;
mod flow;
mod frame;
mod half;
mod head;
pub(crate) mod hpack;
mod keepalive;
mod outbox;
mod pump;
mod receive;
mod send;
mod server;
mod settings;
mod stream;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod tunnel;
mod waits;

pub(crate) use body::StreamBody;
pub(crate) use client::{Client, ClientDriver, begin};
pub(crate) use error::{Error, Reason};
pub(crate) use half::InterimSender;
pub(super) use server::serve;

use http::header::{HeaderMap, TE};

use super::conditioning::remove_one_hop;

/// Removes the connection-specific headers that HTTP/2 does not allow (RFC 9113 section 8.2.2).
fn remove_what_is_not_in_http2(headers: &mut HeaderMap) {
    remove_one_hop(headers);
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}
