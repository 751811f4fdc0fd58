//! Settings (RFC 9113 section 6.5).

use bytes::{BufMut, BytesMut};

use super::error::Reason;
use super::flow::MOST;
use super::frame::{Head, SETTINGS};
use super::hpack::TABLE_SIZE;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The peer's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `SETTINGS_HEADER_TABLE_SIZE`.
    pub(super) header_table: usize,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`; `None`: not received yet.
    pub(super) max_streams: Option<u32>,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`.
    pub(super) window: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_table: TABLE_SIZE,
            max_streams: None,
            window: super::flow::INITIAL,
        }
    }
}

impl Settings {
    /// Applies a SETTINGS payload.
    ///
    /// # Errors
    /// If a value is invalid.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), Reason> {
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(Reason::FRAME_SIZE_ERROR);
        };
        for [a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                HEADER_TABLE_SIZE => self.header_table = value as usize,
                MAX_CONCURRENT_STREAMS => self.max_streams = Some(value),
                INITIAL_WINDOW_SIZE if value > MOST => return Err(Reason::FLOW_CONTROL_ERROR),
                INITIAL_WINDOW_SIZE => self.window = value,
                // We never send frames larger than the minimum of this setting.
                MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => return Err(Reason::PROTOCOL_ERROR),
                ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                // Unknown settings are ignored.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Our settings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    /// `SETTINGS_ENABLE_PUSH: 0`, sent to hosts.
    pub(super) no_push: bool,
    pub(super) max_streams: Option<u32>,
    pub(super) window: u32,
    pub(super) max_header_list: u32,
    pub(super) connect_protocol: bool,
}

impl Own {
    pub(super) fn write(&self, out: &mut BytesMut) {
        let settings = [
            (ENABLE_PUSH, self.no_push.then_some(0)),
            (MAX_CONCURRENT_STREAMS, self.max_streams),
            (INITIAL_WINDOW_SIZE, Some(self.window)),
            (MAX_HEADER_LIST_SIZE, Some(self.max_header_list)),
            (ENABLE_CONNECT_PROTOCOL, self.connect_protocol.then_some(1)),
        ];
        let said = settings.iter().filter(|(_, value)| value.is_some()).count();
        out.put_slice(&Head::new(6 * said, SETTINGS, 0, 0).bytes());
        for (setting, value) in settings {
            if let Some(value) = value {
                out.put_u16(setting);
                out.put_u32(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::HEAD;
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let own = Own {
            no_push: true,
            max_streams: Some(7),
            window: 70_000,
            max_header_list: 9,
            connect_protocol: true,
        };
        let mut out = BytesMut::new();
        own.write(&mut out);
        let head = Head::parse(&out).unwrap();
        assert_eq!((head.len, head.kind, head.flags, head.stream), (30, SETTINGS, 0, 0));
        let mut heard = Settings::default();
        heard.apply(&out[HEAD..]).unwrap();
        assert_eq!((heard.max_streams, heard.window), (Some(7), 70_000));
    }

    #[test]
    fn values_that_are_none_are_refused() {
        let apply = |payload: &[u8]| Settings::default().apply(payload);
        assert_eq!(apply(&[0, 1, 0, 0, 0]), Err(Reason::FRAME_SIZE_ERROR));
        assert_eq!(apply(&[0, 4, 0x80, 0, 0, 0]), Err(Reason::FLOW_CONTROL_ERROR));
        assert_eq!(apply(&[0, 5, 0, 0, 0x3f, 0xff]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(apply(&[0, 5, 1, 0, 0, 0]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(apply(&[0, 2, 0, 0, 0, 2]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(apply(&[0, 99, 0, 0, 0, 2]), Ok(()));
    }
}
