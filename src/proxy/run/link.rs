//! The xDS streams to the control plane: connecting, exchanging, reconnecting.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tonic::Code;

use super::control::{Control, Feed, StreamWaker};
use crate::proxy::config::credential::{self, CredentialError};
use crate::proxy::config::server::Server;
use crate::proxy::stats::ServerStats;
use crate::proxy::tls::TlsOverrides;
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::cluster::{Cluster, Discovery, DnsConfig};
use crate::proxy::upstream::connect::{MadeFor, SendError, connect};
use crate::proxy::upstream::host::{Endpoint, Endpoints, HostAddress, LocalityEndpoints, Target};
use crate::xds::client::message::BadResponse;
use crate::xds::client::stream::{Method, Opening, Stream, StreamError};

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot connect to the control plane: {0}")]
    Connect(Box<str>),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Response(#[from] BadResponse),
}

impl From<SendError> for LinkError {
    fn from(error: SendError) -> Self {
        LinkError::Connect(error.reason)
    }
}

impl LinkError {
    /// Whether the server rejects us, which retrying does not change.
    fn is_refusal(&self) -> bool {
        match self {
            LinkError::Stream(StreamError::Status(status)) => {
                matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
            }
            LinkError::Stream(_) | LinkError::Connect(_) | LinkError::Credential(_) | LinkError::Response(_) => false,
        }
    }
}

