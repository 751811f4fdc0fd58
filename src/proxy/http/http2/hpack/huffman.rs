//! The Huffman code (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: the lengths of the codes determine them, so the tables are computed from the lengths at
//! compile time. Most symbols of real headers have codes of up to 8 bits, and one look-up of the next 8 bits finds
//! them, at half the cost of a state machine over nibbles.

use bytes::BytesMut;

use super::DecodeError;

/// Code length of each byte in bits, and of EOS, which is never sent.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const EOS: u16 = 256;
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

static CODES: [Code; 257] = codes();
static SHORT: [(u8, u8); 256] = short();
static LONG: [Length; LONGEST + 1] = lengths();
static SYMBOLS: [u16; 257] = symbols();

/// A symbol's code: the low `len` bits of `bits`.
#[derive(Clone, Copy)]
struct Code {
    bits: u32,
    len: u8,
}

/// The codes of one length: the first and the end, left-aligned in 32 bits, and where their symbols start in `SYMBOLS`.
#[derive(Clone, Copy)]
struct Length {
    first: u32,
    end: u32,
    symbols: usize,
}

const fn codes() -> [Code; 257] {
    let mut codes = [Code { bits: 0, len: 0 }; 257];
    let (symbols, mut bits, mut of) = (symbols(), 0, 0);
    let mut len = SHORTEST as u8;
    while of < symbols.len() {
        let symbol = symbols[of] as usize;
        bits <<= LENGTHS[symbol] - len;
        len = LENGTHS[symbol];
        codes[symbol] = Code { bits, len };
        bits += 1;
        of += 1;
    }
    codes
}

/// All symbols, ordered by code.
const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut len, mut found) = (SHORTEST, 0);
    while len <= LONGEST {
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol as usize] as usize == len {
                symbols[found] = symbol;
                found += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    symbols
}

/// For each value of the next 8 bits: the symbol and the length of its code; length 0: the code is longer.
const fn short() -> [(u8, u8); 256] {
    let codes = codes();
    let mut short = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let Code { bits, len } = codes[byte];
        if len <= 8 {
            let first = (bits << (8 - len)) as usize;
            let mut next = 0;
            while next < 1 << (8 - len) {
                short[first + next] = (byte as u8, len);
                next += 1;
            }
        }
        byte += 1;
    }
    short
}

const fn lengths() -> [Length; LONGEST + 1] {
    let (codes, symbols) = (codes(), symbols());
    let mut lengths = [Length {
        first: 0,
        end: 0,
        symbols: 0,
    }; LONGEST + 1];
    let mut of = symbols.len();
    while of > 0 {
        of -= 1;
        let Code { bits, len } = codes[symbols[of] as usize];
        let length = &mut lengths[len as usize];
        let first = bits << (32 - len);
        if length.end == 0 {
            // EOS has the last code.
            length.end = first.saturating_add(1 << (32 - len));
        }
        length.first = first;
        length.symbols = of;
    }
    lengths
}

/// The longest decoded length of `len` bytes.
pub(super) const fn longest(len: usize) -> usize {
    len * 8 / SHORTEST
}

/// Appends the decoded string.
///
/// # Errors
/// If it contains EOS, or the padding is not a prefix of EOS of less than 8 bits.
pub(super) fn decode(coded: &[u8], out: &mut BytesMut) -> Result<(), DecodeError> {
    let start = out.len();
    out.resize(start + longest(coded.len()), 0);
    let written = decode_into(coded, &mut out[start..])?;
    out.truncate(start + written);
    Ok(())
}

fn decode_into(coded: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    let mut bits = Bits::new(coded);
    let mut written = 0;
    while bits.have > 0 {
        let (byte, len) = match SHORT[(bits.next >> 56) as usize] {
            (_, 0) => long((bits.next >> 32) as u32)?,
            short => short,
        };
        if u32::from(len) > bits.have {
            break;
        }
        out[written] = byte;
        written += 1;
        bits.take(u32::from(len));
    }
    if bits.have >= 8 || bits.next.leading_ones() < bits.have {
        return Err(DecodeError::Padding);
    }
    Ok(written)
}

