//! Messages as bytes.

use std::io::Write;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body::Body;

use super::lines;
use super::response::Asked;
use super::wire::Outbox;

/// The end of a body in chunks. Trailers are not written, as `enable_trailers` is off.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    Nothing,
    /// As it is: so many bytes are left.
    Length(u64),
    /// In chunks.
    Chunks,
    /// As it is, until the connection ends.
    UntilEnd,
}

/// A body that is not as long as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongLength;

/// Writes the head of a request, and says how its body is written.
pub(crate) fn request<B: Body>(
    out: &mut Outbox,
    method: &Method,
    target: &[u8],
    headers: &HeaderMap,
    body: &B,
    asked: Asked,
) -> Coding {
    let out = out.short();
    for piece in [method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(piece);
    }
    let coding = match asked {
        Asked::Connect | Asked::Upgrade => Coding::UntilEnd,
        // What has no body says so where one would be expected (RFC 9110 section 8.6).
        Asked::Head | Asked::Other if body.is_end_stream() => {
            let never = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE];
            if !never.contains(method) && !headers.contains_key(CONTENT_LENGTH) {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            Coding::Nothing
        }
        Asked::Head | Asked::Other => framed(out, headers, body),
    };
    fields(out, headers);
    coding
}

/// Writes the head of a response to what was asked, and says how its body is written.
pub(crate) fn response<B: Body>(
    out: &mut Outbox,
    status: StatusCode,
    headers: &HeaderMap,
    body: &B,
    asked: Asked,
) -> Coding {
    let out = out.short();
    status_line(out, status);
    let coding = if asked.is_tunnel(status) {
        Coding::UntilEnd
    } else if asked.is_bodiless(status) {
        let may_have_one = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        if asked == Asked::Head && may_have_one && !headers.contains_key(CONTENT_LENGTH) {
            // How the body would come, as in Envoy.
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        Coding::Nothing
    } else {
        framed(out, headers, body)
    };
    fields(out, headers);
    coding
}

/// Writes an interim response.
pub(crate) fn interim(out: &mut Outbox, status: StatusCode, headers: &HeaderMap) {
    let out = out.short();
    status_line(out, status);
    fields(out, headers);
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or("Unknown");
    for piece in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Says where a body ends, unless the headers do.
fn framed<B: Body>(out: &mut Vec<u8>, headers: &HeaderMap, body: &B) -> Coding {
    let told = headers.get(CONTENT_LENGTH).map(|value| lines::length(value.as_bytes()));
    let exact = match body.is_end_stream() {
        true => Some(0),
        false => body.size_hint().exact(),
    };
    match (told.flatten(), exact) {
        (Some(length), _) => Coding::Length(length),
        (None, Some(length)) => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "content-length: {length}\r\n");
            Coding::Length(length)
        }
        (None, None) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Coding::Chunks
        }
    }
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        // It is for whoever writes the body to say.
        if name == TRANSFER_ENCODING {
            continue;
        }
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(piece);
        }
    }
    out.extend_from_slice(b"\r\n");
}

impl Coding {
    /// Writes a piece of the body, which may be the last.
    ///
    /// # Errors
    /// When it is longer than was said.
    pub(crate) fn piece(&mut self, out: &mut Outbox, piece: Bytes, last: bool) -> Result<(), WrongLength> {
        match self {
            Coding::Nothing => {}
            _ if piece.is_empty() => {}
            Coding::UntilEnd => out.put(piece, b""),
            Coding::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(WrongLength)?;
                out.put(piece, b"");
            }
            Coding::Chunks => {
                // Writing to a vector cannot fail.
                let _ = write!(out.short(), "{:x}\r\n", piece.len());
                out.put(piece, if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                if last {
                    *self = Coding::Nothing;
                }
            }
        }
        match last {
            true => self.end(out),
            false => Ok(()),
        }
    }

    /// Writes the end of the body.
    ///
    /// # Errors
    /// When it is shorter than was said.
    pub(crate) fn end(&mut self, out: &mut Outbox) -> Result<(), WrongLength> {
        match std::mem::replace(self, Coding::Nothing) {
            Coding::Length(1..) => Err(WrongLength),
            Coding::Chunks => {
                out.short().extend_from_slice(LAST_CHUNK);
                Ok(())
            }
            Coding::Nothing | Coding::UntilEnd | Coding::Length(0) => Ok(()),
        }
    }
}
