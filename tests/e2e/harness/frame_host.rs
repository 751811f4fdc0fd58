//! An HTTP/2 server at frame level, which can send what no library would.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frames::{DATA, Frame, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, headers, read};

/// Payload of the PING that follows a flood.
const AFTER_FLOOD: &[u8] = b"flooded!";

/// Maximum size of a flood, in bytes; no proxy should read this much.
const MOST: usize = 256 << 20;

/// A step of a server's script.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends frames.
    Say(Vec<Frame>),
    /// Sends bytes, which need not be valid frames.
    Bytes(Vec<u8>),
    /// Sends frames repeatedly without reading, for as long as they are accepted.
    Flood(Vec<Frame>),
    /// Sends frames repeatedly at this interval, until the stream is reset.
    Repeat(Vec<Frame>, Duration),
    /// Waits for the test.
    Wait(Arc<Notify>),
    /// Closes the connection.
    Close,
}

/// A server that runs a script for the first request, on stream 1 of its connection. Other requests
/// get a regular response: status 200 and body `good`.
pub struct FrameHost {
    /// Its address.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl FrameHost {
    /// Starts a server. It begins the first connection with `hello`; RFC 9113 requires SETTINGS.
    pub async fn start(hello: &[Frame], steps: &[Step]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let (hello, steps, counted) = (hello.to_vec(), steps.to_vec(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (hello, steps) = match counted.fetch_add(1, Ordering::Relaxed) {
                    0 => (hello.clone(), steps.clone()),
                    _ => (vec![Frame::new(SETTINGS, 0, 0, &[])], Vec::new()),
                };
                // Errors mean that the client has disconnected.
                tokio::spawn(serve(stream, hello, steps));
            }
        });
        Self {
            address,
            connections,
            task: task.abort_handle(),
        }
    }

    /// Number of connections accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FrameHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, hello: Vec<Frame>, steps: Vec<Step>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    reader.read_exact(&mut [0; PREFACE.len()]).await.ok()?;
    // A small capacity, so that little is read while nobody waits for it.
    let (hear, heard) = mpsc::channel(100);
    tokio::spawn(async move {
        while let Some(frame) = read(&mut reader).await {
            hear.send(frame).await.ok()?;
        }
        Some(())
    });
    let mut connection = Connection { heard, writer };
    connection.say(&hello).await?;
    if !steps.is_empty() {
        connection.next_of(HEADERS).await?;
        for step in &steps {
            connection.act(step).await?;
        }
    }
    loop {
        let stream = connection.next_of(HEADERS).await?.stream;
        let head = headers(stream, &[(":status", "200"), ("content-length", "4")], false);
        connection.say(&[head, Frame::new(DATA, 1, stream, b"good")]).await?;
    }
}

struct Connection {
    heard: mpsc::Receiver<Frame>,
    writer: OwnedWriteHalf,
}

/// Errors of the connection end the script.
impl Connection {
    async fn say(&mut self, frames: &[Frame]) -> Option<()> {
        self.writer.write_all(&bytes(frames)).await.ok()
    }

    /// The next frame of a type.
    async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.heard.recv().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    async fn act(&mut self, step: &Step) -> Option<()> {
        match step {
            Step::Say(frames) => self.say(frames).await,
            Step::Bytes(bytes) => self.writer.write_all(bytes).await.ok(),
            Step::Flood(frames) => self.flood(&bytes(frames)).await,
            Step::Repeat(frames, pause) => loop {
                self.say(frames).await?;
                if let Ok(reset) = timeout(*pause, self.next_of(RST_STREAM)).await {
                    return reset.map(|_| ());
                }
            },
            Step::Wait(told) => {
                told.notified().await;
                Some(())
            }
            Step::Close => None,
        }
    }

    async fn flood(&mut self, bytes: &[u8]) -> Option<()> {
        let mut written = 0;
        while written < MOST {
            let rest = &bytes[written % bytes.len()..];
            match timeout(Duration::from_millis(500), self.writer.write(rest)).await {
                Ok(len) => written += len.ok()?,
                Err(_) => return self.end_of_flood(rest).await,
            }
        }
        panic!("all of {MOST} bytes were taken");
    }

    /// Sends the rest of a partially written frame, and waits until the client has processed the flood: until then it may
    /// accept more only while its own frames are read.
    async fn end_of_flood(&mut self, rest: &[u8]) -> Option<()> {
        let mut rest = rest.to_vec();
        Frame::new(PING, 0, 0, AFTER_FLOOD).write(&mut rest);
        let mut saying = pin!(self.writer.write_all(&rest));
        loop {
            tokio::select! {
                said = &mut saying => break said.ok()?,
                heard = self.heard.recv() => drop(heard?),
            }
        }
        while self.next_of(PING).await?.payload != AFTER_FLOOD {}
        Some(())
    }
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut bytes));
    bytes
}
