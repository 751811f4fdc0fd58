//! An HTTP/2 client at frame level, which can send what no library would. See [`super::frame_host`]
//! for the server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::wait::PATIENCE;

/// The client connection preface (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Type of `DATA` frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// Type of `HEADERS` frames (RFC 9113 section 6).
pub const HEADERS: u8 = 1;
/// Type of `PRIORITY` frames (RFC 9113 section 6).
pub const PRIORITY: u8 = 2;
/// Type of `RST_STREAM` frames (RFC 9113 section 6).
pub const RST_STREAM: u8 = 3;
/// Type of `SETTINGS` frames (RFC 9113 section 6).
pub const SETTINGS: u8 = 4;
/// Type of `PUSH_PROMISE` frames (RFC 9113 section 6).
pub const PUSH_PROMISE: u8 = 5;
/// Type of `PING` frames (RFC 9113 section 6).
pub const PING: u8 = 6;
/// Type of `GOAWAY` frames (RFC 9113 section 6).
pub const GOAWAY: u8 = 7;
/// Type of `WINDOW_UPDATE` frames (RFC 9113 section 6).
pub const WINDOW_UPDATE: u8 = 8;
/// Type of `CONTINUATION` frames (RFC 9113 section 6).
pub const CONTINUATION: u8 = 9;

/// A frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Frame type (RFC 9113 section 6).
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Stream identifier.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payload = self.payload[..self.payload.len().min(200)].escape_ascii();
        write!(f, "{}:{}:{} {payload}", self.kind, self.flags, self.stream)
    }
}

impl Frame {
    /// Creates a frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// The status at the start of a response's header block.
    pub fn status(&self) -> u16 {
        // RFC 7541: common statuses are in the static table (appendix A), others are literals with
        // an indexed name.
        match &self.payload[..] {
            [0x88, ..] => 200,
            [0x89, ..] => 204,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            [0x8e, ..] => 500,
            other => panic!("another status: {}", other.escape_ascii()),
        }
    }

    /// Splits a long `HEADERS` frame into `HEADERS` and `CONTINUATION`.
    pub fn continued(self) -> Vec<Self> {
        let pieces: Vec<_> = self.payload.chunks(16_000).collect();
        let frames = pieces.iter().enumerate().map(|(number, piece)| {
            let (kind, flags) = if number == 0 {
                (self.kind, self.flags & !4)
            } else {
                (9, 0)
            };
            let last = number + 1 == pieces.len();
            Self::new(kind, flags | u8::from(last) << 2, self.stream, piece)
        });
        frames.collect()
    }

    /// Appends the serialized frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        out.extend_from_slice(&len[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
    }
}

/// Pseudo-header fields of a request to `web`.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "web"),
        (":path", path),
    ]
}

/// A `HEADERS` frame with these fields, uncompressed; `last` sets END_STREAM.
pub fn headers(stream: u32, fields: &[(&str, &str)], last: bool) -> Frame {
    let mut payload = Vec::new();
    for (name, value) in fields {
        payload.push(0);
        string(&mut payload, name);
        string(&mut payload, value);
    }
    Frame::new(1, 4 | u8::from(last), stream, &payload)
}

/// A string literal without Huffman coding (RFC 7541 sections 5.1 and 5.2).
fn string(out: &mut Vec<u8>, text: &str) {
    let mut rest = match text.len().checked_sub(127) {
        None => {
            out.push(u8::try_from(text.len()).unwrap());
            return out.extend_from_slice(text.as_bytes());
        }
        Some(rest) => rest,
    };
    out.push(127);
    while rest >= 128 {
        out.push(u8::try_from(rest % 128 + 128).unwrap());
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
    out.extend_from_slice(text.as_bytes());
}

/// A client's connection.
pub struct Frames {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Frames {
    /// Connects and sends the preface.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut hello = PREFACE.to_vec();
        Frame::new(4, 0, 0, &[]).write(&mut hello);
        writer.write_all(&hello).await.unwrap();
        Self { reader, writer }
    }

    /// Sends frames, ignoring errors.
    pub async fn send(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        // Errors show when reading. The timeout is for a peer that no longer reads.
        let _ = timeout(Duration::from_secs(2), self.writer.write_all(&bytes)).await;
    }

    /// Sends frames; returns whether the peer accepts them.
    pub async fn takes(&mut self, frames: &[Frame]) -> bool {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        let sent = timeout(Duration::from_millis(500), self.writer.write_all(&bytes)).await;
        sent.is_ok_and(|sent| sent.is_ok())
    }

    /// The next frame of one of these types; `None` at the end of the connection.
    pub async fn next_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = read(&mut self.reader);
        timeout(PATIENCE, read).await.expect("neither a frame nor an end")
    }
}

/// Reads a frame; `None` at the end of the connection.
pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let mut payload = vec![0; number(&head[..3]) as usize];
    reader.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: number(&head[5..]) & 0x7fff_ffff,
        payload,
    })
}
