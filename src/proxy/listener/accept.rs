//! The accept loop of a listener in a worker.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::limit::ConnectionLimit;
use super::serve::serve;
use crate::proxy::io::Socket;
use crate::proxy::worker::Worker;

/// How long accepting pauses when file descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How many connections are accepted in a row by default before others are served.
const AT_ONCE: u32 = 16;

/// A listening socket.
#[derive(Clone, Debug)]
pub(crate) enum Listening {
    /// Of TCP.
    Tcp(Arc<std::net::TcpListener>),
    /// A Unix domain socket.
    Unix(Arc<std::os::unix::net::UnixListener>),
}

/// The same, registered with a worker's runtime.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: &Listening) -> io::Result<Self> {
        Ok(match socket {
            Listening::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket.try_clone()?)?),
            Listening::Unix(socket) => Self::Unix(UnixListener::from_std(socket.try_clone()?)?),
        })
    }

    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

/// Accepts connections for a listener until the task is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, name: Arc<str>, socket: Listening) {
    let acceptor = match Acceptor::new(&socket) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, listener = %name, "failed to use a listening socket"),
    };
    let (mut exhausted, mut accepted) = (false, 0);
    loop {
        match acceptor.accept().await {
            Ok(stream) => {
                exhausted = false;
                // The listener is gone: the connection closes.
                let Some(listener) = worker.listener(&name) else {
                    continue;
                };
                let at_once = listener.accept_at_once.unwrap_or(AT_ONCE);
                let limit = worker.limit.as_ref().filter(|_| !listener.unlimited);
                let admitted = limit.map(ConnectionLimit::admit);
                if matches!(admitted, Some(None)) {
                    listener.stats.global_overflow.fetch_add(1, Relaxed);
                    drop(stream);
                } else {
                    let served = serve(worker.clone(), listener, stream);
                    tokio::task::spawn_local(async move {
                        let _counted = admitted;
                        served.await;
                    });
                }
                accepted += 1;
                if accepted >= at_once {
                    accepted = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, listener = %name, "a connection ended before it was accepted");
            }
            Err(error) => {
                if !exhausted {
                    tracing::warn!(%error, listener = %name, "failed to accept connections; retrying");
                }
                exhausted = true;
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Whether an error concerns one connection only, so that accepting can go on at once (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_errors_of_the_system_make_accepting_rest() {
        let of_one = |errno: Errno| is_of_one_connection(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(of_one(Errno::CONNABORTED) && of_one(Errno::PERM) && of_one(Errno::HOSTUNREACH));
        assert!(!of_one(Errno::MFILE) && !of_one(Errno::NFILE) && !of_one(Errno::NOBUFS) && !of_one(Errno::NOMEM));
    }
}
