//! Pools towards hosts of our own, over loopback.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::*;
use crate::proxy::http::body::client::ClientBody;
use crate::proxy::http::http2;
use crate::proxy::upstream::balance::testing::{cluster, cluster_config, endpoints};
use crate::proxy::upstream::breaker::Thresholds;
use crate::proxy::upstream::cluster::UpstreamHttp;

/// Spawns what hyper's servers ask for on the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(20), test).await };
    runtime.block_on(limited).expect("the test takes too long");
}

/// Waits for something that other tasks bring about.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// A host that says `ok`, once the gate lets it.
struct TestHost {
    port: u16,
    gate: Arc<Semaphore>,
    connections: Arc<Mutex<u32>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl TestHost {
    async fn start(http2: bool, max_streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self {
            port: listener.local_addr().unwrap().port(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            connections: Arc::default(),
            seen: Arc::default(),
        };
        let (gate, connections, seen) = (host.gate.clone(), host.connections.clone(), host.seen.clone());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                let (gate, seen) = (gate.clone(), seen.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let gate = gate.clone();
                    let what = format!("{:?} {}", request.headers().get("host"), request.uri());
                    seen.lock().unwrap().push(what);
                    async move {
                        gate.acquire().await.unwrap().forget();
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                    }
                });
                tokio::task::spawn_local(async move {
                    let io = TokioIo::new(stream);
                    let _ = if http2 {
                        let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
                        builder.max_concurrent_streams(max_streams);
                        builder.serve_connection(io, service).await
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        builder.serve_connection(io, service).await
                    };
                });
            }
        });
        host
    }

    /// Nothing is answered until [`TestHost::open`].
    fn shut(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open(&self, answers: usize) {
        self.gate.add_permits(answers);
    }

    fn connections(&self) -> u32 {
        *self.connections.lock().unwrap()
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn cluster_at(port: u16, http: UpstreamHttp, thresholds: Thresholds) -> Arc<Cluster> {
    let mut config = cluster_config();
    config.http = http;
    cluster(config, &endpoints(&[(port, 0)]), thresholds)
}

fn request() -> Request<RequestBody> {
    let request = Request::get("/path?query").header("host", "some.host:81");
    request.body(RequestBody::Empty).unwrap()
}

async fn send(
    pools: &Pools,
    cluster: &Arc<Cluster>,
    change: impl FnOnce(&mut UpstreamTarget<'_>),
) -> Result<(Response<Incoming>, Lease), SendError> {
    send_with(pools, cluster, request(), change).await
}

async fn send_with(
    pools: &Pools,
    cluster: &Arc<Cluster>,
    request: Request<RequestBody>,
    change: impl FnOnce(&mut UpstreamTarget<'_>),
) -> Result<(Response<Incoming>, Lease), SendError> {
    let host = cluster.hosts.load().hosts[0].clone();
    let mut target = UpstreamTarget {
        cluster,
        host: &host,
        downstream: Version::HTTP_11,
        alpn: None,
        authority: "some.host:81",
        scheme: "http",
        high_priority: false,
        upgrade: false,
        source: None,
        passed_on: None,
        carried: None,
        route: None,
        meter: None,
        interims: None,
    };
    change(&mut target);
    pools.send(&target, &mut Some(request)).await
}

async fn read(answer: Result<(Response<Incoming>, Lease), SendError>) -> Result<Bytes, FailureKind> {
    let (response, mut lease) = answer.map_err(|error| error.kind)?;
    let body = response.into_body().collect().await.map_err(|_| FailureKind::Reset)?;
    lease.finished();
    Ok(body.to_bytes())
}

async fn get(pools: &Pools, cluster: &Arc<Cluster>) -> Result<Bytes, FailureKind> {
    read(send(pools, cluster, |_| {}).await).await
}

fn http2() -> UpstreamHttp {
    UpstreamHttp {
        version: HttpVersion::Http2,
        ..Default::default()
    }
}

/// Many requests at the same time.
fn many(
    pools: &Rc<Pools>,
    cluster: &Arc<Cluster>,
    number: usize,
) -> Vec<tokio::task::JoinHandle<Result<Bytes, FailureKind>>> {
    let one = || {
        let (pools, cluster) = (pools.clone(), cluster.clone());
        tokio::task::spawn_local(async move { get(&pools, &cluster).await })
    };
    (0..number).map(|_| one()).collect()
}

#[test]
fn a_connection_carries_one_request_after_the_other_and_what_it_does_is_counted() {
    on_a_worker(async {
        let host = TestHost::start(false, 0).await;
        let cluster = cluster_at(host.port, UpstreamHttp::default(), Thresholds::default());
        let pools = Pools::default();
        for _ in 0..3 {
            assert_eq!(get(&pools, &cluster).await.unwrap(), "ok");
        }
        assert_eq!(host.connections(), 1);
        let stats = &cluster.stats;
        assert_eq!(stats.rq_total.load(Relaxed), 3);
        let state = &cluster.hosts.load().hosts[0].state.clone();
        assert_eq!((state.active.load(Relaxed), state.connections.load(Relaxed)), (0, 1));
        assert_eq!(stats.cx_http1_total.load(Relaxed), 1);
        assert!(stats.bytes.rx_total.load(Relaxed) > 0 && stats.bytes.tx_total.load(Relaxed) > 0);
        assert_eq!(cluster.hosts.load().hosts[0].state.stats.rq_total.load(Relaxed), 3);
        assert_eq!(stats.rq_tx_reset.load(Relaxed), 0);
    });
}

#[test]
fn a_request_counts_until_its_answer_is_complete() {
    on_a_worker(async {
        let host = TestHost::start(false, 0).await;
        let cluster = cluster_at(host.port, UpstreamHttp::default(), Thresholds::default());
        let pools = Pools::default();
        let (response, mut lease) = send(&pools, &cluster, |_| {}).await.unwrap();
        let active = || cluster.hosts.load().hosts[0].state.active.load(Relaxed);
        assert_eq!((active(), cluster.breakers.of(false).requests.used()), (1, 1));
        let _ = response.into_body().collect().await;
        lease.finished();
        assert_eq!((active(), cluster.breakers.of(false).requests.used()), (0, 0));
        drop(send(&pools, &cluster, |_| {}).await.unwrap());
        // HTTP/1.1 has no stream to reset: the connection ends, and Envoy counts none either.
        assert_eq!(cluster.stats.rq_tx_reset.load(Relaxed), 0);
        // Given up in the middle of an answer, the connection is of no use.
        until(|| cluster.breakers.of(false).connections.used() == 0).await;
        assert_eq!(cluster.breakers.of(false).connections.used(), 0);
    });
}

#[test]
fn at_the_limit_of_connections_requests_wait_for_one() {
    on_a_worker(async {
        let host = TestHost::start(false, 0).await;
        host.shut();
        let limits = Thresholds {
            connections: 1,
            pending: 2,
            ..Default::default()
        };
        let cluster = cluster_at(host.port, UpstreamHttp::default(), limits);
        let pools = Rc::new(Pools::default());
        let first = many(&pools, &cluster, 1);
        until(|| host.requests() == 1).await;
        let waiting = many(&pools, &cluster, 2);
        until(|| cluster.breakers.of(false).pending.used() == 2).await;
        assert_eq!(get(&pools, &cluster).await, Err(FailureKind::Overflow));
        assert_eq!(cluster.stats.rq_pending_overflow.load(Relaxed), 1);
        assert!(cluster.stats.cx_overflow.load(Relaxed) >= 1);
        host.open(3);
        for request in first.into_iter().chain(waiting) {
            assert_eq!(request.await.unwrap().unwrap(), "ok");
        }
        assert_eq!(host.connections(), 1);
    });
}

#[test]
fn a_request_that_is_given_up_leaves_its_place_to_the_next() {
    on_a_worker(async {
        let host = TestHost::start(false, 0).await;
        host.shut();
        let limits = Thresholds {
            connections: 1,
            ..Default::default()
        };
        let cluster = cluster_at(host.port, UpstreamHttp::default(), limits);
        let pools = Rc::new(Pools::default());
        let mut requests = many(&pools, &cluster, 3);
        until(|| host.requests() == 1 && cluster.breakers.of(false).pending.used() == 2).await;
        // The one under way takes its connection with it, the one that waits nothing.
        requests.remove(0).abort();
        requests.remove(0).abort();
        host.open(2);
    });
}

#[test]
fn a_connection_that_the_host_closed_costs_no_request() {
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        });
        let cluster = cluster_at(port, UpstreamHttp::default(), Thresholds::default());
        let pools = Pools::default();
        for _ in 0..20 {
            assert_eq!(get(&pools, &cluster).await.unwrap(), "ok");
        }
        assert_eq!(cluster.stats.rq_rx_reset.load(Relaxed), 0);
    });
}

