//! Payloads that a host is sent, and those that are expected of it.

use bytes::Bytes;

/// Whether the data has each of these pieces after the one before, whatever is between them.
pub(super) fn is_in(pieces: &[Bytes], data: &[u8]) -> bool {
    let mut rest = data;
    pieces.iter().all(|piece| match position(rest, piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

fn position(data: &[u8], piece: &[u8]) -> Option<usize> {
    match piece {
        [] => Some(0),
        piece => data.windows(piece.len()).position(|window| window == piece),
    }
}

/// The bytes of hexadecimal digits; `None` if it is something else.
pub(crate) fn from_hex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_in_their_order_with_anything_between_them() {
        let pieces = |texts: &[&'static str]| texts.iter().map(|text| Bytes::from(*text)).collect::<Vec<_>>();
        assert!(is_in(&pieces(&["PO", "NG"]), b"PONG"));
        assert!(is_in(&pieces(&["PO", "NG"]), b"..PO...NG.."));
        assert!(!is_in(&pieces(&["NG", "PO"]), b"PONG"));
        assert!(!is_in(&pieces(&["PO", "ON"]), b"PONG"), "no byte is in two pieces");
        assert!(is_in(&[], b""));
    }

    #[test]
    fn payloads_are_written_in_hexadecimal_digits() {
        assert_eq!(from_hex("50494E4g"), None);
        assert_eq!(from_hex("504"), None);
        assert_eq!(from_hex("50494e47"), Some(Bytes::from("PING")));
        assert_eq!(from_hex("+5"), None);
    }
}
