//! Checks by TCP connections (`tcp_health_check`).

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::Subject;
use super::{Failure, Outcome, Passed, payload};
use crate::proxy::io::Io;

/// How much is read of a host that does not send what is expected.
const READ: usize = 1 << 20;

/// `TcpHealthCheck`.
#[derive(Debug)]
pub(crate) struct TcpCheck {
    /// `send`. As in Envoy, it is sent only if something is expected.
    pub(crate) send: Bytes,
    /// `receive`; empty: a connection is enough.
    pub(crate) receive: Vec<Bytes>,
}

/// A host's connection.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    read: BytesMut,
}

impl TcpCheck {
    /// Makes an attempt.
    pub(super) async fn attempt(&self, connection: &mut Option<Connection>, subject: Subject<'_>) -> Outcome {
        let exchanged = self.exchange(connection, subject).await;
        let reuse = subject.checked.config().reuse_connection && !self.receive.is_empty();
        connection.take_if(|_| !reuse || exchanged.is_err());
        exchanged.map(|()| Passed::Healthy).map_err(Failure::network)
    }

    async fn exchange(&self, connection: &mut Option<Connection>, subject: Subject<'_>) -> io::Result<()> {
        let ready = match connection.take() {
            Some(ready) => ready,
            None => Connection {
                io: subject.connect().await?.io,
                read: BytesMut::new(),
            },
        };
        if self.receive.is_empty() {
            return Ok(());
        }
        let connection = connection.insert(ready);
        connection.io.write_all(&self.send).await?;
        connection.io.flush().await?;
        while !connection.found(&self.receive) {
            connection.fill().await?;
        }
        Ok(())
    }

    /// Waits for the end of the connection between attempts, which is a failure.
    pub(super) async fn ended(&self, connection: &mut Option<Connection>) -> Failure {
        let Some(open) = connection else {
            return std::future::pending().await;
        };
        while open.fill().await.is_ok() {
            open.found(&self.receive);
        }
        *connection = None;
        Failure::Network
    }
}

impl Connection {
    /// Reads more.
    ///
    /// # Errors
    /// If there is no more, or too much.
    async fn fill(&mut self) -> io::Result<()> {
        if self.read.len() >= READ {
            return Err(io::Error::other("the host sent too much"));
        }
        match self.io.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Whether what is expected was read; the next attempt then starts anew.
    fn found(&mut self, expected: &[Bytes]) -> bool {
        let found = payload::is_in(expected, &self.read);
        if found {
            self.read.clear();
        }
        found
    }
}
