//! An HTTP/1.1 server that is scripted by request headers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::wire::next_head;

/// Script for requests without one: read the request and respond.
const USUAL: &str = "take; say HTTP/1.1 200 OK~content-length: 2~~ok";

/// An HTTP/1.1 server that runs the script in `x-script`, with steps separated by `;`: `wait
/// <milliseconds>`, `take` (read the whole body), `say <text>` with `~` for CRLF, `flood <KiB>`,
/// `stall`, `close`. Stops on drop.
pub struct Scripted {
    /// Its address.
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Scripted {
    /// Starts a server.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let seen = heads.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Errors mean that the client has disconnected.
                connections.spawn(serve(stream, seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            heads,
            task: task.abort_handle(),
        }
    }

    /// Request heads received so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut read = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut read).await? {
        heads.lock().unwrap().push(head.clone());
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(one, _)| one.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        let mut left: usize = header("content-length").map_or(0, |len| len.parse().unwrap());
        let script = header("x-script").unwrap_or_else(|| USUAL.to_owned());
        for step in script.split(';').map(str::trim) {
            match step.split_once(' ').unwrap_or((step, "")) {
                ("wait", time) => tokio::time::sleep(Duration::from_millis(time.parse().unwrap())).await,
                ("say", text) => stream.write_all(text.replace('~', "\r\n").as_bytes()).await?,
                ("flood", size) => {
                    let piece = [b'a'; 1024];
                    for _ in 0..size.parse().unwrap() {
                        stream.write_all(&piece).await?;
                    }
                }
                ("take", _) => {
                    while read.len() < left {
                        if stream.read_buf(&mut read).await? == 0 {
                            return Ok(());
                        }
                    }
                    read.drain(..left);
                    left = 0;
                }
                ("stall", _) => std::future::pending().await,
                ("close", _) => return Ok(()),
                other => panic!("{other:?}"),
            }
        }
    }
    Ok(())
}
