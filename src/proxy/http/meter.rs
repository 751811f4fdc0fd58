//! Bytes of a request and its answer as they are on the wire, for logs that ask for them.

use std::cell::Cell;

use http::HeaderMap;

/// What goes by on one connection for one request. Heads are counted as HTTP writes them, without what TLS adds; of
/// HTTP/2 the frames that carry heads, data, trailers and resets are.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    received: Cell<u64>,
    sent: Cell<u64>,
    header_received: Cell<u64>,
    header_sent: Cell<u64>,
}

impl Meter {
    /// So many bytes have come.
    pub(crate) fn receive(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// So many bytes are gone.
    pub(crate) fn send(&self, bytes: usize) {
        add(&self.sent, bytes);
    }

    /// So many of those that have come are headers.
    pub(crate) fn receive_headers(&self, bytes: usize) {
        add(&self.header_received, bytes);
    }

    /// So many of those that are gone are headers.
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

/// How many bytes the headers of an HTTP/1.1 message have that has come, as Envoy counts them: with their colons and the
/// ends of their lines.
pub(crate) fn http1_headers(headers: &HeaderMap) -> usize {
    let lines = headers.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len() + ":\r\n".len())
        .sum()
}
