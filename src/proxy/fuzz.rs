//! The proxy's parsers as the targets in `fuzz/` call them. Compiled only with `cfg(fuzzing)`; the one place for such
//! code.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::http::Method;
use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, ReadBuf};

use super::config;
use super::connection::{Address, Connection, Stream};
use super::format::{self, RequestLine};
use super::http::body::client::Base64;
use super::http::http1::conversation::{Peer, understood};
use super::http::http1::response::RequestKind;
use super::http::http2::conversation::converse;
use super::http::http2::hpack::{Decoder, Encoder, Indexing, Name, TABLE_SIZE};
use super::http::path::Normalized;
use super::http::{EscapedSlashes, PathNormalization, conditioning, deadlines, hash};
use super::listener::Inspection;
use super::listener::inspect::inspect;
use super::listener::proxy_protocol::ProxyProtocol;
use super::tls::{peer, subject};
use super::trace::context::{TRACE_PARENT, TraceContext, trace_state};

/// Parses a bootstrap and compiles its ADS server.
///
/// # Errors
/// Why it is refused.
pub fn bootstrap(text: &str) -> Result<(), String> {
    let message = config::bootstrap::parse("bootstrap.yaml", text).map_err(|error| error.to_string())?;
    config::bootstrap::check(&message).map_err(|refusal| refusal.to_string())?;
    config::server::server(&message).map_err(|refusal| refusal.to_string())?;
    Ok(())
}

/// Runs the TLS and HTTP inspectors on bytes that are received in these pieces.
///
/// # Panics
/// If the buffer does not hold the bytes received.
pub fn first_bytes(pieces: &[Vec<u8>]) {
    let inspection = Inspection {
        tls: Some(Vec::new()),
        http: Some(Vec::new()),
        ..Inspection::default()
    };
    let mut read = BytesMut::new();
    // Reading never waits here.
    drop(inspect(&mut Pieces::new(pieces), &inspection, 80, &mut read).now_or_never());
    assert!(pieces.concat().starts_with(&read), "bytes were lost or invented");
}

/// Reads a PROXY protocol header from bytes that are received in these pieces.
///
/// # Panics
/// If what is left is not a suffix of the bytes.
pub fn proxy_header(optional: bool, pieces: &[Vec<u8>]) {
    let protocol = ProxyProtocol {
        optional,
        v1: true,
        v2: true,
        ..ProxyProtocol::default()
    };
    let (mut stream, mut left) = (Pieces::new(pieces), BytesMut::new());
    drop(protocol.read(&mut stream, &mut left).now_or_never());
    left.extend_from_slice(stream.next);
    left.extend(stream.rest.flatten());
    assert!(pieces.concat().ends_with(&left), "bytes were lost or invented");
}

/// A connection on which these pieces are received, and then the end.
struct Pieces<'a> {
    /// What of a piece has not been read yet.
    next: &'a [u8],
    rest: std::slice::Iter<'a, Vec<u8>>,
}

