//! Load generator: requests to `productpage` at a constant rate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};

use super::measure::Sample;
use super::service::services::SERVED_BY;

/// Maximum number of concurrent requests; beyond it, ticks are skipped.
const IN_FLIGHT: usize = 64;
/// Request timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections.
type Pool = Arc<Mutex<Vec<SendRequest<Empty<Bytes>>>>>;

/// Sends `per_second` requests per second to the inbound listener of `productpage` until the receiver is
/// dropped. At 0, sends none.
pub(super) async fn send(to: SocketAddr, per_second: u32, samples: mpsc::Sender<Sample>) {
    let Some(period) = Duration::from_secs(1).checked_div(per_second) else {
        return samples.closed().await;
    };
    let pool = Pool::default();
    let mut requests: JoinSet<Sample> = JoinSet::new();
    let mut tick = time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = samples.closed() => return,
            Some(Ok(sample)) = requests.join_next() => {
                if samples.send(sample).await.is_err() {
                    return;
                }
            }
            _ = tick.tick() => {
                if requests.len() < IN_FLIGHT {
                    requests.spawn(request(to, pool.clone()));
                }
            }
        }
    }
}

async fn request(to: SocketAddr, pool: Pool) -> Sample {
    let start = Instant::now();
    let answer = time::timeout(TIMEOUT, exchange(to, &pool)).await;
    let outcome = answer.unwrap_or_else(|_| Err(format!("productpage: no answer within {TIMEOUT:?}")));
    let at = Instant::now();
    Sample {
        at,
        took: at.duration_since(start),
        outcome,
    }
}

/// Sends a request on an idle connection, or on a new one. A request that was not yet started when its
/// connection closed is retried, as clients do.
async fn exchange(to: SocketAddr, pool: &Pool) -> Result<String, String> {
    let shown = |error: &dyn std::fmt::Display| format!("productpage at {to}: {error}");
    let mut request = Request::get("/productpage")
        .header(header::HOST, to.to_string())
        .header(header::USER_AGENT, "topsail-demo")
        .body(Empty::new())
        .map_err(|error| shown(&error))?;
    loop {
        let open = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let was_open = open.is_some();
        let mut sender = match open {
            Some(sender) => sender,
            None => connect(to).await.map_err(|error| shown(&error))?,
        };
        match sender.ready().await {
            Err(_) if was_open => continue,
            ready => ready.map_err(|error| shown(&error))?,
        }
        match sender.try_send_request(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                body.collect().await.map_err(|error| shown(&error))?;
                pool.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
                let served_by = head.headers.get(&SERVED_BY).and_then(|value| value.to_str().ok());
                return match served_by {
                    Some(served_by) if head.status.is_success() => Ok(served_by.to_owned()),
                    Some(_) | None => Err(shown(&head.status)),
                };
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(shown(&error.into_error())),
            },
        }
    }
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(to).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Errors of the connection are returned by the request in progress.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::super::service::services::{Config, Service, serve};
    use super::*;

    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[tokio::test]
    async fn requests_are_sent_at_the_rate_and_report_their_services() {
        let listen = free_address();
        let page = Config {
            service: Service::Productpage,
            version: "v1".into(),
            listen,
            calls: vec![],
        };
        let serving = tokio::spawn(serve(page, std::future::pending()));
        while TcpStream::connect(listen).await.is_err() {
            tokio::task::yield_now().await;
        }
        let (sender, mut samples) = mpsc::channel(100);
        let sending = tokio::spawn(send(listen, 200, sender));
        let first = samples.recv().await.unwrap();
        let mut last = first.clone();
        for _ in 0..40 {
            last = samples.recv().await.unwrap();
            let served_by = last.outcome.as_ref().unwrap();
            assert!(
                served_by.starts_with("productpage/v1@") && served_by.contains("reviews/failed"),
                "{served_by}"
            );
        }
        assert!(
            last.at.duration_since(first.at) >= Duration::from_millis(100),
            "40 requests are 200 ms at 200/s"
        );
        drop(samples);
        sending.await.unwrap();
        serving.abort();
    }

    #[tokio::test]
    async fn refused_connections_are_failures() {
        let nobody = free_address();
        let (sender, mut samples) = mpsc::channel(100);
        tokio::spawn(send(nobody, 100, sender));
        let outcome = samples.recv().await.unwrap().outcome;
        assert!(
            outcome
                .as_ref()
                .unwrap_err()
                .contains(&format!("productpage at {nobody}: ")),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn rate_zero_sends_nothing() {
        let (sender, samples) = mpsc::channel(1);
        let sending = tokio::spawn(send(free_address(), 0, sender));
        assert!(samples.is_empty());
        drop(samples);
        sending.await.unwrap();
    }
}