#[test]
fn what_is_idle_or_old_or_leads_nowhere_is_closed() {
    on_a_worker(async {
        let host = TestHost::start(false, 0).await;
        let http = UpstreamHttp {
            idle_timeout: Some(Duration::from_secs(10)),
            ..Default::default()
        };
        let cluster = cluster_at(host.port, http, Thresholds::default());
        let pools = Pools::default();
        get(&pools, &cluster).await.unwrap();
        let active = || cluster.breakers.of(false).connections.used();
        pools.sweep(Instant::now() + Duration::from_secs(9));
        assert_eq!(active(), 1);
        pools.sweep(Instant::now() + Duration::from_secs(11));
        until(|| active() == 0).await;
        get(&pools, &cluster).await.unwrap();
        cluster.put_endpoints(&endpoints(&[(1, 0)]), Instant::now());
        pools.sweep(Instant::now());
        until(|| active() == 0).await;
        pools.sweep(Instant::now());
        assert!(pools.by_key.borrow().is_empty());
    });
}

#[test]
fn a_connection_carries_no_more_requests_than_it_may() {
    on_a_worker(async {
        for (speaks_http2, mut http) in [(false, UpstreamHttp::default()), (true, http2())] {
            let host = TestHost::start(speaks_http2, 100).await;
            http.max_requests = Some(2);
            let cluster = cluster_at(host.port, http, Thresholds::default());
            let pools = Pools::default();
            for _ in 0..5 {
                assert_eq!(get(&pools, &cluster).await.unwrap(), "ok");
            }
            assert_eq!(host.connections(), 3);
        }
    });
}

