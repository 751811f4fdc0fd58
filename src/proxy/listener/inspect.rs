//! The TLS and HTTP inspectors: detect TLS with its SNI and ALPN, or HTTP, in the first bytes of a connection.
//!
//! The bytes are read, not peeked at, and passed on in the read buffer.

use std::future::Future;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Inspection, ListenerStats, PortRange};
use crate::proxy::http::connection::PREFACE;
use crate::proxy::http::http1::METHODS;
use crate::proxy::tls::{Hello, client_hello};

/// Size of the first read; doubled until the result is known.
const FIRST: usize = 2 * 1024;
/// How much is read at most.
const LONGEST: usize = 16 * 1024;

/// The result of inspection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Whether it is TLS.
    pub(super) tls: bool,
    /// SNI, in lower case.
    pub(super) server_name: Option<Box<str>>,
    /// The client's ALPN list, or the HTTP version it speaks in clear text.
    pub(super) alpn: Vec<Vec<u8>>,
}

/// Why a connection closes before a filter chain is matched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// `listener_filters_timeout` is reached.
    #[error("the client did not send what a filter chain is chosen by in time")]
    TimedOut,
    /// The client closed it.
    #[error("the client closed its connection before a filter chain was chosen")]
    Closed,
    /// It has no valid PROXY protocol header.
    #[error("invalid PROXY protocol header")]
    Malformed,
    /// Its ClientHello is too long.
    #[error("the TLS ClientHello is too large")]
    TooLong,
    /// It failed.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// What to detect.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    tls: bool,
    http: bool,
}

/// Inspects a connection to a port. The buffer holds what was read, before and by this.
///
/// # Errors
/// If the connection is to be closed.
pub(crate) async fn inspect(
    stream: &mut (impl AsyncRead + Unpin),
    inspection: &Inspection,
    port: u16,
    buffer: &mut BytesMut,
) -> Result<Found, Stopped> {
    let looks = |except: &Option<Vec<PortRange>>| except.as_ref().is_some_and(|except| !holds(except, port));
    let wanted = Wanted {
        tls: looks(&inspection.tls),
        http: looks(&inspection.http),
    };
    if !wanted.tls && !wanted.http {
        return Ok(Found::default());
    }
    read(stream, wanted, buffer).await
}

/// Runs a listener filter under the listener's timeout. A connection that continues after the timeout gets the default
/// result.
/// # Errors
/// If the connection is to be closed.
pub(super) async fn in_time<T: Default>(
    inspection: &Inspection,
    begun: Instant,
    stats: &ListenerStats,
    looks: impl Future<Output = Result<T, Stopped>>,
) -> Result<T, Stopped> {
    let Some(end) = inspection.timeout.and_then(|limit| begun.checked_add(limit)) else {
        return looks.await;
    };
    // An earlier filter has already used up the time and counted the timeout.
    let late = end <= Instant::now();
    let Ok(found) = tokio::time::timeout_at(end.into(), looks).await else {
        stats.inspection_timeout.fetch_add(u64::from(!late), Relaxed);
        // Perhaps the server speaks first.
        return match inspection.continue_on_timeout {
            true => Ok(T::default()),
            false => Err(Stopped::TimedOut),
        };
    };
    found
}

fn holds(ranges: &[PortRange], port: u16) -> bool {
    ranges
        .iter()
        .any(|(start, end)| *start <= port && u32::from(port) < *end)
}

async fn read(stream: &mut (impl AsyncRead + Unpin), wanted: Wanted, buffer: &mut BytesMut) -> Result<Found, Stopped> {
    loop {
        if !buffer.is_empty()
            && let Some(found) = look(buffer, wanted)
        {
            return Ok(found);
        }
        if buffer.len() >= LONGEST {
            // As in Envoy, a ClientHello that is still incomplete closes the connection.
            return match wanted.tls && client_hello(buffer) == Hello::Partial {
                true => Err(Stopped::TooLong),
                false => Ok(Found::default()),
            };
        }
        if buffer.len() == buffer.capacity() {
            buffer.reserve(buffer.len().max(FIRST));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Stopped::Closed);
        }
    }
}

