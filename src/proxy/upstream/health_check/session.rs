//! The checks of one host, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;

use super::connect::Subject;
use super::state::{Change, Checked};
use super::{Failure, HealthCheck, Outcome, Probe, http, http2, tcp};
use crate::proxy::upstream::cluster::Cluster;
use crate::proxy::upstream::host::Host;

/// The connection on which a host is checked.
#[derive(Debug)]
enum Session<'a> {
    Http(&'a http::HttpCheck, http::Connection),
    Grpc(&'a super::grpc::GrpcCheck, Option<http2::Connection>),
    Tcp(&'a tcp::TcpCheck, Option<tcp::Connection>),
}

/// Checks a host for ever. `begun` is told of the first result, for which a cluster may wait.
pub(super) async fn run(cluster: Arc<Cluster>, host: Arc<Host>, checked: Arc<Checked>, begun: Arc<Notify>) {
    let config = checked.config();
    let subject = Subject {
        cluster: &cluster,
        host: &host,
        checked: &checked,
    };
    let mut session = Session::new(config);
    if !checked.has_begun() && !config.schedule.initial_jitter.is_zero() {
        tokio::time::sleep(config.schedule.initial(fastrand::f64())).await;
    }
    let mut outcome = session.attempt(subject).await;
    loop {
        let is_first = !checked.has_begun();
        let change = cluster.checked(&host, &checked, outcome);
        if is_first {
            begun.notify_one();
        }
        let pause = pause(&cluster, config, outcome, change);
        outcome = tokio::select! {
            failure = session.fails() => Err(failure),
            () = tokio::time::sleep(pause) => session.attempt(subject).await,
        };
    }
}

fn pause(cluster: &Cluster, config: &HealthCheck, outcome: Outcome, change: Change) -> Duration {
    let traffic = cluster.stats.cx_total.load(Relaxed) > 0;
    let random = (fastrand::f64(), fastrand::f64());
    config.schedule.next(outcome.is_ok(), change, traffic, random)
}

impl<'a> Session<'a> {
    fn new(config: &'a HealthCheck) -> Self {
        match &config.probe {
            Probe::Http(check) => Session::Http(check, http::Connection::None),
            Probe::Grpc(check) => Session::Grpc(check, None),
            Probe::Tcp(check) => Session::Tcp(check, None),
        }
    }

    /// Makes an attempt.
    async fn attempt(&mut self, subject: Subject<'_>) -> Outcome {
        subject.cluster.stats.health_checks.attempt.fetch_add(1, Relaxed);
        let config = subject.checked.config();
        let attempt = async {
            match self {
                Session::Http(check, connection) => check.attempt(connection, subject).await,
                Session::Grpc(check, connection) => check.attempt(connection, subject).await,
                Session::Tcp(check, connection) => check.attempt(connection, subject).await,
            }
        };
        let outcome = tokio::time::timeout(config.timeout, attempt).await;
        outcome.unwrap_or_else(|_| {
            self.give_up();
            Err(Failure::Timeout)
        })
    }

    /// Ends a connection on which there was no answer.
    fn give_up(&mut self) {
        match self {
            Session::Http(_, connection) => *connection = http::Connection::None,
            Session::Grpc(_, connection) => *connection = None,
            Session::Tcp(_, connection) => *connection = None,
        }
    }

    /// Keeps the connection up between attempts; ends only with a failure that counts as one of an attempt.
    async fn fails(&mut self) -> Failure {
        match self {
            Session::Http(_, connection) => match connection.keep().await {},
            Session::Grpc(_, connection) => {
                if let Some(open) = connection {
                    open.ended().await;
                    *connection = None;
                }
                std::future::pending().await
            }
            Session::Tcp(check, connection) => check.ended(connection).await,
        }
    }
}
