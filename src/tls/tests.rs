//! Handshakes over loopback sockets.

use std::net::SocketAddr;
use std::time::SystemTime;

use futures::StreamExt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::clock::ManualClock;
use crate::name::{SpiffeId, TrustDomain};
use crate::pki::{Ca, IssueOptions, StateDir, server_identity};

/// A CA and certificates issued by it.
struct Mesh {
    ca: Ca,
    clock: Clock,
    _state: tempfile::TempDir,
}

impl Mesh {
    fn new(clock: &Clock) -> Self {
        let state = tempfile::tempdir().unwrap();
        let dir = StateDir::open(state.path()).unwrap();
        Self {
            ca: Ca::load_or_create(&dir, &TrustDomain::default(), clock).unwrap(),
            clock: clock.clone(),
            _state: state,
        }
    }

    fn issue(&self, id: &SpiffeId) -> WorkloadCert {
        self.ca.issue(id, &IssueOptions::default()).unwrap()
    }

    fn server_certificate(&self) -> WorkloadCert {
        self.issue(&server())
    }

    fn server(&self) -> ServerTls {
        let certificate = self.server_certificate();
        ServerTls::new(&certificate, self.ca.bundle(), &TrustDomain::default(), &self.clock).unwrap()
    }

    fn client(&self, certificate: Option<&WorkloadCert>) -> Arc<ClientConfig> {
        client_config(self.ca.bundle(), (&server()).into(), certificate, &self.clock).unwrap()
    }
}

fn server() -> SpiffeId {
    server_identity(&TrustDomain::default())
}

fn reviews() -> SpiffeId {
    "spiffe://cluster.local/ns/default/sa/reviews".parse().unwrap()
}

/// Accepts connections in the background and yields them.
async fn listen(server: &ServerTls, limits: HandshakeLimits) -> (SocketAddr, mpsc::UnboundedReceiver<TlsConn>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut incoming = TlsIncoming::with_limits(listener, server, limits);
    let (accepted, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(connection) = incoming.next().await {
            if accepted.send(connection.unwrap()).is_err() {
                break;
            }
        }
    });
    (addr, connections)
}

async fn dial(addr: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("a-name-that-is-in-no-certificate.example").unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

/// Dials and waits for the server's decision, which in TLS 1.3 arrives after the client has
/// finished its handshake.
async fn refusal(addr: SocketAddr, config: Arc<ClientConfig>) -> io::Error {
    match dial(addr, config).await {
        Err(error) => error,
        Ok(mut stream) => stream.read_u8().await.unwrap_err(),
    }
}

async fn serial_seen(addr: SocketAddr, config: Arc<ClientConfig>) -> String {
    let stream = dial(addr, config).await.unwrap();
    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, x509) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    x509.raw_serial_as_string().replace(':', "")
}

#[tokio::test]
async fn a_client_without_certificate_is_accepted_without_identity() {
    let mesh = Mesh::new(&Clock::system());
    let (addr, mut accepted) = listen(&mesh.server(), HandshakeLimits::default()).await;
    let mut client = dial(addr, mesh.client(None)).await.unwrap();
    let mut connection = accepted.recv().await.unwrap();
    assert_eq!(connection.peer().identity, None);
    assert_eq!(connection.peer().cert_not_after, None);
    assert_eq!(connection.peer().addr, client.get_ref().0.local_addr().unwrap());
    client.write_all(b"hello").await.unwrap();
    let mut text = [0; 5];
    connection.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
}

#[tokio::test]
async fn a_certificate_gives_an_identity() {
    let mesh = Mesh::new(&Clock::system());
    let (addr, mut accepted) = listen(&mesh.server(), HandshakeLimits::default()).await;
    let certificate = mesh.issue(&reviews());
    let _client = dial(addr, mesh.client(Some(&certificate))).await.unwrap();
    let connection = accepted.recv().await.unwrap();
    assert_eq!(connection.peer().identity, Some(reviews()));
    assert_eq!(connection.peer().cert_not_after, Some(certificate.validity.not_after));
}