/// The result for these bytes; `None`: more are needed.
fn look(bytes: &[u8], wanted: Wanted) -> Option<Found> {
    if wanted.tls {
        match client_hello(bytes) {
            Hello::Partial => return None,
            Hello::Complete { sni, alpn } => {
                return Some(Found {
                    tls: true,
                    server_name: sni.map(Into::into),
                    alpn,
                });
            }
            Hello::NotTls => {}
        }
    }
    if !wanted.http {
        return Some(Found::default());
    }
    let protocol = match http(bytes) {
        Http::Partial => return None,
        Http::Is(protocol) => vec![protocol.as_bytes().to_vec()],
        Http::Not => Vec::new(),
    };
    Some(Found {
        alpn: protocol,
        ..Default::default()
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Http {
    Not,
    /// Undecided: more bytes are needed.
    Partial,
    /// HTTP, by Envoy's name for the version.
    Is(&'static str),
}

fn http(bytes: &[u8]) -> Http {
    if bytes.starts_with(PREFACE) {
        return Http::Is("h2c");
    }
    if PREFACE.starts_with(bytes) {
        return Http::Partial;
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => request_line(&bytes[..end]),
        None if may_begin_request(bytes) => Http::Partial,
        None => Http::Not,
    }
}

/// Checks a complete request line.
fn request_line(line: &[u8]) -> Http {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Http::Not;
    };
    let printable = !target.is_empty() && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if !METHODS.contains(&method) || !printable {
        return Http::Not;
    }
    match version {
        b"HTTP/1.1" => Http::Is("http/1.1"),
        b"HTTP/1.0" => Http::Is("http/1.0"),
        _ => Http::Not,
    }
}

/// Whether an incomplete request line starts with a method or a part of one.
fn may_begin_request(bytes: &[u8]) -> bool {
    match bytes.iter().position(|byte| *byte == b' ') {
        Some(end) => METHODS.contains(&&bytes[..end]),
        None => METHODS.iter().any(|method| method.starts_with(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    fn both() -> Inspection {
        Inspection {
            tls: Some(Vec::new()),
            http: Some(Vec::new()),
            timeout: Some(Duration::from_millis(20)),
            continue_on_timeout: true,
            ..Default::default()
        }
    }

    fn protocol(name: &str) -> Found {
        Found {
            alpn: vec![name.as_bytes().to_vec()],
            ..Default::default()
        }
    }

    #[test]
    fn http_is_told_by_its_first_line() {
        assert_eq!(http(b"GET / HTTP/1.1\r\n"), Http::Is("http/1.1"));
        assert_eq!(http(b"POST /a?b HTTP/1.0\n"), Http::Is("http/1.0"));
        assert_eq!(http(PREFACE), Http::Is("h2c"));
        for not in [
            &b"GET /\r\n"[..],
            b"*1\r\n$4\r\nPING\r\n",
            b"SSH-2.0-x\r\n",
            b"GET / HTTP/1.1 \r\n",
            b"GET  HTTP/1.1\r\n",
            b"get / HTTP/1.1\r\n",
            b"GET / HTTP/2.0\r\n",
            b"\r\n",
            b"\x16\x03\x01",
            b"GETX",
        ] {
            assert_eq!(http(not), Http::Not, "{}", not.escape_ascii());
        }
    }

    #[test]
    fn every_start_of_http_may_become_http() {
        for whole in [&b"UNSUBSCRIBE /x HTTP/1.1\r\n"[..], PREFACE] {
            for len in 0..whole.len() {
                assert_eq!(http(&whole[..len]), Http::Partial, "{}", whole[..len].escape_ascii());
            }
        }
    }

    /// What is found in time, and what was read.
    async fn looked(
        stream: &mut (impl AsyncRead + Unpin),
        inspection: &Inspection,
        port: u16,
    ) -> Result<(Found, BytesMut), Stopped> {
        let mut buffer = BytesMut::new();
        let looks = inspect(stream, inspection, port, &mut buffer);
        let found = in_time(inspection, Instant::now(), &ListenerStats::default(), looks).await?;
        Ok((found, buffer))
    }

    #[tokio::test]
    async fn what_was_read_is_given_on() {
        let (mut client, mut server) = duplex(64);
        client.write_all(b"GE").await.unwrap();
        let writing = tokio::spawn(async move {
            client.write_all(b"T / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
            client
        });
        let (found, read) = looked(&mut server, &both(), 80).await.unwrap();
        assert_eq!(found, protocol("http/1.1"));
        assert!(read.starts_with(b"GET / HTTP/1.1\r\n"));
        drop(writing.await.unwrap());
    }

    #[tokio::test]
    async fn who_waits_for_the_server_goes_on_after_a_while() {
        let (client, mut server) = duplex(64);
        let begun = Instant::now();
        let (found, read) = looked(&mut server, &both(), 3306).await.unwrap();
        assert_eq!((found, read.len()), (Found::default(), 0));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let ends = Inspection {
            continue_on_timeout: false,
            ..both()
        };
        let stopped = looked(&mut server, &ends, 3306).await.unwrap_err();
        assert!(matches!(stopped, Stopped::TimedOut));
        drop(client);
    }

    #[tokio::test]
    async fn ports_that_are_left_alone_are_not_waited_for() {
        let (_client, mut server) = duplex(64);
        let except = Inspection {
            tls: Some(vec![(3306, 3307)]),
            http: Some(vec![(3000, 4000)]),
            timeout: None,
            ..both()
        };
        assert!(looked(&mut server, &except, 3306).await.is_ok());
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_told_from_one_that_waits() {
        let (client, mut server) = duplex(64);
        drop(client);
        let stopped = looked(&mut server, &both(), 80).await.unwrap_err();
        assert!(matches!(stopped, Stopped::Closed));
    }

    #[tokio::test]
    async fn what_never_decides_is_bounded() {
        let (mut client, mut server) = duplex(1 << 20);
        client.write_all(b"GET /").await.unwrap();
        client.write_all(&vec![b'a'; 1 << 19]).await.unwrap();
        let (found, read) = looked(&mut server, &both(), 80).await.unwrap();
        assert_eq!(found, Found::default());
        assert!(read.len() >= LONGEST && read.len() <= 2 * LONGEST, "{}", read.len());
    }

    #[tokio::test]
    async fn tls_of_which_so_much_says_too_little_ends() {
        let (mut client, mut server) = duplex(1 << 20);
        client.write_all(&[22, 3, 1, 0, 4, 1, 0, 0x40, 0]).await.unwrap();
        client.write_all(&[22, 3, 1, 0, 1, 0].repeat(1 << 13)).await.unwrap();
        let stopped = looked(&mut server, &both(), 80).await.unwrap_err();
        assert!(matches!(stopped, Stopped::TooLong));
    }
}
