//! Writing values directly into their target: a log line consists of some twenty of them.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Value;

impl Value<'_> {
    /// Writes the value; nothing if it is missing.
    pub(super) fn write(&self, out: &mut impl Write) -> fmt::Result {
        match self {
            Value::None => Ok(()),
            Value::Text(text) => out.write_str(text),
            Value::Number(number) => write_number(out, *number),
            Value::Address(address) => write_address(out, *address),
            Value::Ip(ip) => write_ip(out, *ip),
            Value::Time(format, at) => format.write(out, *at),
        }
    }
}

/// A small buffer for characters of one value: the formatting of the standard library, which also pads and aligns,
/// takes several times as long.
#[derive(Debug, Default)]
pub(super) struct Short {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Short {
    /// Enough for `255.255.255.255:65535`.
    const ROOM: usize = 24;

    /// Adds an ASCII character; drops it if the buffer is full.
    pub(super) fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// Adds the last `digits` digits of a number.
    pub(super) fn push_digits(&mut self, mut number: u32, digits: usize) {
        let end = (self.len + digits).min(Self::ROOM);
        for place in self.bytes[self.len..end].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.len = end;
    }

    fn push_number(&mut self, number: u16) {
        for digit in itoa::Buffer::new().format(number).bytes() {
            self.push(digit);
        }
    }

    fn push_octet(&mut self, octet: u8) {
        if octet >= 100 {
            self.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            self.push(b'0' + octet / 10 % 10);
        }
        self.push(b'0' + octet % 10);
    }

    fn push_ip(&mut self, ip: Ipv4Addr) {
        let [first, rest @ ..] = ip.octets();
        self.push_octet(first);
        for octet in rest {
            self.push(b'.');
            self.push_octet(octet);
        }
    }

    /// Writes the buffer.
    pub(super) fn write(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default())
    }
}

fn write_number(out: &mut impl Write, number: u64) -> fmt::Result {
    out.write_str(itoa::Buffer::new().format(number))
}

fn write_address(out: &mut impl Write, address: SocketAddr) -> fmt::Result {
    let SocketAddr::V4(address) = address else {
        return write!(out, "{address}");
    };
    let mut short = Short::default();
    short.push_ip(*address.ip());
    short.push(b':');
    short.push_number(address.port());
    short.write(out)
}

fn write_ip(out: &mut impl Write, ip: IpAddr) -> fmt::Result {
    let IpAddr::V4(ip) = ip else {
        return write!(out, "{ip}");
    };
    let mut short = Short::default();
    short.push_ip(ip);
    short.write(out)
}

/// Escapes what is written to it as in a JSON string (RFC 8259 section 7).
#[derive(Debug)]
pub(crate) struct Escaped<'a>(&'a mut String);

impl<'a> Escaped<'a> {
    /// Writes a JSON string, quotes included.
    ///
    /// # Errors
    /// Those of `text`.
    pub(crate) fn quoted(out: &'a mut String, text: impl FnOnce(&mut Self) -> fmt::Result) -> fmt::Result {
        out.push('"');
        let mut escaped = Self(out);
        let written = text(&mut escaped);
        escaped.0.push('"');
        written
    }
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
            self.0.push_str(&rest[..at]);
            match rest.as_bytes()[at] {
                byte @ (b'"' | b'\\') => self.0.extend(['\\', byte.into()]),
                b'\n' => self.0.push_str("\\n"),
                b'\r' => self.0.push_str("\\r"),
                b'\t' => self.0.push_str("\\t"),
                byte => write!(self.0, "\\u{byte:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &Value<'_>) -> String {
        let mut out = String::new();
        value.write(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_are_written_as_the_standard_library_does(number: u64, address: SocketAddr) {
            prop_assert_eq!(text(&Value::Number(number)), number.to_string());
            prop_assert_eq!(text(&Value::Number(number % 300)), (number % 300).to_string());
            prop_assert_eq!(text(&Value::Address(address)), address.to_string());
            prop_assert_eq!(text(&Value::Ip(address.ip())), address.ip().to_string());
        }

        #[test]
        fn json_strings_are_read_as_what_was_written(pieces in prop::collection::vec("[\u{0}-\u{7f}\u{e4}\u{2028}]{0,20}", 0..4)) {
            let mut json = String::new();
            Escaped::quoted(&mut json, |out| pieces.iter().try_for_each(|piece| out.write_str(piece))).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), pieces.concat());
        }
    }
}
