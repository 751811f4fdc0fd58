//! One connection through the TCP proxy: choosing and connecting to a host, copying, access logs.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh64::xxh64;

use super::relay::{Broken, Direction, relay};
use super::{TcpProxy, TcpStats};
use crate::proxy::connection::{CloseType, Connection, Stream, UpstreamInfo};
use crate::proxy::flags::Flags;
use crate::proxy::format::Context;
use crate::proxy::io::Io;
use crate::proxy::io::metered::Metered;
use crate::proxy::tls::TlsOverrides;
use crate::proxy::upstream::balance::Choice;
use crate::proxy::upstream::balance::outlier::Report;
use crate::proxy::upstream::connect::{self, MadeFor, Open};
use crate::proxy::upstream::host::Busy;
use crate::proxy::upstream::proxy_protocol::Ends;
use crate::proxy::worker::Worker;
use crate::proxy::worker::drain::Draining;

/// Serves a connection to its end.
pub(crate) async fn serve(io: Io, proxy: &TcpProxy, connection: &Connection, draining: &Draining, worker: &Rc<Worker>) {
    proxy.stats.cx_total.fetch_add(1, Relaxed);
    let mut io = Metered::new(io, &*proxy.stats);
    let mut session = Session {
        proxy,
        connection,
        stream: Stream::new(None),
    };
    let limit = async {
        match proxy.max_duration {
            Some(limit) => tokio::time::sleep_until((connection.start + limit).into()).await,
            None => std::future::pending().await,
        }
    };
    let drained = async {
        draining.wait().await;
        tokio::time::sleep(worker.drain_time()).await;
    };
    let cut = tokio::select! {
        biased;
        () = session.run(&mut io) => None,
        () = limit => Some(CloseReason::Duration),
        () = drained => Some(CloseReason::Drained),
    };
    if let Some(cut) = cut {
        session.cut_off(cut);
    }
    session.log();
}

/// Why a connection is closed by the proxy.
#[derive(Clone, Copy)]
enum CloseReason {
    Duration,
    Drained,
}

/// The state of a connection.
struct Session<'a> {
    proxy: &'a TcpProxy,
    connection: &'a Connection,
    stream: Stream,
}

impl Session<'_> {
    async fn run(&mut self, io: &mut Metered<&TcpStats>) {
        let Some((mut host, _busy)) = self.connect().await else {
            return;
        };
        let stream = &mut self.stream;
        let note = |way, bytes| match way {
            Direction::Up => stream.bytes_received += bytes as u64,
            Direction::Down => stream.bytes_sent += bytes as u64,
        };
        let ended = relay(io, &mut host, self.proxy.idle_timeout, note).await;
        if let Err(broken) = ended {
            self.broke(&broken, io, &host);
        }
    }

    /// Connects to a host, which then counts the connection as active. `None`: no host could be connected to, and the
    /// reason is recorded.
    async fn connect(&mut self) -> Option<(Metered<Open>, Busy)> {
        for _ in 0..self.proxy.max_connect_attempts {
            let Some(cluster) = self.proxy.choose().and_then(|slot| slot.load_full()) else {
                self.proxy.stats.cx_no_route.fetch_add(1, Relaxed);
                return self.fails(Flags::NO_CLUSTER, "tcp_initializion_failure:3");
            };
            self.stream.cluster = Some(cluster.clone());
            let Some(permit) = cluster.breakers.of(false).enter(|breaker| &breaker.connections) else {
                cluster.stats.cx_overflow.fetch_add(1, Relaxed);
                return self.fails(Flags::UPSTREAM_OVERFLOW, "tcp_initializion_failure:2");
            };
            let Some(host) = cluster.choose(&self.choice()) else {
                cluster.stats.cx_none_healthy.fetch_add(1, Relaxed);
                return self.fails(Flags::NO_HEALTHY_UPSTREAM, "tcp_initializion_failure:1");
            };
            self.stream.earlier.extend(self.stream.host.replace(host.clone()));
            self.stream.attempts += 1;
            let ends = Ends::of(self.connection);
            let made_for = MadeFor {
                source: self.connection.source,
                ends: Some(&ends),
            };
            match connect::connect_with(&cluster, &host, TlsOverrides::default(), made_for, permit).await {
                Ok(link) => {
                    cluster.report(&host, Report::Connected);
                    let (near, protocol) = (link.near.clone(), None);
                    self.stream.carried.replace(Some(UpstreamInfo { near, protocol }));
                    return Some((Metered::new(link.io, link.open), Busy::begin(&cluster.stats, &host)));
                }
                Err(error) => {
                    cluster.report(&host, Report::Failure(error.kind));
                    self.stream.flags.set(Flags::UPSTREAM_CONNECTION_FAILURE);
                    self.stream.transport_failure = error.transport().map(Into::into);
                }
            }
        }
        self.fails(Flags::RETRY_LIMIT_EXCEEDED, "tcp_initializion_failure:0")
    }

    /// Records why connecting failed, in Envoy's words.
    fn fails<T>(&mut self, flag: Flags, reason: &'static str) -> Option<T> {
        self.stream.flags.set(flag);
        self.stream.local_close = Some(reason);
        None
    }

    fn choice(&self) -> Choice<'static> {
        let client = self.connection.remote.ip().filter(|_| self.proxy.hash_source_ip);
        Choice {
            hash: client.map(|ip| xxh64(ip.to_string().as_bytes(), 0)),
            destination: self.connection.local.socket(),
            ..Default::default()
        }
    }

    /// One side failed, or both were idle: a reset is passed on as a reset.
    fn broke(&mut self, broken: &Broken, client: &Metered<&TcpStats>, host: &Metered<Open>) {
        match broken {
            Broken::Idle => {
                self.proxy.stats.idle_timeout.fetch_add(1, Relaxed);
                self.stream.local_close = Some("tcp_session_idle_timeout");
            }
            Broken::Client(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                self.stream.downstream_close = CloseType::RemoteReset;
                host.reset_when_closed();
            }
            Broken::Host(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                self.stream.flags.set(Flags::UPSTREAM_REMOTE_RESET);
                self.stream.upstream_close = CloseType::RemoteReset;
                self.stream.downstream_close = CloseType::LocalReset;
                client.reset_when_closed();
            }
            Broken::Client(_) | Broken::Host(_) => {}
        }
        tracing::debug!(error = %broken, connection = self.connection.id, "a connection failed");
    }

    fn cut_off(&mut self, cut: CloseReason) {
        self.stream.local_close = Some(match cut {
            CloseReason::Duration => {
                self.proxy.stats.max_duration.fetch_add(1, Relaxed);
                self.stream.flags.set(Flags::DURATION_TIMEOUT);
                "max_connection_duration_reached"
            }
            CloseReason::Drained => "drained",
        });
    }

    fn log(mut self) {
        self.stream.timing.end = Some(self.stream.start.elapsed());
        let context = Context {
            connection: self.connection,
            stream: &self.stream,
            request: None,
            request_headers: None,
            response_headers: None,
            response_trailers: None,
        };
        self.proxy.access_logs.iter().for_each(|log| log.log(&context));
    }
}
