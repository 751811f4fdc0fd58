//! Requests that the sidecar process itself, rather than its data plane, makes to the control plane.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::join::Token;
use crate::cli::value::{Endpoint, Host};
use crate::clock::Clock;
use crate::name::TrustDomain;
use crate::pki::{TrustBundle, server_identity};
use crate::tls::{SpiffeMatcher, TlsError, client_config, handshake_failure};
use crate::xds::client::joining;
use crate::xds::client::stream::StreamError;
use crate::xds::joining::Probe;

/// Request timeout.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot connect to the control plane: {0}")]
    Connect(String),
    #[error("{0}")]
    Refused(#[from] StreamError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("the control plane did not respond within {PATIENCE:?}")]
    Late,
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        AskError::Connect(handshake_failure(&error))
    }
}

/// The control plane and its credentials.
#[derive(Clone, Debug)]
pub(super) struct ControlPlane {
    /// Its xDS address.
    pub server: Endpoint,
    /// The root certificates that verify it.
    pub roots: TrustBundle,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Source address of connections: the workload's address.
    pub from: std::net::IpAddr,
}

impl ControlPlane {
    /// Exchanges a token for a new one.
    pub(super) async fn renew(&self, token: &Token) -> Result<String, AskError> {
        let asked = async { Ok(joining::renew(self.connect().await?, &token.text).await?) };
        timeout(PATIENCE, asked).await.unwrap_or(Err(AskError::Late))
    }

    /// Announces the workload's shutdown.
    pub(super) async fn leave(&self, token: &Token) -> Result<(), AskError> {
        let request = async { Ok(joining::leave(self.connect().await?, &token.text).await?) };
        timeout(PATIENCE, request).await.unwrap_or(Err(AskError::Late))
    }

    /// Reports whether the application is ready; `run` is the sidecar process's number in the node metadata.
    /// Returns the readiness probe of the workload's group.
    pub(super) async fn ready(&self, token: &Token, run: u64, ready: bool) -> Result<Option<Probe>, AskError> {
        let request = async { Ok(joining::ready(self.connect().await?, &token.text, run, ready).await?) };
        timeout(PATIENCE, request).await.unwrap_or(Err(AskError::Late))
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, AskError> {
        let Endpoint { host, port } = &self.server;
        let address = match host {
            Host::Address(address) => SocketAddr::new(*address, *port),
            Host::Name(name) => {
                let mut found = tokio::net::lookup_host((name.as_str(), *port)).await?;
                let none = || AskError::Connect(format!("{name} has no address"));
                found.next().ok_or_else(none)?
            }
        };
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.from.is_ipv4() == address.is_ipv4() {
            socket.bind(SocketAddr::new(self.from, 0))?;
        }
        let expected = SpiffeMatcher::from(&server_identity(&self.trust_domain));
        let config = client_config(&self.roots, expected, None, &Clock::system())?;
        let name = match host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        };
        let stream = socket.connect(address).await?;
        Ok(TlsConnector::from(config).connect(name, stream).await?)
    }
}
