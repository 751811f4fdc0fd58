//! HTTP/2 (RFC 9113), of clients and of hosts.
//!
//! ```text
//! socket ── driver ── connection ──┬── streams ── exchange
//!                (frames, windows) └── half ── body, pump
//! ```
//!
//! A connection and all of its streams live on one thread, and one task drives its socket. What a turn of that task
//! brings about goes out in one write. A client's streams are polled by the same task; towards a host, whoever sends a
//! request drives its stream, and wakes the connection's task when there is something to write. Data is passed on as it
//! was read, and what is not taken is held up by windows.

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
pub(crate) use half::Teller;
pub(super) use server::serve;

use http::header::{HeaderMap, TE};

use super::conditioning::remove_one_hop;

/// Removes what HTTP/2 has no use for from the headers of a message (RFC 9113 section 8.2.2).
fn remove_what_is_not_in_http2(headers: &mut HeaderMap) {
    remove_one_hop(headers);
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}
