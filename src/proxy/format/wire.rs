//! Bytes on the wire in format strings.

use crate::proxy::connection::Stream;
use crate::proxy::http::meter::Meter;

/// `%DOWNSTREAM_WIRE_BYTES_RECEIVED%` and the like.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireBytes {
    upstream: bool,
    count: fn(&Meter) -> u64,
    /// The same for a TCP connection, which has no headers.
    of_tcp: fn(&Stream) -> u64,
}

impl WireBytes {
    /// The command with this name, if it is one of these.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (upstream, rest) = match name.strip_prefix("UPSTREAM_") {
            Some(rest) => (true, rest),
            None => (false, name.strip_prefix("DOWNSTREAM_")?),
        };
        let count: fn(&Meter) -> u64 = match rest {
            "WIRE_BYTES_RECEIVED" => Meter::received,
            "WIRE_BYTES_SENT" => Meter::sent,
            "HEADER_BYTES_RECEIVED" => Meter::headers_received,
            "HEADER_BYTES_SENT" => Meter::headers_sent,
            _ => return None,
        };
        // What is received from the client is sent to the host.
        let of_tcp: fn(&Stream) -> u64 = match (rest, upstream) {
            ("WIRE_BYTES_RECEIVED", false) | ("WIRE_BYTES_SENT", true) => |stream| stream.bytes_received,
            ("WIRE_BYTES_SENT", false) | ("WIRE_BYTES_RECEIVED", true) => |stream| stream.bytes_sent,
            _ => |_| 0,
        };
        Some(Self {
            upstream,
            count,
            of_tcp,
        })
    }

    pub(super) fn of(self, stream: &Stream) -> u64 {
        if stream.protocol.is_none() {
            return (self.of_tcp)(stream);
        }
        let meter = match self.upstream {
            true => &stream.upstream_bytes,
            false => &stream.downstream_bytes,
        };
        meter.as_deref().map_or(0, self.count)
    }
}