#[test]
fn streams_share_a_connection_up_to_the_limit_of_either_side() {
    on_a_worker(async {
        for (peer, own) in [(3, None), (100, Some(3))] {
            let host = TestHost::start(true, peer).await;
            let http = UpstreamHttp {
                max_concurrent_streams: own,
                ..http2()
            };
            let cluster = cluster_at(host.port, http, Thresholds::default());
            let pools = Rc::new(Pools::default());
            get(&pools, &cluster).await.unwrap();
            host.shut();
            let requests = many(&pools, &cluster, 6);
            until(|| host.requests() == 7).await;
            assert_eq!(host.connections(), 2);
            host.open(6);
            for request in requests {
                assert_eq!(request.await.unwrap().unwrap(), "ok");
            }
        }
    });
}

#[test]
fn over_http2_the_host_stands_in_the_authority() {
    on_a_worker(async {
        let host = TestHost::start(true, 100).await;
        let cluster = cluster_at(host.port, http2(), Thresholds::default());
        get(&Pools::default(), &cluster).await.unwrap();
        assert_eq!(*host.seen.lock().unwrap(), ["None http://some.host:81/path?query"]);
        assert_eq!(cluster.stats.cx_http2_total.load(Relaxed), 1);
    });
}

#[test]
fn the_clients_version_is_spoken_where_the_cluster_wants_it() {
    on_a_worker(async {
        let host = TestHost::start(true, 100).await;
        let http = UpstreamHttp {
            version: HttpVersion::Downstream,
            ..Default::default()
        };
        let cluster = cluster_at(host.port, http, Thresholds::default());
        let answer = send(&Pools::default(), &cluster, |target| {
            target.downstream = Version::HTTP_2
        })
        .await;
        assert_eq!(read(answer).await.unwrap(), "ok");
    });
}

#[test]
fn resets_of_streams_are_told_apart() {
    on_a_worker(async {
        let reasons = [
            (h2::Reason::REFUSED_STREAM, FailureKind::Refused),
            (h2::Reason::INTERNAL_ERROR, FailureKind::RemoteReset),
        ];
        for (reason, kind) in reasons {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::task::spawn_local(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(reason);
                }
            });
            let cluster = cluster_at(port, http2(), Thresholds::default());
            assert_eq!(get(&Pools::default(), &cluster).await, Err(kind));
            assert_eq!(cluster.stats.rq_rx_reset.load(Relaxed), 1);
        }
    });
}

/// A body that comes by HTTP/2, and what it comes from.
async fn streaming_body() -> (RequestBody, h2::SendStream<Bytes>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (client, driver) = http2::begin(near, 1 << 16, 1 << 16, None);
    tokio::task::spawn_local(driver.run());
    let server = tokio::task::spawn_local(async move {
        let mut server = h2::server::handshake(far).await.unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let send = respond.send_response(Response::new(()), false).unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        send
    });
    client.ready().await.unwrap();
    let answer = client
        .send(request(), "http", None)
        .unwrap()
        .answer(None)
        .await
        .unwrap();
    let body = Incoming::Http2(answer.into_body());
    let body = RequestBody::Client(ClientBody::Streaming(body), Rc::default());
    (body, server.await.unwrap())
}