/// The symbol and the code length at the start of these bits, for codes longer than 8 bits.
fn long(next: u32) -> Result<(u8, u8), DecodeError> {
    for (len, length) in LONG.iter().enumerate().skip(9) {
        if next < length.end {
            let symbol = SYMBOLS[length.symbols + ((next - length.first) >> (32 - len)) as usize];
            return match u8::try_from(symbol) {
                Ok(byte) => Ok((byte, len as u8)),
                Err(_) => Err(DecodeError::Eos),
            };
        }
    }
    Err(DecodeError::Eos)
}

/// A bit reader.
struct Bits<'a> {
    /// The next bits, left-aligned; zeros follow.
    next: u64,
    /// How many of them are valid.
    have: u32,
    /// The bytes after them.
    rest: &'a [u8],
}

impl<'a> Bits<'a> {
    fn new(coded: &'a [u8]) -> Self {
        let mut bits = Self {
            next: 0,
            have: 0,
            rest: coded,
        };
        bits.fill();
        bits
    }

    fn take(&mut self, len: u32) {
        self.next <<= len;
        self.have -= len;
        // The longest code is this long.
        if self.have < LONGEST as u32 {
            self.fill();
        }
    }

    fn fill(&mut self) {
        if let Some((four, rest)) = self.rest.split_first_chunk()
            && self.have <= 32
        {
            self.next |= u64::from(u32::from_be_bytes(*four)) << (32 - self.have);
            self.have += 32;
            self.rest = rest;
            return;
        }
        while let [byte, rest @ ..] = self.rest
            && self.have <= 56
        {
            self.next |= u64::from(*byte) << (56 - self.have);
            self.have += 8;
            self.rest = rest;
        }
    }
}

/// The coded length of `text` in bytes.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`, which is `len` bytes long.
pub(super) fn encode(text: &[u8], len: usize, out: &mut BytesMut) {
    let mut at = out.len();
    out.resize(at + len, 0);
    let (mut bits, mut have) = (0_u64, 0_u32);
    for byte in text {
        let code = CODES[usize::from(*byte)];
        bits = bits << code.len | u64::from(code.bits);
        have += u32::from(code.len);
        if have >= 32 {
            have -= 32;
            out[at..at + 4].copy_from_slice(&((bits >> have) as u32).to_be_bytes());
            at += 4;
        }
    }
    // The padding consists of the first bits of EOS.
    let last = (bits << (32 - have)) as u32 | u32::MAX >> have;
    for (byte, last) in out[at..].iter_mut().zip(last.to_be_bytes()) {
        *byte = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = BytesMut::from(&b"before"[..]);
        decode(coded, &mut out)?;
        assert!(out.starts_with(b"before"));
        Ok(out[6..].to_vec())
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(text, encoded_len(text), &mut out);
        out.to_vec()
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        for (symbol, bits) in [
            (b'0' as usize, 0x0),
            (b'a' as usize, 0x3),
            (b' ' as usize, 0x14),
            (b'z' as usize, 0x7b),
            (b'&' as usize, 0xf8),
            (b'!' as usize, 0x3f8),
            (b'\\' as usize, 0x7_fff0),
            (0, 0x1ff8),
            (128, 0xf_ffe6),
            (255, 0x3ff_ffee),
            (22, 0x3fff_fffe),
            (256, 0x3fff_ffff),
        ] {
            assert_eq!(CODES[symbol].bits, bits, "{symbol}");
        }
    }

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        for byte in 0..=255 {
            for len in 1..=9 {
                let text = vec![byte; len];
                assert_eq!(decoded(&encoded(&text)), Ok(text));
            }
        }
        assert_eq!(decoded(b""), Ok(vec![]));
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones() {
        // `0` is 00000, `!` 1111111000.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(DecodeError::Padding));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(DecodeError::Padding));
        assert_eq!(decoded(&[0xff]), Err(DecodeError::Padding));
        assert_eq!(decoded(&[0xff, 0xff]), Err(DecodeError::Padding));
        assert_eq!(decoded(&[0xfe]), Err(DecodeError::Padding));
    }

    #[test]
    fn the_end_of_a_string_is_never_in_it() {
        assert_eq!(decoded(&[0xff; 4]), Err(DecodeError::Eos));
        assert_eq!(decoded(&[0b0000_0111, 0xff, 0xff, 0xff, 0xff]), Err(DecodeError::Eos));
    }

    proptest! {
        #[test]
        fn text_is_read_as_it_was_written(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(coded: Vec<u8>) {
            if let Ok(text) = decoded(&coded) {
                prop_assert_eq!(encoded(&text), coded);
            }
        }
    }
}
