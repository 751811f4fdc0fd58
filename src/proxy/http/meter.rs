//! Counts the bytes of a request and its response on the wire, for access logs that refer to them.

use std::cell::Cell;

use http::HeaderMap;

/// Bytes on one connection for one request. Heads are counted as HTTP serializes them, without TLS overhead; of HTTP/2,
/// frames of headers, data, trailers and resets are counted.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    received: Cell<u64>,
    sent: Cell<u64>,
    header_received: Cell<u64>,
    header_sent: Cell<u64>,
}

impl Meter {
    /// Counts bytes received.
    pub(crate) fn receive(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// Counts bytes sent.
    pub(crate) fn send(&self, bytes: usize) {
        add(&self.sent, bytes);
    }

    /// Counts header bytes among those received.
    pub(crate) fn receive_headers(&self, bytes: usize) {
        add(&self.header_received, bytes);
    }

    /// Counts header bytes among those sent.
    pub(crate) fn send_headers(&self, bytes: usize) {
        add(&self.header_sent, bytes);
    }

    /// `…_WIRE_BYTES_RECEIVED`.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// `…_WIRE_BYTES_SENT`.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// `…_HEADER_BYTES_RECEIVED`.
    pub(crate) fn headers_received(&self) -> u64 {
        self.header_received.get()
    }

    /// `…_HEADER_BYTES_SENT`.
    pub(crate) fn headers_sent(&self) -> u64 {
        self.header_sent.get()
    }
}

fn add(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get() + bytes as u64);
}

/// Size of the headers of a received HTTP/1.1 message, as Envoy counts them: with colons and line ends.
pub(crate) fn http1_headers(headers: &HeaderMap) -> usize {
    let lines = headers.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len() + ":\r\n".len())
        .sum()
}
