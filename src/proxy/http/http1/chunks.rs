//! Bodies in chunks (RFC 9112 section 7.1).

use super::Refusal;
use super::head::{TOO_LARGE, is_text, is_token};

/// How long what comes after the size of a chunk may be.
const LONGEST_EXTENSION: u16 = 4096;

/// Where in a body in chunks a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In a chunk's size, of which so many digits have come.
    Size(u64, bool),
    /// In what may come after it, of which so much has.
    Extension(u64, u16),
    /// Before the line feed that ends it.
    SizeEnd(u64),
    /// In so many bytes of data.
    Data(u64),
    /// Before the carriage return that ends them.
    DataReturn,
    /// Before the line feed that ends them.
    DataEnd,
    /// At the start of a trailer; so many bytes of trailers have come.
    Trailer(usize),
    /// In the name of one.
    TrailerName(usize),
    /// In the value of one.
    TrailerValue(usize),
    /// Before the line feed that ends one.
    TrailerEnd(usize),
    /// Before the line feed that ends them all.
    End,
    /// After it.
    Over,
}

impl Chunks {
    /// Before the first chunk.
    pub(super) const START: Self = Self::Size(0, false);

    /// Goes through bytes up to the end of the body or of what there is: what passes is moved together at the beginning
    /// of `bytes`. Trailers do not pass, as `enable_trailers` is off; they may be as long as `limit`.
    ///
    /// Returns how many bytes pass, and how many it has gone through or why they are no chunks.
    pub(super) fn run(&mut self, bytes: &mut [u8], limit: usize) -> (usize, Result<usize, Refusal>) {
        let (mut read, mut kept) = (0, 0);
        while let Some(byte) = bytes.get(read).copied()
            && *self != Chunks::Over
        {
            if let Chunks::Data(left) = *self {
                // Nothing has been dropped so far: trailers come after all data.
                let there = bytes.len() - read;
                let taken = usize::try_from(left).map_or(there, |left| left.min(there));
                (read, kept) = (read + taken, kept + taken);
                *self = match left - taken as u64 {
                    0 => Chunks::DataReturn,
                    left => Chunks::Data(left),
                };
                continue;
            }
            let next = match self.next(byte, limit) {
                Ok(next) => next,
                Err(refusal) => return (kept, Err(refusal)),
            };
            if !next.is_trailer() && !matches!(self, Chunks::TrailerEnd(_)) {
                bytes[kept] = byte;
                kept += 1;
            }
            *self = next;
            read += 1;
        }
        (kept, Ok(read))
    }

    fn is_trailer(self) -> bool {
        matches!(
            self,
            Chunks::TrailerName(_) | Chunks::TrailerValue(_) | Chunks::TrailerEnd(_)
        )
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

    /// What passes of a body and how much of it was read, however it is cut.
    fn run(body: &[u8], cut: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut chunks, mut out, mut read) = (Chunks::START, Vec::new(), 0);
        for piece in body.chunks(cut) {
            let mut piece = piece.to_vec();
            let (kept, ran) = chunks.run(&mut piece, 64);
            out.extend_from_slice(&piece[..kept]);
            read += ran?;
        }
        Ok((out, read))
    }

    #[test]
    fn chunks_pass_as_they_are_and_trailers_do_not() {
        for cut in [1, 2, 3, 7, 1000] {
            let body = b"5\r\nhello\r\n0A;a=\"b\"\r\n0123456789\r\n0\r\n\r\nGET /";
            let end = body.len() - 5;
            assert_eq!(run(body, cut), Ok((body[..end].to_vec(), end)), "{cut}");
            let trailed = b"1\r\na\r\n0\r\nx: 1\r\ny:\r\n\r\nGET /";
            let passed = (b"1\r\na\r\n0\r\n\r\n".to_vec(), trailed.len() - 5);
            assert_eq!(run(trailed, cut), Ok(passed), "{cut}");
        }
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
