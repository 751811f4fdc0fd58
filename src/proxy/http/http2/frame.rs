//! Frames (RFC 9113 sections 4 and 6): heads, padding, and writing the short ones.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::Reason;

/// Length of a frame head.
pub(super) const HEAD: usize = 9;

/// The largest payload (`SETTINGS_MAX_FRAME_SIZE`), received or sent: the default, which we never raise.
pub(super) const LARGEST: usize = 16 << 10;

/// The highest stream id.
pub(super) const MAX_STREAM: u32 = u32::MAX >> 1;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

/// A frame head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of the payload.
    pub(super) len: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn new(len: usize, kind: u8, flags: u8, stream: u32) -> Self {
        Self {
            len,
            kind,
            flags,
            stream,
        }
    }

    /// The head at the beginning of `bytes`, if it is complete.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            len: usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & MAX_STREAM,
        })
    }

    pub(super) fn bytes(self) -> [u8; HEAD] {
        let [.., a, b, c] = self.len.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A payload without its padding.
///
/// # Errors
/// If the padding is longer than the payload.
pub(super) fn without_padding(head: Head, mut payload: Bytes) -> Result<Bytes, Reason> {
    if head.has(PADDED) {
        let padding = payload.try_get_u8().map_err(|_| Reason::FRAME_SIZE_ERROR)?;
        let left = payload.len().checked_sub(padding.into());
        payload.truncate(left.ok_or(Reason::PROTOCOL_ERROR)?);
    }
    Ok(payload)
}

/// A payload of exactly `N` bytes.
///
/// # Errors
/// If it has another length.
pub(super) fn number<const N: usize>(payload: &[u8]) -> Result<[u8; N], Reason> {
    payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)
}

/// Length of RST_STREAM.
pub(super) const RESET: usize = HEAD + 4;

pub(super) fn write_reset(out: &mut BytesMut, stream: u32, reason: Reason) {
    out.put_slice(&Head::new(4, RST_STREAM, 0, stream).bytes());
    out.put_u32(reason.0);
}

pub(super) fn write_window_update(out: &mut BytesMut, stream: u32, by: u32) {
    out.put_slice(&Head::new(4, WINDOW_UPDATE, 0, stream).bytes());
    out.put_u32(by);
}

pub(super) fn write_ping(out: &mut BytesMut, flags: u8, payload: [u8; 8]) {
    out.put_slice(&Head::new(8, PING, flags, 0).bytes());
    out.put_slice(&payload);
}

pub(super) fn write_goaway(out: &mut BytesMut, last: u32, reason: Reason) {
    out.put_slice(&Head::new(8, GOAWAY, 0, 0).bytes());
    out.put_u32(last);
    out.put_u32(reason.0);
}

/// Writes a header block, as HEADERS and as many CONTINUATION frames as it takes.
pub(super) fn write_block(out: &mut BytesMut, stream: u32, ended: bool, block: impl FnOnce(&mut BytesMut)) {
    let flags = if ended { END_STREAM } else { 0 };
    let at = out.len();
    out.put_bytes(0, HEAD);
    block(out);
    let len = out.len() - at - HEAD;
    if len <= LARGEST {
        let head = Head::new(len, HEADERS, flags | END_HEADERS, stream);
        out[at..at + HEAD].copy_from_slice(&head.bytes());
        return;
    }
    let mut rest = out.split_off(at + HEAD);
    out[at..].copy_from_slice(&Head::new(LARGEST, HEADERS, flags, stream).bytes());
    out.put(rest.split_to(LARGEST));
    while !rest.is_empty() {
        let len = rest.len().min(LARGEST);
        let last = if len == rest.len() { END_HEADERS } else { 0 };
        out.put_slice(&Head::new(len, CONTINUATION, last, stream).bytes());
        out.put(rest.split_to(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Head::new(0x01_02_03, DATA, END_STREAM | PADDED, MAX_STREAM);
        assert_eq!(head.bytes(), [1, 2, 3, 0, 9, 0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(Head::parse(&head.bytes()), Some(head));
        assert_eq!(Head::parse(&head.bytes()[..8]), None);
        // A bit that is reserved does not matter.
        assert_eq!(Head::parse(&[1, 2, 3, 0, 9, 0xff, 0xff, 0xff, 0xff]), Some(head));
    }

    #[test]
    fn padding_is_taken_off_and_never_more_than_there_is() {
        let taken = |flags, payload: &'static [u8]| {
            let head = Head::new(payload.len(), DATA, flags, 1);
            without_padding(head, Bytes::from_static(payload))
        };
        assert_eq!(taken(0, b"\x01ab").unwrap(), "\x01ab");
        assert_eq!(taken(PADDED, b"\x01ab").unwrap(), "a");
        assert_eq!(taken(PADDED, b"\x02ab").unwrap(), "");
        assert_eq!(taken(PADDED, b"\x03ab"), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(taken(PADDED, b""), Err(Reason::FRAME_SIZE_ERROR));
    }

    #[test]
    fn long_blocks_are_continued() {
        for len in [0, 1, LARGEST, LARGEST + 1, 3 * LARGEST] {
            let block: Vec<_> = (0..len).map(|at| at as u8).collect();
            let mut out = BytesMut::from(&b"before"[..]);
            write_block(&mut out, 5, true, |out| out.put_slice(&block));
            assert_eq!(out.split_to(6), "before");
            let (mut got, mut kinds) = (Vec::new(), Vec::new());
            while let Some(head) = Head::parse(&out) {
                out.advance(HEAD);
                got.extend_from_slice(&out.split_to(head.len));
                kinds.push((head.kind, head.has(END_HEADERS)));
                assert_eq!((head.stream, head.has(END_STREAM)), (5, head.kind == HEADERS));
            }
            assert!(got == block && out.is_empty());
            let frames = len.div_ceil(LARGEST).max(1);
            let expected = (0..frames).map(|at| (if at == 0 { HEADERS } else { CONTINUATION }, at == frames - 1));
            assert_eq!(kinds, expected.collect::<Vec<_>>());
        }
    }
}
