//! Connections through a worker, from a listener to a host.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use socket2::SockRef;

use crate::proxy::listener::accept::Listening;
use crate::proxy::store::Store;
use crate::proxy::worker::{Command, Handle, Worker};
use crate::xds::transcode::to_wire;

/// How long something may take that happens at once.
const SOON: Duration = Duration::from_secs(10);

/// A data plane of one worker with one listener, whose log is in `log`.
struct Plane {
    store: Store,
    address: SocketAddr,
    log: tempfile::NamedTempFile,
    _worker: Handle,
}

fn wire(name: &str, json: &Value) -> Bytes {
    to_wire(name, json).unwrap().into()
}

/// A plane that passes on to the cluster `c` with a host at this port, if one is given.
fn plane(host: Option<u16>, more: Value, drain_time: Duration) -> Plane {
    let log = tempfile::NamedTempFile::new().unwrap();
    let (mut store, now) = (Store::default(), Instant::now());
    let hosts = host
        .map(|port| json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}));
    let cluster = json!({
        "name": "c", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": Vec::from_iter(hosts)}]},
    });
    store
        .put_cluster(wire("envoy.config.cluster.v3.Cluster", &cluster), true, now)
        .unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let bytes = wire(
        "envoy.config.listener.v3.Listener",
        &listener(address, log.path(), more),
    );
    let compiled = store.listener(None, &bytes).unwrap().unwrap();
    store.put_listener(compiled, bytes, false, now);
    store.settle(now);
    let worker = Worker::start(0, store.published(), None, drain_time).unwrap();
    socket.set_nonblocking(true).unwrap();
    worker
        .commands
        .send(Command::Listen("l".into(), vec![Listening::Tcp(Arc::new(socket))]))
        .unwrap();
    Plane {
        store,
        address,
        log,
        _worker: worker,
    }
}

fn listener(address: SocketAddr, log: &Path, more: Value) -> Value {
    let mut proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t", "cluster": "c",
        "access_log": [{"name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
            "log_format": {"text_format_source": {"inline_string": "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT%\n"}},
        }}],
    });
    proxy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": address.port()}},
        "filter_chains": [{"filters": [{"name": "t", "typed_config": proxy}]}],
    })
}

impl Plane {
    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client
    }

    /// The first line of the log.
    fn logged(&self) -> String {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(self.log.path()).unwrap();
            if let Some((line, _)) = text.split_once('\n') {
                return line.to_owned();
            }
            assert!(begun.elapsed() < SOON, "nothing is logged");
            std::thread::yield_now();
        }
    }
}

/// A host that does something with its first connection.
fn host(serve: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || serve(socket.accept().unwrap().0));
    port
}

/// A port at which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_host_gets_the_bytes_and_the_end_and_answers_after_it() {
    let port = host(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    let plane = plane(Some(port), json!({}), SOON);
    let mut client = plane.client();
    client.write_all(b"abc").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"cba");
    assert_eq!(plane.logged(), "- 3 3");
}

#[test]
fn why_there_is_no_host_is_in_the_log() {
    let flags = |host, more| {
        let plane = plane(host, more, SOON);
        let mut client = plane.client();
        let ended = client.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0)), "{ended:?}");
        plane.logged()
    };
    assert_eq!(
        flags(Some(closed_port()), json!({"max_connect_attempts": 2})),
        "UF,URX 0 0"
    );
    assert_eq!(flags(None, json!({})), "UH 0 0");
    assert_eq!(flags(None, json!({"cluster": "nobody"})), "NC 0 0");
}

#[test]
fn a_reset_is_passed_on_as_one() {
    let port = host(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let plane = plane(Some(port), json!({}), SOON);
    let mut client = plane.client();
    client.write_all(b"x").unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_of_a_listener_that_is_gone_ends_with_the_drain_time() {
    let port = host(|mut stream| drop(stream.read(&mut [0; 1])));
    let mut plane = plane(Some(port), json!({}), Duration::from_millis(50));
    let mut client = plane.client();
    // Nothing is passed on before the host is reached; the counter tells that it is.
    let (begun, slot) = (Instant::now(), plane.store.published().load().clusters["c"].clone());
    let cluster = slot.load_full().unwrap();
    let reached = || {
        let hosts = cluster.hosts.load();
        hosts.hosts[0]
            .state
            .connections
            .load(std::sync::atomic::Ordering::Relaxed)
            == 1
    };
    while !reached() {
        assert!(begun.elapsed() < SOON);
        std::thread::yield_now();
    }
    let begun = Instant::now();
    assert!(plane.store.remove_listener("l"));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_connection_lives_no_longer_than_it_may() {
    let port = host(|mut stream| drop(stream.read(&mut [0; 1])));
    let plane = plane(Some(port), json!({"max_downstream_connection_duration": "0.05s"}), SOON);
    let mut client = plane.client();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(plane.logged(), "DT 0 0");
}
