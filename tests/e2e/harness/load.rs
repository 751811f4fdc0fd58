//! Continuous load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{self, MissedTickBehavior};

use super::client::{Answer, Call};

/// Maximum number of requests in flight; more mean that the proxy does not respond.
const IN_FLIGHT: usize = 256;
/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a request at a constant rate on keep-alive connections, whether earlier requests have
/// completed or not.
pub struct Load {
    stop: oneshot::Sender<()>,
    seen: watch::Receiver<BTreeSet<String>>,
    task: JoinHandle<Report>,
}

/// Result of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of requests sent.
    pub sent: usize,
    /// Number of 200 responses by backend; `-` for other bodies.
    pub answered: BTreeMap<String, usize>,
    /// Errors of the other requests.
    pub failures: Vec<String>,
}

impl Report {
    /// Asserts that there were requests and all got status 200.
    pub fn assert_lossless(&self) {
        let first: Vec<_> = self.failures.iter().take(5).collect();
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {first:#?}",
            self.failures.len(),
            self.sent
        );
        assert!(self.sent > 0, "no request was sent");
    }
}

impl Load {
    /// Starts sending `per_second` requests per second.
    pub fn start(call: Call, per_second: u32) -> Self {
        let ((stop, stopped), (see, seen)) = (oneshot::channel(), watch::channel(BTreeSet::new()));
        let task = tokio::spawn(run(Arc::new(call), Duration::from_secs(1) / per_second, stopped, see));
        Self { stop, seen, task }
    }

    /// Waits for a response from this backend.
    pub async fn reaches(&mut self, backend: &str) {
        let reached = self.seen.wait_for(|seen| seen.contains(backend));
        let in_time = time::timeout(TIMEOUT, reached).await;
        assert!(
            in_time.is_ok_and(|reached| reached.is_ok()),
            "{backend} gets nothing of the load"
        );
    }

    /// Stops sending and waits for requests in flight.
    pub async fn stop(self) -> Report {
        // Fails only if the task has panicked, which the next line reports.
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

type Outcome = Result<String, String>;
type Pool = Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>;

async fn run(
    call: Arc<Call>,
    period: Duration,
    mut stopped: oneshot::Receiver<()>,
    see: watch::Sender<BTreeSet<String>>,
) -> Report {
    let pool = Pool::default();
    let mut report = Report::default();
    let mut requests: JoinSet<Outcome> = JoinSet::new();
    let mut tick = time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(outcome) = requests.join_next() => {
                let outcome = outcome.unwrap();
                if let Ok(backend) = &outcome {
                    see.send_if_modified(|seen| seen.insert(backend.clone()));
                }
                report.count(outcome);
            }
            _ = tick.tick() => {
                report.sent += 1;
                if requests.len() < IN_FLIGHT {
                    requests.spawn(request(call.clone(), pool.clone()));
                } else {
                    report.count(Err(format!("{IN_FLIGHT} requests are under way already")));
                }
            }
        }
    }
    while let Some(outcome) = requests.join_next().await {
        report.count(outcome.unwrap());
    }
    report
}

impl Report {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Ok(backend) => *self.answered.entry(backend).or_default() += 1,
            Err(why) => self.failures.push(why),
        }
    }
}

async fn request(call: Arc<Call>, pool: Pool) -> Outcome {
    let answer = time::timeout(TIMEOUT, exchange(&call, &pool)).await;
    let answer = answer.map_err(|_| format!("no answer within {TIMEOUT:?}"))??;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    Ok(answer
        .headers
        .get("x-backend")
        .map_or("-", |name| name.to_str().unwrap())
        .to_owned())
}

/// Sends a request on a pooled connection, or a new one. A request that was not started when the
/// connection closed is sent again, as any client does.
async fn exchange(call: &Call, pool: &Pool) -> Result<Answer, String> {
    let mut request: Request<Full<Bytes>> = call.request();
    loop {
        let kept = pool.lock().unwrap().pop();
        let mut sender = match kept {
            Some(sender) => sender,
            None => connect(call).await?,
        };
        if sender.ready().await.is_err() {
            continue;
        }
        match sender.try_send_request(request).await {
            Ok(response) => {
                let answer = Answer::read(response).await?;
                pool.lock().unwrap().push(sender);
                return Ok(answer);
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(format!("after the request was sent: {:?}", error.into_error())),
            },
        }
    }
}

async fn connect(call: &Call) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(call.to())
        .await
        .map_err(|error| format!("{}: {error}", call.to()))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}
