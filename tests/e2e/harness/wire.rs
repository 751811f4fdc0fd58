//! HTTP/1 clients and servers at byte level, which can send what no library would.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::wait::PATIENCE;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The status.
    pub status: u16,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body, delimited by `content-length` or the end of the connection.
    pub body: String,
}

impl Said {
    /// Value of a header, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A client's connection.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends bytes, ignoring errors.
    pub async fn send(&mut self, bytes: &[u8]) {
        // Errors show when reading.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Shuts down the sending side.
    pub async fn finish(&mut self) {
        // Errors show when reading.
        let _ = self.stream.shutdown().await;
    }

    /// The next response; `None` if the connection ends.
    pub async fn answer(&mut self) -> Option<Said> {
        let mut said = self.head().await?;
        if said.status < 200 {
            // It has no body; further bytes belong to the next response.
            return Some(said);
        }
        let len = said
            .headers
            .get("content-length")
            .map(|len| len.parse::<usize>().unwrap());
        while self.read.len() < len.unwrap_or(usize::MAX) && self.more().await {}
        let len = len.unwrap_or(self.read.len()).min(self.read.len());
        let body = self.read.drain(..len).collect::<Vec<_>>();
        said.body = String::from_utf8_lossy(&body).into_owned();
        Some(said)
    }

    /// The head of the next response; `None` if the connection ends.
    pub async fn head(&mut self) -> Option<Said> {
        let head = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.read.drain(..end + 4).collect::<Vec<_>>();
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<_, _> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{head}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Some(Said {
            status,
            headers,
            body: String::new(),
        })
    }

    /// The next `len` bytes; fewer if the connection ends.
    pub async fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len && self.more().await {}
        let len = len.min(self.read.len());
        self.read.drain(..len).collect()
    }

    /// Reads to the end of the connection.
    pub async fn end(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn more(&mut self) -> bool {
        let mut room = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut room)).await;
        // A reset counts as the end.
        let len = read.expect("neither an answer nor an end").unwrap_or(0);
        self.read.extend_from_slice(&room[..len]);
        len > 0
    }
}

/// What a [`Host`] does after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request.
    Goes,
    /// Closes the connection.
    Closes,
    /// Resets the connection.
    Resets,
    /// Does nothing more.
    Stalls,
}

/// A server that responds to a request for `/<n>` with the n-th of its responses.
pub struct Host {
    /// Its address.
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Host {
    /// Starts a server.
    pub async fn start(answers: Vec<(Vec<u8>, Then)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answers = answers.clone();
                // Errors mean that the client has disconnected.
                tokio::spawn(async move { serve(stream, &answers).await.ok() });
            }
        });
        Self {
            address,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes the next head off a connection, without the empty line at its end; `None` if the
/// connection ends.
pub async fn next_head(stream: &mut TcpStream, read: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            read.drain(..end + 4);
            return Ok(Some(head));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

async fn serve(mut stream: TcpStream, answers: &[(Vec<u8>, Then)]) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut read)).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        let (answer, then) = &answers[path.parse::<usize>().unwrap_or_else(|_| panic!("{text}"))];
        stream.write_all(answer).await?;
        match then {
            Then::Goes => {}
            Then::Closes => return Ok(()),
            Then::Resets => return stream.set_zero_linger(),
            Then::Stalls => std::future::pending().await,
        }
    }
}
