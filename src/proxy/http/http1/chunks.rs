//! Decoding of chunked bodies (RFC 9112 section 7.1).

use bytes::{Buf, BytesMut};

use super::Refusal;
use super::lines::{TOO_LARGE, is_text, is_token};

/// The longest chunk extension.
const LONGEST_EXTENSION: u16 = 4096;

/// The state of the chunk decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the chunk size: its value so far, and whether a digit has been read.
    Size(u64, bool),
    /// In a chunk extension: the chunk size, and bytes of the extension so far.
    Extension(u64, u16),
    /// Before the LF after the chunk size.
    SizeEnd(u64),
    /// In the chunk data: bytes left.
    Data(u64),
    /// Before the CR after the data.
    DataReturn,
    /// Before the LF after the data.
    DataEnd,
    /// At the start of a trailer line: bytes of trailers so far.
    Trailer(usize),
    /// In the name of a trailer.
    TrailerName(usize),
    /// In the value of a trailer.
    TrailerValue(usize),
    /// Before the LF of a trailer line.
    TrailerEnd(usize),
    /// Before the LF that ends the trailers.
    End,
    /// After the body.
    Over,
}

impl Chunks {
    /// Before the first chunk.
    pub(super) const START: Self = Self::Size(0, false);

    /// Takes data from the beginning of `bytes`, up to the end of its chunk; `None`: none has been received, or the
    /// body is over. Trailers of up to `limit` bytes are dropped, as with Envoy's `enable_trailers` off.
    ///
    /// # Errors
    /// If the coding is malformed.
    pub(super) fn take(&mut self, bytes: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, Refusal> {
        self.pass(bytes, limit)?;
        let Chunks::Data(left) = *self else {
            return Ok(None);
        };
        let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let data = bytes.split_to(len);
        *self = match left - len as u64 {
            0 => Chunks::DataReturn,
            left => Chunks::Data(left),
        };
        // Learning at once whether this was the last chunk matters; an error found here is reported by the next call.
        let _ = self.pass(bytes, limit);
        Ok(Some(data))
    }

    /// Parses up to the next data.
    fn pass(&mut self, bytes: &mut BytesMut, limit: usize) -> Result<(), Refusal> {
        let mut read = 0;
        let mut passed = Ok(());
        while let Some(byte) = bytes.get(read)
            && !matches!(self, Chunks::Data(_) | Chunks::Over)
        {
            match self.next(*byte, limit) {
                Ok(next) => *self = next,
                Err(refusal) => {
                    passed = Err(refusal);
                    break;
                }
            }
            read += 1;
        }
        bytes.advance(read);
        passed
    }

    fn next(self, byte: u8, limit: usize) -> Result<Self, Refusal> {
        let next = match (self, byte) {
            (Chunks::Extension(_, LONGEST_EXTENSION), _) => return Err(Refusal::CODEC),
            (Chunks::Size(size, _), byte) if byte.is_ascii_hexdigit() => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                let size = size.checked_mul(16).ok_or(Refusal::CODEC)? | digit;
                Chunks::Size(size, true)
            }
            (Chunks::Size(size, true), b'\r') | (Chunks::Extension(size, _), b'\r') => Chunks::SizeEnd(size),
            (Chunks::Size(size, true), b';' | b' ' | b'\t') => Chunks::Extension(size, 0),
            (Chunks::Extension(size, len), byte) if is_text(byte) => Chunks::Extension(size, len + 1),
            (Chunks::SizeEnd(0), b'\n') => Chunks::Trailer(0),
            (Chunks::SizeEnd(size), b'\n') => Chunks::Data(size),
            (Chunks::DataReturn, b'\r') => Chunks::DataEnd,
            (Chunks::DataEnd, b'\n') => Chunks::START,
            (Chunks::Trailer(_), b'\r') => Chunks::End,
            (Chunks::TrailerName(len) | Chunks::TrailerValue(len), _) if len >= limit => return Err(TOO_LARGE),
            (Chunks::Trailer(len), byte) if is_token(byte) => Chunks::TrailerName(len + 1),
            (Chunks::TrailerName(len), b':') => Chunks::TrailerValue(len + 1),
            (Chunks::TrailerName(len), byte) if is_token(byte) => Chunks::TrailerName(len + 1),
            (Chunks::TrailerValue(len), b'\r') => Chunks::TrailerEnd(len + 1),
            (Chunks::TrailerValue(len), byte) if is_text(byte) => Chunks::TrailerValue(len + 1),
            (Chunks::TrailerEnd(len), b'\n') => Chunks::Trailer(len + 1),
            (Chunks::End, b'\n') => Chunks::Over,
            _ => return Err(Refusal::CODEC),
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a body and how much of it was read, however it is cut.
    fn run(body: &[u8], cut: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut chunks, mut bytes, mut out) = (Chunks::START, BytesMut::new(), Vec::new());
        for piece in body.chunks(cut) {
            bytes.extend_from_slice(piece);
            while let Some(data) = chunks.take(&mut bytes, 64)? {
                out.extend_from_slice(&data);
                if bytes.is_empty() {
                    break;
                }
            }
        }
        assert_eq!(chunks, Chunks::Over);
        Ok((out, body.len() - bytes.len()))
    }

    #[test]
    fn data_is_taken_out_of_chunks() {
        for cut in [1, 2, 3, 7, 1000] {
            let body = b"5\r\nhello\r\n0A;a=\"b\"\r\n0123456789\r\n0\r\n\r\nGET /";
            let taken = (b"hello0123456789".to_vec(), body.len() - 5);
            assert_eq!(run(body, cut), Ok(taken), "{cut}");
            let trailed = b"1\r\na\r\n0\r\nx: 1\r\ny:\r\n\r\nGET /";
            assert_eq!(run(trailed, cut), Ok((b"a".to_vec(), trailed.len() - 5)), "{cut}");
        }
    }

    #[test]
    fn the_end_is_known_with_the_last_data() {
        let (mut chunks, mut bytes) = (Chunks::START, BytesMut::from(&b"2\r\nab\r\n0\r\n\r\n"[..]));
        assert_eq!(chunks.take(&mut bytes, 0).unwrap().unwrap(), "ab");
        assert_eq!(chunks, Chunks::Over);
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = [b"0\r\nx: ".as_slice(), &[b'a'; 100], b"\r\n\r\n"].concat();
        for bad in [
            b"g\r\n".as_slice(),
            b"-5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\nx y: 1\r\n\r\n",
            b"0\r\n: 1\r\n\r\n",
            b"0\r\nx: \x01\r\n\r\n",
            &long,
        ] {
            for cut in [1, 1000] {
                assert!(run(bad, cut).is_err(), "{}", bad.escape_ascii());
            }
        }
    }
}