#[tokio::test]
async fn certificates_of_another_ca_or_trust_domain_are_refused() {
    let (mesh, stranger) = (Mesh::new(&Clock::system()), Mesh::new(&Clock::system()));
    let (addr, mut accepted) = listen(&mesh.server(), HandshakeLimits::default()).await;
    let other_ca = stranger.issue(&reviews());
    let error = refusal(addr, mesh.client(Some(&other_ca))).await;
    assert!(error.to_string().contains("UnknownCA"), "{error}");

    let elsewhere = "spiffe://other.example/ns/default/sa/reviews".parse().unwrap();
    let other_domain = mesh.issue(&elsewhere);
    let error = refusal(addr, mesh.client(Some(&other_domain))).await;
    assert!(error.to_string().contains("fatal alert"), "{error}");

    let _good = dial(addr, mesh.client(None)).await.unwrap();
    assert_eq!(
        accepted.recv().await.unwrap().peer().identity,
        None,
        "only the good one arrives"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let hand = ManualClock::new(SystemTime::now());
    let mesh = Mesh::new(&hand.clock());
    let server = mesh.server();
    let (addr, _accepted) = listen(&server, HandshakeLimits::default()).await;
    let certificate = mesh.issue(&reviews());
    hand.advance(Duration::from_secs(25 * 3600));
    server.replace_certificate(&mesh.server_certificate()).unwrap();
    let error = refusal(addr, mesh.client(Some(&certificate))).await;
    assert!(error.to_string().contains("CertificateExpired"), "{error}");
}

#[tokio::test]
async fn a_replaced_server_certificate_applies_to_new_connections() {
    let mesh = Mesh::new(&Clock::system());
    let server = mesh.server();
    let (addr, mut accepted) = listen(&server, HandshakeLimits::default()).await;
    let mut old_client = dial(addr, mesh.client(None)).await.unwrap();
    let mut old = accepted.recv().await.unwrap();
    let next = mesh.server_certificate();
    assert_ne!(serial_seen(addr, mesh.client(None)).await, next.serial);
    server.replace_certificate(&next).unwrap();
    assert_eq!(serial_seen(addr, mesh.client(None)).await, next.serial);
    old.write_all(b"!").await.unwrap();
    old.flush().await.unwrap();
    assert_eq!(old_client.read_u8().await.unwrap(), b'!');
}

#[tokio::test]
async fn a_certificate_with_a_mismatched_key_is_rejected() {
    let mesh = Mesh::new(&Clock::system());
    let server = mesh.server();
    let (addr, _accepted) = listen(&server, HandshakeLimits::default()).await;
    let before = serial_seen(addr, mesh.client(None)).await;
    let mixed = WorkloadCert {
        key_pem: mesh.server_certificate().key_pem,
        ..mesh.server_certificate()
    };
    assert!(matches!(server.replace_certificate(&mixed), Err(TlsError::Rustls(_))));
    assert_eq!(serial_seen(addr, mesh.client(None)).await, before);
}

#[tokio::test]
async fn a_replaced_bundle_applies_to_new_clients() {
    let (mesh, next) = (Mesh::new(&Clock::system()), Mesh::new(&Clock::system()));
    let server = mesh.server();
    let (addr, mut accepted) = listen(&server, HandshakeLimits::default()).await;
    let certificate = next.issue(&reviews());
    refusal(addr, mesh.client(Some(&certificate))).await;
    server.replace_bundle(next.ca.bundle()).unwrap();
    let _client = dial(addr, mesh.client(Some(&certificate))).await.unwrap();
    assert_eq!(accepted.recv().await.unwrap().peer().identity, Some(reviews()));
    refusal(addr, mesh.client(Some(&mesh.issue(&reviews())))).await;
}

#[tokio::test]
async fn a_client_rejects_unexpected_servers() {
    let (mesh, stranger) = (Mesh::new(&Clock::system()), Mesh::new(&Clock::system()));
    let impostor = mesh.issue(&reviews());
    let server = ServerTls::new(&impostor, mesh.ca.bundle(), &TrustDomain::default(), &mesh.clock).unwrap();
    let (addr, _accepted) = listen(&server, HandshakeLimits::default()).await;
    let error = dial(addr, mesh.client(None)).await.unwrap_err();
    assert_eq!(
        handshake_failure(&error),
        format!(
            "the peer is `{}`, expected `{}`",
            reviews(),
            server_identity(&TrustDomain::default())
        )
    );

    let (addr, _accepted) = listen(&stranger.server(), HandshakeLimits::default()).await;
    let error = dial(addr, mesh.client(None)).await.unwrap_err();
    assert!(handshake_failure(&error).contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn only_http2_is_spoken() {
    let mesh = Mesh::new(&Clock::system());
    let (addr, mut accepted) = listen(&mesh.server(), HandshakeLimits::default()).await;
    let mut http1 = (*mesh.client(None)).clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let error = refusal(addr, Arc::new(http1)).await;
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let client = dial(addr, mesh.client(None)).await.unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    accepted.recv().await.unwrap();
}

#[tokio::test]
async fn tls_1_2_is_supported() {
    let mesh = Mesh::new(&Clock::system());
    let (addr, mut accepted) = listen(&mesh.server(), HandshakeLimits::default()).await;
    let verifier = SvidVerifier::new(mesh.ca.bundle(), (&server()).into());
    let certificate = certified_key(&mesh.issue(&reviews()), &provider()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certificate)));
    let _client = dial(addr, Arc::new(config)).await.unwrap();
    assert_eq!(accepted.recv().await.unwrap().peer().identity, Some(reviews()));
}

#[tokio::test]
async fn invalid_and_stalled_handshakes_do_not_affect_others() {
    let mesh = Mesh::new(&Clock::system());
    let (addr, mut accepted) = listen(&mesh.server(), HandshakeLimits::default()).await;
    let mut noise = TcpStream::connect(addr).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _silent = TcpStream::connect(addr).await.unwrap();
    drop(TcpStream::connect(addr).await.unwrap());
    let _client = dial(addr, mesh.client(None)).await.unwrap();
    assert!(accepted.recv().await.is_some());
    let mut rest = Vec::new();
    noise.read_to_end(&mut rest).await.ok();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
}

#[tokio::test]
async fn handshakes_are_limited_in_number_and_time() {
    let mesh = Mesh::new(&Clock::system());
    let limits = HandshakeLimits {
        timeout: Duration::from_secs(1),
        in_flight: 1,
    };
    let (addr, mut accepted) = listen(&mesh.server(), limits).await;
    let mut silent = TcpStream::connect(addr).await.unwrap();
    let began = std::time::Instant::now();
    let _client = dial(addr, mesh.client(None)).await.unwrap();
    assert!(accepted.recv().await.is_some());
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "the silent one held the only place"
    );
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "and lost it");
}

/// The peer's identity as seen by a service served by tonic.
async fn who(axum::Extension(peer): axum::Extension<PeerInfo>) -> String {
    peer.identity.map_or_else(|| "nobody".to_owned(), |id| id.to_string())
}

#[tokio::test]
async fn tonic_serves_the_stream_and_exposes_the_peer() {
    let mesh = Mesh::new(&Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let incoming = TlsIncoming::new(listener, &mesh.server());
    let routes = axum::Router::new().route("/who", axum::routing::get(who));
    let server = tonic::transport::Server::builder().add_routes(routes.into());
    tokio::spawn(server.serve_with_incoming(incoming));

    let certificate = mesh.issue(&reviews());
    for (shown, expected) in [(None, "nobody".to_owned()), (Some(&certificate), reviews().to_string())] {
        let stream = dial(addr, mesh.client(shown)).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("https://mesh/who");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        assert_eq!(body.to_bytes(), expected.as_bytes());
    }
}