/// Keeps a stream open for ever.
pub(super) async fn keep(feed: Feed, server: Server, control: &RefCell<Control>, waker: &StreamWaker) {
    let mut pause = BackOff::new(server.source.back_off);
    let mut waiting_since = Instant::now();
    loop {
        match serve(&feed, &server, control, waker, &mut pause).await {
            Ok(never) => match never {},
            Err(error) => {
                if feed == Feed::Aggregated {
                    let stats = control.borrow().stats.clone();
                    stats.clusters.update_failure.fetch_add(1, Relaxed);
                    stats.listeners.update_failure.fetch_add(1, Relaxed);
                }
                if pause.is_reset() {
                    waiting_since = Instant::now();
                }
                let pause = pause.next(fastrand::f64());
                tell(&feed, waiting_since.elapsed(), &error, pause, &missing(control));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// A restarting server is away only for a moment, which deserves no warning; Envoy waits as long before it warns.
fn tell(feed: &Feed, waiting: Duration, error: &LinkError, pause: Duration, missing: &str) {
    const PATIENCE: Duration = Duration::from_secs(30);
    if waiting > PATIENCE || error.is_refusal() {
        tracing::warn!(%error, ?waiting, missing, "no stream {feed}");
    } else {
        tracing::info!(%error, ?pause, missing, "the stream {feed} was closed");
    }
}

/// What is not in effect for want of a resource of this server: `LDS web: SDS default`.
fn missing(control: &RefCell<Control>) -> String {
    let control = control.borrow();
    let waiting = control.store.waiting().map(|waiting| {
        let missing = waiting.missing.iter().map(|(kind, name)| format!("{kind} {name}"));
        let missing = missing.collect::<Vec<_>>().join(", ");
        format!("{} {}: {missing}", waiting.kind, waiting.name)
    });
    waiting.collect::<Vec<_>>().join("; ")
}

async fn serve(
    feed: &Feed,
    server: &Server,
    control: &RefCell<Control>,
    waker: &StreamWaker,
    pause: &mut BackOff,
) -> Result<std::convert::Infallible, LinkError> {
    let mut to_say = waker.listen();
    let mut stream = open(feed, server, control).await?;
    let _connected = (*feed == Feed::Aggregated).then(|| Connected::new(control.borrow().stats.clone()));
    loop {
        let requests = tokio::select! {
            response = stream.next() => {
                let requests = control.borrow_mut().take(feed, response?, Instant::now())?;
                pause.reset();
                // Another stream may have requests to send as a result.
                waker.tell();
                requests
            }
            // The sender lives as long as `waker`.
            _ = to_say.changed() => control.borrow_mut().requests(feed),
        };
        requests.into_iter().for_each(|request| stream.send(request));
        waker.settled();
    }
}

/// Sets the `connected_state` gauge while it lives.
struct Connected(Arc<ServerStats>);

impl Connected {
    fn new(stats: Arc<ServerStats>) -> Self {
        stats.connected.store(true, Relaxed);
        Self(stats)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.store(false, Relaxed);
    }
}

async fn open(feed: &Feed, server: &Server, control: &RefCell<Control>) -> Result<Stream, LinkError> {
    let metadata = credential::headers(&server.source.metadata, &server.headers)?;
    let cluster = control.borrow().store.newest_cluster(&server.source.cluster).cloned();
    let cluster = cluster.ok_or_else(|| LinkError::Connect("no such cluster".into()))?;
    if let Discovery::Dns(dns) = &cluster.config.discovery {
        let resolved = resolve(dns)
            .await
            .map_err(|error| LinkError::Connect(error.to_string().into()))?;
        let mut control = control.borrow_mut();
        control
            .store
            .put_resolved(&server.source.cluster, &resolved, Instant::now());
        control.settle(Instant::now());
    }
    let connected = dial(&cluster).await?;
    let opening = Opening {
        method: match feed {
            Feed::Aggregated => Method::Aggregated(server.source.variant),
            Feed::Secrets(_) => Method::Secrets(server.source.variant),
        },
        authority: server.source.authority.clone(),
        keepalive: cluster.config.http.keepalive,
        metadata,
    };
    let first = control.borrow_mut().open(feed);
    Ok(Stream::open(connected, opening, first).await?)
}

async fn dial(cluster: &Arc<Cluster>) -> Result<crate::proxy::io::Io, LinkError> {
    let host = cluster.choose(&Choice::default());
    let host = host.ok_or_else(|| LinkError::Connect("no healthy upstream".into()))?;
    Ok(connect(cluster, &host, TlsOverrides::default(), MadeFor::default())
        .await?
        .io)
}

/// Replaces each name among the server's endpoints by an address.
async fn resolve(dns: &DnsConfig) -> io::Result<Endpoints> {
    let mut localities = Vec::new();
    for group in &dns.endpoints.localities {
        let mut endpoints = Vec::new();
        for endpoint in &group.endpoints {
            match &endpoint.target {
                Target::Address(_) => endpoints.push(endpoint.clone()),
                Target::Name(name, port) => {
                    let found = tokio::net::lookup_host((&**name, *port)).await?;
                    endpoints.extend(found.map(|address| Endpoint {
                        target: Target::Address(HostAddress::Ip(address)),
                        ..endpoint.clone()
                    }));
                }
            }
        }
        localities.push(LocalityEndpoints {
            endpoints,
            ..group.clone()
        });
    }
    Ok(Endpoints {
        localities,
        ..dns.endpoints.clone()
    })
}

/// Jittered exponential back-off, as in Envoy.
#[derive(Debug)]
struct BackOff {
    base: Duration,
    longest: Duration,
    next: Duration,
}

impl BackOff {
    fn new((base, longest): (Duration, Duration)) -> Self {
        Self {
            base,
            longest,
            next: base,
        }
    }

    /// The next pause; `chance` is from 0 to 1.
    fn next(&mut self, chance: f64) -> Duration {
        let pause = self.next.mul_f64(chance);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    fn reset(&mut self) {
        self.next = self.base;
    }

    fn is_reset(&self) -> bool {
        self.next == self.base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again() {
        let ms = Duration::from_millis;
        let mut pauses = BackOff::new((ms(100), ms(350)));
        let three = [pauses.next(1.0), pauses.next(0.5), pauses.next(1.0)];
        assert_eq!(three, [ms(100), ms(100), ms(350)]);
        assert_eq!(pauses.next(1.0), ms(350));
        pauses.reset();
        assert_eq!(pauses.next(1.0), ms(100));
    }
}
