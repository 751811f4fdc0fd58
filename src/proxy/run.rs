//! The life of the data plane.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use prost::Message;
use socket2::{Domain, Protocol, Socket, Type};

use super::bootstrap::{self, BootstrapError};
use super::listener::{Bind, ListenAddress, Listener};
use super::store::Store;
use super::worker::{Command, Handle, Worker};
use crate::lifecycle::StopSignals;

/// How a data plane is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bootstrap file.
    pub bootstrap: PathBuf,
    /// How many workers.
    pub concurrency: u64,
}

/// Why a data plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The bootstrap is of no use.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A resource in the bootstrap is refused.
    #[error("the bootstrap's {0} is refused: {1}")]
    Refused(&'static str, String),
    /// A socket or thread cannot be had.
    #[error("{0}: {1}")]
    System(String, io::Error),
}

/// Runs a data plane until it is told to end.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: Options) -> Result<(), ProxyError> {
    let bootstrap = bootstrap::read(&options.bootstrap)?;
    let mut store = Store::default();
    let fixed = bootstrap.static_resources.unwrap_or_default();
    for cluster in &fixed.clusters {
        let put = store.put_cluster(&cluster.encode_to_vec());
        put.map_err(|refusal| ProxyError::Refused("cluster", refusal.to_string()))?;
    }
    let mut listeners = Vec::new();
    for listener in &fixed.listeners {
        let put = store.put_listener(&listener.encode_to_vec());
        listeners.push(put.map_err(|refusal| ProxyError::Refused("listener", refusal.to_string()))?);
    }
    store.publish();
    let workers = (0..options.concurrency)
        .map(|index| Worker::start(index, store.published()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| ProxyError::System("no worker can be started".to_owned(), error))?;
    for listener in &listeners {
        listen(listener, &workers)
            .map_err(|error| ProxyError::System(format!("the listener `{}` cannot be bound", listener.name), error))?;
    }
    let signals = StopSignals::catch();
    let mut signals = signals.map_err(|error| ProxyError::System("signals cannot be caught".to_owned(), error))?;
    signals.next().await;
    Ok(())
}

fn listen(listener: &Listener, workers: &[Handle]) -> io::Result<()> {
    let (Some(bind), ListenAddress::Ip(address)) = (listener.bind, &listener.address) else {
        return Ok(());
    };
    let mut shared = None;
    for worker in workers {
        let socket = match &shared {
            Some(socket) if !bind.reuse_port => Arc::clone(socket),
            Some(_) | None => Arc::new(socket(*address, bind)?),
        };
        shared = Some(socket.clone());
        // A worker that is gone accepts nothing.
        let _ = worker.commands.send(Command::Listen(listener.name.clone(), socket));
    }
    Ok(())
}

fn socket(address: SocketAddr, bind: Bind) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(bind.reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(bind.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
