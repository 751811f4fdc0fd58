//! Copying bytes between two connections, in both directions.
//!
//! An idle connection holds no buffer: each thread reads into one buffer and writes from it at once. Only what the
//! other side does not take is kept, and nothing more is read until that is written.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Size of a read.
const CHUNK: usize = 64 * 1024;

thread_local! {
    /// The thread's read buffer.
    static CHUNK_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to host.
    Up,
    /// Host to client.
    Down,
}

/// Why copying ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The idle timeout was reached.
    #[error("idle for too long")]
    Idle,
    /// The downstream connection failed.
    #[error("the client: {0}")]
    Client(io::Error),
    /// The upstream connection failed.
    #[error("the host: {0}")]
    Host(io::Error),
}

/// Copies bytes in both directions until both have ended, and reports their numbers. A half-close is passed on: the
/// other direction may continue.
///
/// # Errors
/// If a connection fails, or no bytes were copied for `idle`.
pub(crate) async fn relay<A, B>(
    client: &mut A,
    host: &mut B,
    idle: Option<Duration>,
    mut note: impl FnMut(Direction, usize),
) -> Result<(), Broken>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let mut last = Instant::now();
    let mut timer = pin!(idle.map(tokio::time::sleep));
    poll_fn(|cx| {
        let mut moved = 0;
        let up_ended = up.poll(cx, client, host, |bytes| {
            moved += bytes;
            note(Direction::Up, bytes);
        });
        // What was received from the host is forwarded even if the client's direction failed.
        let down_ended = down.poll(cx, host, client, |bytes| {
            moved += bytes;
            note(Direction::Down, bytes);
        });
        let up_ended = broken(up_ended, Broken::Client, Broken::Host)?;
        let down_ended = broken(down_ended, Broken::Host, Broken::Client)?;
        if up_ended && down_ended {
            return Poll::Ready(Ok(()));
        }
        if moved > 0 {
            last = Instant::now();
        }
        match (idle, timer.as_mut().as_pin_mut()) {
            (Some(idle), Some(timer)) => expired(cx, timer, last + idle).map(|()| Err(Broken::Idle)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Whether a direction has failed.
fn broken(
    ended: Poll<Result<(), FlowError>>,
    reading: fn(io::Error) -> Broken,
    writing: fn(io::Error) -> Broken,
) -> Result<bool, Broken> {
    match ended {
        Poll::Pending => Ok(false),
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(FlowError::Read(error))) => Err(reading(error)),
        Poll::Ready(Err(FlowError::Write(error))) => Err(writing(error)),
    }
}

/// Waits until `due`, which may have moved since the timer was set. The timer is reset only when it fires.
fn expired(cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>, due: Instant) -> Poll<()> {
    while timer.as_mut().poll(cx).is_ready() {
        if due <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(due);
    }
    Poll::Pending
}

/// The state of one direction.
#[derive(Debug, Default)]
struct Flow {
    /// Bytes read; those from `written` on are unwritten.
    held: Vec<u8>,
    written: usize,
    unflushed: bool,
    ended: bool,
    done: bool,
}

enum FlowError {
    Read(io::Error),
    Write(io::Error),
}

impl Flow {
    /// Copies what it can; ready when everything is copied and the end was passed on.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        mut note: impl FnMut(usize),
    ) -> Poll<Result<(), FlowError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.done {
            ready!(self.write_held(cx, to)).map_err(FlowError::Write)?;
            if self.ended {
                // A peer that has gone needs no shutdown.
                drop(ready!(Pin::new(&mut *to).poll_shutdown(cx)));
                self.done = true;
                break;
            }
            let mut chunk = CHUNK_BUFFER.take();
            chunk.resize(CHUNK, 0);
            let moved = self.pass_on(cx, from, to, &mut chunk);
            CHUNK_BUFFER.set(chunk);
            match moved {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(bytes)) => note(bytes),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.held = Vec::new();
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(FlowError::Write)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes that; keeps what is not taken.
    fn pass_on<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        chunk: &mut [u8],
    ) -> Poll<Result<usize, FlowError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(chunk);
        match ready!(Pin::new(from).poll_read(cx, &mut buffer)) {
            Ok(()) => {}
            // TLS that ends without close_notify.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            Err(error) => return Poll::Ready(Err(FlowError::Read(error))),
        }
        let read = buffer.filled();
        let mut written = 0;
        while written < read.len() {
            match Pin::new(&mut *to).poll_write(cx, &read[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(FlowError::Write(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(some)) => written += some,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Write(error))),
                Poll::Pending => break,
            }
        }
        self.unflushed |= written > 0;
        self.written = 0;
        self.held.clear();
        self.held.extend_from_slice(&read[written..]);
        Poll::Ready(Ok(read.len()))
    }

    fn write_held<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let some = ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.written..]))?;
            if some == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += some;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A relay's end, and how many bytes went up and down.
    type Ended = tokio::task::JoinHandle<(Result<(), Broken>, [usize; 2])>;

    /// A relay in a task, with its client and host.
    fn relayed(room: usize, idle: Option<Duration>) -> (DuplexStream, DuplexStream, Ended) {
        let (client, mut near) = duplex(room);
        let (mut far, host) = duplex(room);
        let task = tokio::spawn(async move {
            let mut bytes = [0; 2];
            let note = |way, some| bytes[usize::from(way == Direction::Down)] += some;
            let result = relay(&mut near, &mut far, idle, note).await;
            (result, bytes)
        });
        (client, host, task)
    }

    #[tokio::test]
    async fn both_directions_are_passed_on_and_counted() {
        let (mut client, mut host, task) = relayed(1024, None);
        client.write_all(b"hello").await.unwrap();
        let mut five = [0; 5];
        host.read_exact(&mut five).await.unwrap();
        host.write_all(b"hi").await.unwrap();
        let mut two = [0; 2];
        client.read_exact(&mut two).await.unwrap();
        drop((client, host));
        let (result, bytes) = task.await.unwrap();
        assert!(result.is_ok());
        assert_eq!((&five, &two, bytes), (b"hello", b"hi", [5, 2]));
    }

    #[tokio::test]
    async fn an_end_is_passed_on_and_the_other_direction_goes_on() {
        let (mut client, mut host, task) = relayed(1024, None);
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        host.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"all");
        host.write_all(b"answer").await.unwrap();
        host.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        assert!(task.await.unwrap().0.is_ok());
    }

    #[tokio::test]
    async fn what_a_slow_reader_does_not_take_stays_in_order() {
        let (mut client, mut host, task) = relayed(100, None);
        let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let to_send = sent.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&to_send).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut got = Vec::new();
        host.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        drop((writing.await.unwrap(), host));
        assert_eq!(task.await.unwrap().1, [200_000, 0]);
    }

    #[tokio::test]
    async fn silence_ends_a_connection_and_bytes_keep_it() {
        let limit = Duration::from_millis(100);
        let (mut client, mut host, task) = relayed(1024, Some(limit));
        let begun = Instant::now();
        while begun.elapsed() < 2 * limit {
            client.write_all(b"x").await.unwrap();
            host.read_exact(&mut [0]).await.unwrap();
        }
        let (result, _) = task.await.unwrap();
        assert!(matches!(result, Err(Broken::Idle)));
    }

    #[tokio::test]
    async fn an_answer_is_delivered_even_if_the_host_takes_nothing_more() {
        let (mut client, mut host, task) = relayed(1024, None);
        host.write_all(b"too much").await.unwrap();
        drop(host);
        client.write_all(b"more").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"too much");
        assert!(matches!(task.await.unwrap().0, Err(Broken::Host(_))));
    }
}