/// Answers the first request at once, and then says what it hears.
async fn echo(listener: TcpListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let mut heard = request.into_body();
    let mut said = respond.send_response(Response::new(()), false).unwrap();
    tokio::task::spawn_local(async move {
        while let Some(data) = heard.data().await {
            said.send_data(data.unwrap(), false).unwrap();
        }
        said.send_data(Bytes::new(), true).unwrap();
    });
    while connection.accept().await.is_some() {}
}

#[test]
fn over_http2_request_and_answer_go_on_at_the_same_time() {
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(echo(listener));
        let cluster = cluster_at(port, http2(), Thresholds::default());
        let (body, mut source) = streaming_body().await;
        let answer = send_with(&Pools::default(), &cluster, request().map(|_| body), |_| {}).await;
        let (response, mut lease) = answer.unwrap();
        let mut heard = response.into_body();
        for said in ["one", "two"] {
            source.send_data(said.into(), said == "two").unwrap();
            let frame = heard.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), said);
        }
        assert_eq!(heard.collect().await.unwrap().to_bytes(), "");
        lease.finished();
        assert_eq!(cluster.stats.rq_tx_reset.load(Relaxed), 0);
    });
}

#[test]
fn a_host_learns_of_the_windows_that_the_cluster_wants() {
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let http = UpstreamHttp {
            stream_window: Some(70_000),
            connection_window: Some(100_000),
            ..http2()
        };
        let cluster = cluster_at(port, http, Thresholds::default());
        let request = tokio::task::spawn_local(async move { get(&Pools::default(), &cluster).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE, and WINDOW_UPDATE of the connection by what it is more than it was.
        let mut expected = vec![
            [&[0, 4][..], &70_000_u32.to_be_bytes()].concat(),
            [&[0, 0, 4, 8, 0, 0, 0, 0, 0][..], &(100_000_u32 - 65_535).to_be_bytes()].concat(),
        ];
        let mut bytes = Vec::new();
        while !expected.is_empty() {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "{bytes:?}");
            expected.retain(|part| !bytes.windows(part.len()).any(|seen| seen == part));
        }
        request.abort();
    });
}

#[test]
fn a_host_that_answers_no_pings_is_given_up() {
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pinged = Rc::new(Cell::new(false));
        let seen = pinged.clone();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Its settings, and then nothing.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut bytes = Vec::new();
            while stream.read_buf(&mut bytes).await.unwrap() > 0 {
                let ping = [0, 0, 8, 6, 0];
                seen.set(seen.get() || bytes.windows(5).any(|head| head == ping));
            }
        });
        let http = UpstreamHttp {
            keepalive: Some((Duration::from_millis(10), Duration::from_millis(10))),
            ..http2()
        };
        let cluster = cluster_at(port, http, Thresholds::default());
        assert_eq!(get(&Pools::default(), &cluster).await, Err(FailureKind::Reset));
        assert!(pinged.get());
    });
}

#[test]
fn a_connection_that_goes_away_costs_no_request() {
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(one_answer_then_goaway(stream));
            }
        });
        let cluster = cluster_at(port, http2(), Thresholds::default());
        let pools = Pools::default();
        // Whenever the host says that it goes, before, while or after a request is sent.
        while cluster.stats.cx_total.load(Relaxed) < 5 {
            get(&pools, &cluster).await.unwrap();
        }
    });
}

async fn one_answer_then_goaway(stream: TcpStream) {
    let answered = Rc::new(tokio::sync::Notify::new());
    let answers = answered.clone();
    let service = service_fn(move |_| {
        answers.notify_one();
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = answered.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[test]
fn who_waits_for_a_connection_that_cannot_be_had_is_told() {
    on_a_worker(async {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let cluster = cluster_at(port, UpstreamHttp::default(), Thresholds::default());
        let pools = Rc::new(Pools::default());
        for request in many(&pools, &cluster, 3) {
            assert_eq!(request.await.unwrap(), Err(FailureKind::Connect));
        }
        assert!(cluster.stats.cx_connect_fail.load(Relaxed) >= 1);
        assert_eq!(cluster.breakers.of(false).connections.used(), 0);
    });
}

#[test]
fn a_connection_for_another_protocol_is_nobody_elses() {
    on_a_worker(async {
        let host = TestHost::start(false, 0).await;
        let cluster = cluster_at(host.port, UpstreamHttp::default(), Thresholds::default());
        let pools = Pools::default();
        get(&pools, &cluster).await.unwrap();
        let answer = send(&pools, &cluster, |target| target.upgrade = true).await;
        read(answer).await.unwrap();
        assert_eq!(host.connections(), 2);
        until(|| cluster.breakers.of(false).connections.used() == 1).await;
        get(&pools, &cluster).await.unwrap();
        assert_eq!(host.connections(), 2);
    });
}
