//! Integer representation (RFC 7541 section 5.1).

use bytes::{BufMut as _, BytesMut};

use super::DecodeError;

/// How many bytes may follow the prefix: what these can express exceeds any block.
const LONGEST: u32 = 4;

/// Decodes the integer at `at` with a prefix of so many bits, and moves past it.
///
/// # Errors
/// If the block ends within it, or it is too large.
pub(super) fn decode(block: &[u8], at: &mut usize, prefix: u32) -> Result<usize, DecodeError> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(next(block, at)?) & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..LONGEST * 7).step_by(7) {
        let byte = next(block, at)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Integer)
}

fn next(block: &[u8], at: &mut usize) -> Result<u8, DecodeError> {
    let byte = *block.get(*at).ok_or(DecodeError::Truncated)?;
    *at += 1;
    Ok(byte)
}

/// Encodes `value` with a prefix of so many bits, after `flags`.
pub(super) fn encode(mut value: usize, prefix: u32, flags: u8, out: &mut BytesMut) {
    let most = (1_u8 << prefix) - 1;
    match u8::try_from(value) {
        Ok(value) if value < most => return out.put_u8(flags | value),
        _ => out.put_u8(flags | most),
    }
    value -= usize::from(most);
    while value >= 0x80 {
        out.put_u8(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: usize, prefix: u32) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(value, prefix, 0, &mut out);
        out.to_vec()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(encoded(10, 5), [10]);
        assert_eq!(encoded(1337, 5), [31, 154, 10]);
        assert_eq!(encoded(42, 7), [42]);
    }

    #[test]
    fn an_integer_is_read_as_it_was_written() {
        for prefix in 4..=7 {
            for value in (0..700).chain([0xffff, 0x10000, 1 << 28]) {
                let (bytes, mut at) = (encoded(value, prefix), 0);
                assert_eq!(decode(&bytes, &mut at, prefix), Ok(value), "{prefix}");
                assert_eq!(at, bytes.len());
                for len in 0..bytes.len() {
                    assert_eq!(decode(&bytes[..len], &mut 0, prefix), Err(DecodeError::Truncated));
                }
            }
        }
    }

    #[test]
    fn what_stands_before_the_prefix_does_not_count() {
        assert_eq!(decode(&[0xe0 | 10], &mut 0, 5), Ok(10));
        let mut out = BytesMut::new();
        encode(31, 5, 0x20, &mut out);
        assert_eq!(out[..], [0x3f, 0]);
    }

    #[test]
    fn an_endless_integer_is_refused() {
        assert_eq!(decode(&[0x7f, 0x80, 0x80, 0x80, 0], &mut 0, 7), Ok(127));
        assert_eq!(
            decode(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0], &mut 0, 7),
            Err(DecodeError::Integer)
        );
        assert_eq!(decode(&[0xff; 20], &mut 0, 7), Err(DecodeError::Integer));
    }
}