impl<'a> Pieces<'a> {
    fn new(pieces: &'a [Vec<u8>]) -> Self {
        Self {
            next: &[],
            rest: pieces.iter(),
        }
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.next.is_empty()
            && let Some(piece) = self.rest.next()
        {
            self.next = piece;
        }
        let (now, later) = self.next.split_at(self.next.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.next = later;
        Poll::Ready(Ok(()))
    }
}

/// Parses HTTP/1.1 requests.
///
/// # Panics
/// If splitting makes a difference.
pub fn requests(pieces: &[Vec<u8>]) {
    conversation(Peer::Client, pieces);
}

/// Parses HTTP/1.1 responses, to a request chosen by `asked`.
///
/// # Panics
/// If splitting makes a difference.
pub fn answers(asked: u8, pieces: &[Vec<u8>]) {
    let all = [
        RequestKind::Other,
        RequestKind::Head,
        RequestKind::Upgrade,
        RequestKind::Connect,
    ];
    conversation(Peer::Host(all[usize::from(asked) % all.len()]), pieces);
}

fn conversation(speaker: Peer, pieces: &[Vec<u8>]) {
    let whole = understood(speaker, &[&pieces.concat()]);
    let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
    assert_eq!(understood(speaker, &pieces), whole);
}

/// Decodes header blocks, and encodes and decodes them again.
///
/// # Panics
/// If that changes anything.
pub fn hpack(max: u16, blocks: &[Vec<u8>]) {
    let limit = usize::from(max);
    let (mut decoder, mut encoder, mut next) = (Decoder::new(limit), Encoder::new(), Decoder::new(TABLE_SIZE));
    encoder.set_max_table(limit);
    for block in blocks {
        let (mut sent, mut received, mut out) = (Vec::new(), Vec::new(), BytesMut::new());
        encoder.begin(&mut out);
        let decoded = decoder.decode(Bytes::copy_from_slice(block), |name, mut value, never| {
            value.set_sensitive(never);
            let passed = pass_on(&mut encoder, &name, &value, &mut out);
            sent.extend(passed.then_some((name, value)));
        });
        let passed = next.decode(out.freeze(), |name, value, _| received.push((name, value)));
        assert_eq!((passed, &received), (Ok(()), &sent));
        if decoded.is_err() {
            return;
        }
    }
}

fn pass_on(encoder: &mut Encoder, name: &Name, value: &HeaderValue, out: &mut BytesMut) -> bool {
    match name {
        Name::Scheme => encoder.scheme(value, out),
        Name::Authority => encoder.authority(value, out),
        Name::Path => encoder.path(value, out),
        Name::Protocol => encoder.protocol(value, out),
        Name::Regular(name) => encoder.field(name, value, Indexing::of(name, value), out),
        Name::Method | Name::Status | Name::OtherPseudo | Name::Malformed => return false,
    }
    true
}

/// Processes HTTP/2 frames of a client or a host.
///
/// # Panics
/// If splitting makes a difference.
pub fn frames(host: bool, pieces: &[Vec<u8>]) {
    converse(host, pieces);
}

/// Parses the names and the subject of a certificate.
pub fn certificate(der: &[u8]) {
    let certificate = CertificateDer::from(der);
    peer::Names::of(&certificate);
    subject::of(&certificate);
}

/// Normalizes a path, in a way chosen by `way`.
///
/// # Panics
/// If a path that needs no normalization is changed, or the result is empty.
pub fn path(way: u8, path: &str) {
    let ways = [
        EscapedSlashes::Keep,
        EscapedSlashes::Reject,
        EscapedSlashes::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward,
    ];
    let normalization = PathNormalization {
        normalize: way & 1 != 0,
        merge_slashes: way & 2 != 0,
        escaped_slashes: ways[usize::from(way >> 2) % ways.len()],
    };
    let once = normalization.apply(path);
    if !normalization.concerns(path) {
        assert_eq!(once, Normalized::Same);
    }
    if let Normalized::Changed(normal) = once {
        assert!(!normal.is_empty(), "a path became none");
    }
}

/// Decodes the body of a gRPC-Web request in base64.
///
/// # Panics
/// If splitting makes a difference.
pub fn web_body(pieces: &[Vec<u8>]) {
    let decoded = |pieces: &[&[u8]]| {
        let (mut base64, mut out) = (Base64::default(), Vec::new());
        for piece in pieces {
            out.extend(base64.decode(piece).ok()?);
        }
        base64.end().ok().map(|()| out)
    };
    let whole = decoded(&[&pieces.concat()]);
    let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
    assert_eq!(decoded(&pieces), whole);
}

/// Parses the request headers that the connection manager and the router depend on, and rewrites those that are not
/// forwarded as received.
pub fn request(headers: &[(&str, &[u8])]) {
    let headers = &mut map(headers);
    for trusted_hops in 0..3 {
        conditioning::client::last_trusted(headers, trusted_hops);
    }
    headers.get(&deadlines::GRPC_TIMEOUT).map(deadlines::grpc_timeout);
    hash::cookie(headers, "user");
    let parent = headers.get(TRACE_PARENT).and_then(|parent| parent.to_str().ok());
    if let Some(context) = parent.and_then(TraceContext::parse) {
        context.inject(&trace_state(headers), headers);
    }
    let upgrading = conditioning::upgrade(headers).is_some();
    conditioning::join_lists(headers, &conditioning::LISTS);
    drop(conditioning::remove_hop_by_hop(headers, upgrading));
}

fn map(headers: &[(&str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

/// Compiles a format string and formats it for a request with this path and these headers.
///
/// # Errors
/// Why it is refused.
pub fn format(text: &str, path: &str, headers: &[(&str, &[u8])]) -> Result<(), String> {
    let compiled = format::Format::parse(text)?;
    let address = Address::Ip((Ipv4Addr::LOCALHOST, 80).into());
    let connection = Connection {
        id: 1,
        local: address.clone(),
        remote: address.clone(),
        direct_local: address.clone(),
        direct: address,
        source: None,
        sni: None,
        tls: None,
        chain: Arc::from(""),
        start: Instant::now(),
    };
    let headers = map(headers);
    let request = RequestLine {
        method: &Method::GET,
        path,
        authority: path,
        scheme: "http",
    };
    let context = format::Context {
        connection: &connection,
        stream: &Stream::new(None),
        request: Some(request),
        request_headers: Some(&headers),
        response_headers: Some(&headers),
        response_trailers: Some(&headers),
    };
    compiled.text(&context, "-");
    compiled.write_json(&mut String::new(), &context, "-");
    Ok(())
}
