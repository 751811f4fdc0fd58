//! The proxy's parsers as `fuzz/` reaches them; they are private to everybody else.

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

use super::connection::{Address, Connection, Stream};
use super::format::{self, RequestLine};
use super::http::body::client::Base64;
use super::http::http1::conversation::{Speaker, understood};
use super::http::http1::response::Asked;
use super::http::http2::conversation::converse;
use super::http::http2::hpack::{Decoder, Encoder, Indexing, Name, TABLE_SIZE};
use super::http::path::Normalized;
use super::http::{self, EscapedSlashes, PathNormalization, conditioning, hash};
use super::listener::Inspection;
use super::listener::inspect::inspect;
use super::listener::proxy_protocol::ProxyProtocol;
use super::tls::{peer, subject};
use super::trace::context::{TRACE_PARENT, TraceContext, trace_state};
use super::config;

/// Reads a bootstrap and compiles what it says of the control plane.
///
/// # Errors
/// Why it is refused.
pub fn bootstrap(text: &str) -> Result<(), String> {
    let message = config::bootstrap::parse("bootstrap.yaml", text).map_err(|error| error.to_string())?;
    config::bootstrap::check(&message).map_err(|refusal| refusal.to_string())?;
    config::server::server(&message).map_err(|refusal| refusal.to_string())?;
    Ok(())
}

/// Looks for TLS and HTTP in bytes that come in these pieces.
///
/// # Panics
/// When what was read is not how the bytes begin.
pub fn first_bytes(pieces: &[Vec<u8>]) {
    let inspection = Inspection {
        tls: Some(Vec::new()),
        http: Some(Vec::new()),
        ..Inspection::default()
    };
    let mut read = BytesMut::new();
    // The pieces are always ready, and a connection that ends early is one as well.
    drop(inspect(&mut Pieces::new(pieces), &inspection, 80, &mut read).now_or_never());
    assert!(pieces.concat().starts_with(&read), "bytes were lost or made up");
}

/// Reads a header of the PROXY protocol in bytes that come in these pieces.
///
/// # Panics
/// When what is left is not how the bytes end.
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
    assert!(pieces.concat().ends_with(&left), "bytes were lost or made up");
}

/// A connection on which these bytes come and then nothing more.
struct Pieces<'a> {
    /// What of a piece did not fit into the last buffer.
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

/// Reads a client's requests by HTTP/1.1.
///
/// # Panics
/// When it matters how they are cut.
pub fn requests(pieces: &[Vec<u8>]) {
    conversation(Speaker::Client, pieces);
}

/// Reads a host's answers by HTTP/1.1, whatever they were asked for.
///
/// # Panics
/// When it matters how they are cut.
pub fn answers(asked: u8, pieces: &[Vec<u8>]) {
    let all = [Asked::Other, Asked::Head, Asked::Upgrade, Asked::Connect];
    conversation(Speaker::Host(all[usize::from(asked) % all.len()]), pieces);
}

fn conversation(speaker: Speaker, pieces: &[Vec<u8>]) {
    let whole = understood(speaker, &[&pieces.concat()]);
    let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
    assert_eq!(understood(speaker, &pieces), whole);
}

/// Reads header blocks of HTTP/2 that one peer sends, and passes on what is in them.
///
/// # Panics
/// When another reads something else of what is passed on.
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

/// Takes the frames of a client, or of a host, of HTTP/2.
///
/// # Panics
/// When it matters how they are cut.
pub fn frames(host: bool, pieces: &[Vec<u8>]) {
    converse(host, pieces);
}

/// Reads the names and the subject of a certificate.
pub fn certificate(der: &[u8]) {
    let certificate = CertificateDer::from(der);
    peer::Names::of(&certificate);
    subject::of(&certificate);
}

/// Normalises a path in one of the ways there are.
///
/// # Panics
/// When a normal path is not left alone, or one that is said to be normal is not.
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

/// Decodes the body of a browser's gRPC request.
///
/// # Panics
/// When it matters how it is cut.
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

/// Parses the headers of a request that steer the connection manager and the router, and rewrites those that are not
/// forwarded as they came.
pub fn request(headers: &[(&str, &[u8])]) {
    let headers = &mut map(headers);
    for trusted_hops in 0..3 {
        conditioning::client::last_trusted(headers, trusted_hops);
    }
    http::read_grpc_timeout(headers);
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

/// Compiles a format string and writes it for a request of which no more is known than its path and its headers.
///
/// # Errors
/// What is wrong with it.
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
