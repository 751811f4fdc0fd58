//! Serializing HTTP/1.1 messages.

use std::io::Write;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body::Body;

use super::lines;
use super::response::RequestKind;
use super::wire::Outbox;

/// The last chunk. Trailers are not sent, as with Envoy's `enable_trailers` off.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// There is none.
    Nothing,
    /// By `content-length`: bytes left.
    Length(u64),
    /// By chunked coding.
    Chunks,
    /// By the end of the connection.
    UntilEnd,
}

/// A body that is longer or shorter than its `content-length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongLength;

/// Writes the head of a request; returns how its body is delimited.
pub(crate) fn request<B: Body>(
    out: &mut Outbox,
    method: &Method,
    target: &[u8],
    headers: &HeaderMap,
    body: &B,
    kind: RequestKind,
) -> Coding {
    let out = out.short();
    for piece in [method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(piece);
    }
    let coding = match kind {
        RequestKind::Connect | RequestKind::Upgrade => Coding::UntilEnd,
        // A request without a body says so if its method expects one (RFC 9110 section 8.6).
        RequestKind::Head | RequestKind::Other if body.is_end_stream() => {
            let never = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE];
            if !never.contains(method) && !headers.contains_key(CONTENT_LENGTH) {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            Coding::Nothing
        }
        RequestKind::Head | RequestKind::Other => framed(out, headers, body),
    };
    fields(out, headers);
    coding
}

/// Writes the head of a response to such a request; returns how its body is delimited.
pub(crate) fn response<B: Body>(
    out: &mut Outbox,
    status: StatusCode,
    headers: &HeaderMap,
    body: &B,
    kind: RequestKind,
) -> Coding {
    let out = out.short();
    status_line(out, status);
    let coding = if kind.is_tunnel(status) {
        Coding::UntilEnd
    } else if kind.is_bodiless(status) {
        let may_have_one = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        if kind == RequestKind::Head && may_have_one && !headers.contains_key(CONTENT_LENGTH) {
            // As in Envoy: how the body of a GET would be delimited.
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        Coding::Nothing
    } else {
        framed(out, headers, body)
    };
    fields(out, headers);
    coding
}

/// Writes an interim (1xx) response.
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

/// Writes the header that delimits the body, unless it is among `headers`.
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
        // Set by whoever delimits the body.
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
    /// If it exceeds `content-length`.
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
    /// If it is shorter than `content-length`.
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
