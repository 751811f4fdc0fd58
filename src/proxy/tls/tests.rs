//! Handshakes of the proxy's two sides with each other, over sockets on the loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::downstream::Secured;
use super::*;
use crate::proxy::connection::LocalEnd;
use crate::proxy::io::{Io, Rewound, Socket};
use crate::proxy::listener::FilterChain;
use crate::proxy::listener::chain::{ChainIndex, MatchInputs};
use crate::proxy::matcher::{Pattern, StringMatcher};
use crate::proxy::slot::Slot;
use crate::proxy::upstream::cluster::Transport;
use crate::proxy::upstream::connect::Connected;
use crate::proxy::upstream::host::{EdsHealth, Host, HostAddress, HostState, Locality};

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/productpage";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// A certificate authority.
struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self(Issuer::new(params, key), root)
    }

    fn issue(&self, names: Vec<SanType>, change: impl FnOnce(&mut CertificateParams)) -> Arc<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "workload");
        params.subject_alt_names = names;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = CertifiedKey::from_der(vec![leaf], key, suites::provider()).unwrap();
        Arc::new(Certificate::new(key))
    }

    fn workload(&self, uri: &str) -> Arc<Certificate> {
        self.issue(vec![SanType::URI(uri.try_into().unwrap())], |_| ())
    }

    fn trust(&self) -> Arc<TrustAnchors> {
        Arc::new(TrustAnchors::new(vec![self.1.clone()], Vec::new(), Vec::new(), false).unwrap())
    }
}

fn slot<T>(value: Arc<T>) -> Arc<Slot<T>> {
    Arc::new(Slot::filled("secret", value))
}

fn uri(pattern: Pattern) -> SanMatcher {
    SanMatcher::Uri(StringMatcher::new(pattern, false))
}

fn exactly(name: &str) -> SanMatcher {
    uri(Pattern::Exact(name.as_bytes().into()))
}

fn verification(trust: Arc<TrustAnchors>, names: Vec<SanMatcher>) -> Verification {
    Verification {
        trust: Some(slot(trust)),
        trust_timeout: None,
        names: names.into(),
        server_name: false,
    }
}

/// A server as the control plane configures sidecars: clients of the trust domain only.
fn sidecar(authority: &Authority) -> DownstreamTls {
    let mut tls = DownstreamTls::new(slot(authority.workload(SERVER)));
    let domain = uri(Pattern::Prefix(b"spiffe://cluster.local/"[..].into()));
    tls.verification = verification(authority.trust(), vec![domain]);
    tls.require_client_certificate = true;
    tls.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls
}

/// A client that shows a certificate to a server with this identity.
fn client(authority: &Authority, own: &str, server: &str) -> UpstreamTls {
    let mut tls = UpstreamTls::default();
    tls.certificate = Some(slot(authority.workload(own)));
    tls.verification = verification(authority.trust(), vec![exactly(server)]);
    tls.sni = Some("outbound_.9080_._.reviews.default.svc.cluster.local".into());
    tls.alpn = vec![b"istio-h2".to_vec(), b"istio".to_vec(), b"h2".to_vec()];
    tls
}

fn host(address: SocketAddr) -> Host {
    Host {
        address: HostAddress::Ip(address),
        hostname: Some("host.example".into()),
        weight: 1,
        locality: Arc::new(Locality::default()),
        priority: 0,
        eds: EdsHealth::Healthy,
        transport: Transport::default(),
        checked: None,
        state: Arc::new(HostState::default()),
    }
}

/// What both sides say of a handshake, and what they counted.
struct Met {
    server: io::Result<Secured>,
    client: io::Result<Connected>,
}

#[derive(Default)]
struct Counted {
    server: TlsStats,
    client: TlsStats,
}

async fn dial(
    client: &UpstreamTls,
    address: SocketAddr,
    overrides: TlsOverrides<'_>,
    stats: &TlsStats,
) -> io::Result<Connected> {
    let io = Io::Tcp(TcpStream::connect(address).await?);
    client
        .connect(io, LocalEnd::default(), &host(address), overrides, stats)
        .await
}

async fn meet_as(server: &DownstreamTls, client: &UpstreamTls, overrides: TlsOverrides<'_>, stats: &Counted) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut secured = server
            .accept(Rewound::new(Socket::Tcp(stream), Bytes::new()), &stats.server)
            .await?;
        secured.stream.write_all(b"!").await?;
        Ok(secured)
    };
    let connecting = async {
        let mut connected = dial(client, address, overrides, &stats.client).await?;
        // In TLS 1.3 the server's verdict comes after the handshake.
        connected.io.read_exact(&mut [0]).await?;
        Ok(connected)
    };
    let (server, client) = tokio::join!(accepting, connecting);
    Met { server, client }
}

async fn meet(server: &DownstreamTls, client: &UpstreamTls, stats: &Counted) -> Met {
    meet_as(server, client, TlsOverrides::default(), stats).await
}

#[track_caller]
fn count(counter: &std::sync::atomic::AtomicU64, expected: u64) {
    assert_eq!(counter.load(Relaxed), expected);
}

#[tokio::test]
async fn two_sidecars_know_each_other() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let met = meet(&sidecar(&authority), &client(&authority, CLIENT, SERVER), &stats).await;
    let (secured, connected) = (met.server.unwrap(), met.client.unwrap());
    assert_eq!(connected.alpn.as_deref(), Some(&b"h2"[..]));
    let name = "outbound_.9080_._.reviews.default.svc.cluster.local";
    assert_eq!(secured.sni.as_deref(), Some(name));
    let peer = secured.peer;
    assert_eq!(peer.uri_sans, [CLIENT]);
    assert_eq!(peer.own.as_ref().unwrap().uri_sans, [SERVER]);
    assert_eq!((&*peer.subject, peer.presented), ("CN=workload", true));
    assert_eq!((peer.version, peer.cipher), ("TLSv1.3", "TLS_AES_128_GCM_SHA256"));
    assert!(peer.pem.starts_with("-----BEGIN%20CERTIFICATE-----%0A"));
    count(&stats.server.handshake, 1);
    count(&stats.client.handshake, 1);
    count(&stats.server.no_certificate, 0);
}

#[tokio::test]
async fn an_older_version_is_spoken_if_it_is_asked_for() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let mut client = client(&authority, CLIENT, SERVER);
    let suites = ["ECDHE-ECDSA-AES256-GCM-SHA384".to_owned()];
    client.protocols = Protocols::new(2, 2, &suites, &[]).unwrap();
    let peer = meet(&sidecar(&authority), &client, &stats).await.server.unwrap().peer;
    assert_eq!(
        (peer.version, peer.cipher),
        ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
    );
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let client = client(&authority, CLIENT, "spiffe://cluster.local/ns/default/sa/ratings");
    let met = meet(&sidecar(&authority), &client, &stats).await;
    let error = met.client.unwrap_err().to_string();
    let expected = format!("TLS_error: the certificate has none of the expected names, but `{SERVER}`");
    assert_eq!(error, expected);
    assert!(met.server.is_err());
    count(&stats.client.fail_verify_san, 1);
    count(&stats.client.handshake, 0);
}

#[tokio::test]
async fn clients_of_another_trust_domain_are_refused() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let other = client(&authority, "spiffe://evil.example/ns/default/sa/a", SERVER);
    let met = meet(&sidecar(&authority), &other, &stats).await;
    assert!(met.server.is_err() && met.client.is_err());
    count(&stats.server.fail_verify_san, 1);
}

#[tokio::test]
async fn clients_of_another_root_and_expired_ones_are_refused() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let server = sidecar(&authority);
    let stranger = client(&authority, CLIENT, SERVER);
    let slot = stranger.certificate.as_ref().unwrap();
    slot.set(Some(Authority::new("Other").workload(CLIENT)));
    assert!(meet(&server, &stranger, &stats).await.server.is_err());
    count(&stats.server.fail_verify_error, 1);
    let names = vec![SanType::URI(CLIENT.try_into().unwrap())];
    slot.set(Some(
        authority.issue(names, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
    ));
    assert!(meet(&server, &stranger, &stats).await.server.is_err());
    count(&stats.server.fail_verify_error, 2);
}

#[tokio::test]
async fn a_certificate_of_servers_only_is_none_for_clients() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let client = client(&authority, CLIENT, SERVER);
    let names = vec![SanType::URI(CLIENT.try_into().unwrap())];
    let servers_only = authority.issue(names, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    client.certificate.as_ref().unwrap().set(Some(servers_only));
    assert!(meet(&sidecar(&authority), &client, &stats).await.server.is_err());
    count(&stats.server.fail_verify_error, 1);
}

#[tokio::test]
async fn clients_without_a_certificate_are_refused_only_where_one_is_required() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let mut server = sidecar(&authority);
    let mut client = client(&authority, CLIENT, SERVER);
    client.certificate = None;
    assert!(meet(&server, &client, &stats).await.server.is_err());
    count(&stats.server.fail_verify_no_cert, 1);
    server = sidecar(&authority);
    server.require_client_certificate = false;
    let secured = meet(&server, &client, &stats).await.server.unwrap();
    assert!(!secured.peer.presented && secured.peer.subject.is_empty());
    count(&stats.server.no_certificate, 1);
}

#[tokio::test]
async fn simple_tls_matches_names_of_any_type() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let names = vec![
        SanType::DnsName("*.example.com".try_into().unwrap()),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
        SanType::Rfc822Name("me@example.com".try_into().unwrap()),
    ];
    let server = DownstreamTls::new(slot(authority.issue(names, |_| ())));
    let text = |text: &str| StringMatcher::new(Pattern::Exact(text.as_bytes().into()), false);
    let with = |name: SanMatcher| {
        let mut client = UpstreamTls::default();
        client.verification = verification(authority.trust(), vec![name, exactly("spiffe://other")]);
        client
    };
    let good = [
        SanMatcher::DnsName("www.example.com".into()),
        SanMatcher::Dns(StringMatcher::new(Pattern::Suffix(b".com"[..].into()), false)),
        SanMatcher::Ip(text("10.0.0.1")),
        SanMatcher::Email(text("me@example.com")),
    ];
    for name in good {
        meet(&server, &with(name), &stats).await.client.unwrap();
    }
    let error = meet(&server, &with(SanMatcher::DnsName("example.com".into())), &stats).await;
    assert!(error.client.is_err());
    count(&stats.client.fail_verify_san, 1);
    count(&stats.server.no_certificate, 4);
}

#[tokio::test]
async fn without_trust_any_server_will_do() {
    let stats = Counted::default();
    let server = DownstreamTls::new(slot(Authority::new("Unknown").workload("spiffe://whoever")));
    meet(&server, &UpstreamTls::default(), &stats).await.client.unwrap();
}

#[tokio::test]
async fn the_name_that_is_asked_for_is_the_requests_the_hosts_or_the_configured_one() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let names = vec![SanType::DnsName("wished.example".try_into().unwrap())];
    let server = DownstreamTls::new(slot(authority.issue(names, |_| ())));
    let mut client = UpstreamTls::default();
    let sni = async |client: &UpstreamTls, sni| {
        let overrides = TlsOverrides {
            sni,
            ..TlsOverrides::default()
        };
        meet_as(&server, client, overrides, &stats).await.server.unwrap().sni
    };
    assert_eq!(sni(&client, None).await, None);
    client.sni = Some("configured.example".into());
    assert_eq!(sni(&client, None).await.as_deref(), Some("configured.example"));
    client.host_sni = true;
    assert_eq!(sni(&client, None).await.as_deref(), Some("host.example"));
    assert_eq!(
        sni(&client, Some("wished.example")).await.as_deref(),
        Some("wished.example")
    );
    client.verification = verification(authority.trust(), Vec::new());
    client.verification.server_name = true;
    let overrides = |sni| TlsOverrides {
        sni,
        ..TlsOverrides::default()
    };
    let right = meet_as(&server, &client, overrides(Some("wished.example")), &stats).await;
    right.client.unwrap();
    let wrong = meet_as(&server, &client, overrides(Some("other.example")), &stats).await;
    assert!(wrong.client.is_err());
    count(&stats.client.fail_verify_san, 1);
}

#[tokio::test]
async fn a_pool_offers_its_protocols_where_none_are_configured() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let server = sidecar(&authority);
    let mut client = client(&authority, CLIENT, SERVER);
    client.alpn.clear();
    for (offer, expected) in [
        (Offer::Nothing, None),
        (Offer::Http1, Some(&b"http/1.1"[..])),
        (Offer::Http2, Some(b"h2")),
        (Offer::Either, Some(b"h2")),
    ] {
        let met = meet_as(
            &server,
            &client,
            TlsOverrides {
                offer,
                ..TlsOverrides::default()
            },
            &stats,
        )
        .await;
        assert_eq!(met.client.unwrap().alpn.as_deref(), expected);
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on_and_open_connections_live() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let (server, client) = (sidecar(&authority), client(&authority, CLIENT, SERVER));
    let before = meet(&server, &client, &stats).await;
    let renewed = authority.workload("spiffe://cluster.local/ns/default/sa/renewed");
    client.certificate.as_ref().unwrap().set(Some(renewed));
    let after = meet(&server, &client, &stats).await.server.unwrap();
    assert_eq!(after.peer.uri_sans, ["spiffe://cluster.local/ns/default/sa/renewed"]);
    count(&stats.server.session_reused, 0);
    let (mut one, mut other) = (before.server.unwrap().stream, before.client.unwrap().io);
    other.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    one.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
}

#[tokio::test]
async fn a_new_root_refuses_whom_the_old_one_believed_resumption_or_not() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let (server, client) = (sidecar(&authority), client(&authority, CLIENT, SERVER));
    meet(&server, &client, &stats).await.client.unwrap();
    meet(&server, &client, &stats).await.client.unwrap();
    count(&stats.server.session_reused, 1);
    let trust = server.verification.trust.as_ref().unwrap();
    trust.set(Some(Authority::new("New").trust()));
    assert!(meet(&server, &client, &stats).await.server.is_err());
    count(&stats.server.fail_verify_error, 1);
}

#[tokio::test]
async fn a_resumed_session_still_tells_who_the_client_is() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let (server, client) = (sidecar(&authority), client(&authority, CLIENT, SERVER));
    meet(&server, &client, &stats).await.client.unwrap();
    let resumed = meet(&server, &client, &stats).await.server.unwrap();
    count(&stats.server.session_reused, 1);
    count(&stats.client.session_reused, 1);
    assert_eq!(resumed.peer.uri_sans, [CLIENT]);
}

#[tokio::test]
async fn without_a_secret_no_connection_is_secured_and_none_is_plain() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let (server, client) = (sidecar(&authority), client(&authority, CLIENT, SERVER));
    server.certificate.set(None);
    let met = meet(&server, &client, &stats).await;
    assert_eq!(
        met.server.unwrap_err().to_string(),
        "the secret `secret` has not been received"
    );
    assert!(met.client.is_err());
    count(&stats.server.secrets_not_ready, 1);
    client.verification.trust.as_ref().unwrap().set(None);
    assert!(meet(&server, &client, &stats).await.client.is_err());
    count(&stats.client.secrets_not_ready, 1);
}

#[tokio::test]
async fn handshakes_build_a_configuration_once_for_each_version_of_the_secrets() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let (server, client) = (sidecar(&authority), client(&authority, CLIENT, SERVER));
    let made = || (server.made().unwrap(), client.made().unwrap());
    let before = made();
    meet(&server, &client, &stats).await.client.unwrap();
    let after = made();
    assert!(Arc::ptr_eq(&before.0, &after.0) && Arc::ptr_eq(&before.1, &after.1));
    server.certificate.set(Some(authority.workload(SERVER)));
    let renewed = made();
    assert!(!Arc::ptr_eq(&after.0, &renewed.0) && Arc::ptr_eq(&after.1, &renewed.1));
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_an_error_of_the_connection() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let server = sidecar(&authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let error = server
        .accept(Rewound::new(Socket::Tcp(stream), Bytes::new()), &stats.server)
        .await;
    assert!(error.is_err());
    count(&stats.server.connection_error, 1);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let (server, client) = (sidecar(&authority), client(&authority, CLIENT, SERVER));
    let serial = rcgen::SerialNumber::from(7);
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&authority.0).unwrap();
    let trust = TrustAnchors::new(vec![authority.1.clone()], Vec::new(), vec![list.der().clone()], false);
    let trust = Arc::new(trust.unwrap());
    let place = server.verification.trust.as_ref().unwrap();
    place.set(Some(trust.clone()));
    meet(&server, &client, &stats).await.client.unwrap();
    let revoked = |name: &str| {
        let names = vec![SanType::URI(name.try_into().unwrap())];
        authority.issue(names, |params| params.serial_number = Some(serial.clone()))
    };
    client.certificate.as_ref().unwrap().set(Some(revoked(CLIENT)));
    assert!(meet(&server, &client, &stats).await.server.is_err());
    count(&stats.server.fail_verify_error, 1);
    client
        .certificate
        .as_ref()
        .unwrap()
        .set(Some(authority.workload(CLIENT)));
    client.verification.trust.as_ref().unwrap().set(Some(trust));
    server.certificate.set(Some(revoked(SERVER)));
    assert!(meet(&server, &client, &stats).await.client.is_err());
    count(&stats.client.fail_verify_error, 1);
}

/// The chains of a permissive listener: mutual TLS by its protocols, all other TLS, and plaintext.
fn permissive(authority: &Authority) -> ChainIndex {
    use crate::proxy::config::{Names, chain};
    use crate::proxy::listener::Direction;
    use crate::xds::pb::listener::{Filter, FilterChainMatch, filter::ConfigType};
    use crate::xds::pb::network_filter::tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier};
    use prost::{Message, Name};
    let proxy = TcpProxy {
        cluster_specifier: Some(ClusterSpecifier::Cluster("inbound".into())),
        stat_prefix: "inbound".into(),
        ..Default::default()
    };
    let filter = Filter {
        name: "envoy.filters.network.tcp_proxy".into(),
        config_type: Some(ConfigType::TypedConfig(crate::xds::pb::wkt::Any {
            type_url: format!("type.googleapis.com/{}", TcpProxy::full_name()),
            value: proxy.encode_to_vec(),
        })),
    };
    let chain = |name: &str, transport: &str, alpn: &[&str]| {
        let message = crate::xds::pb::listener::FilterChain {
            name: name.into(),
            filter_chain_match: Some(FilterChainMatch {
                transport_protocol: transport.into(),
                application_protocols: alpn.iter().map(ToString::to_string).collect(),
                ..Default::default()
            }),
            filters: vec![filter.clone()],
            ..Default::default()
        };
        let within = chain::Within {
            direction: Direction::Inbound,
            stat_prefix: "",
            buffer_limit: 1 << 20,
        };
        chain::chain(&message, within, &mut Names::default()).unwrap()
    };
    let mut mutual = chain("mutual", "tls", &["istio", "istio-h2"]);
    mutual.tls = Some(Arc::new(sidecar(authority)));
    let others = [chain("passthrough", "tls", &[]), chain("plaintext", "raw_buffer", &[])];
    let chains = [mutual].into_iter().chain(others).map(Arc::new).collect();
    ChainIndex::new(chains, None).unwrap()
}

/// What a listener does with the first bytes of a connection: it finds the chain by them, and serves TLS with them.
async fn inspected(chains: &ChainIndex, mut stream: TcpStream) -> (Arc<FilterChain>, Rewound) {
    let mut read = vec![0; 16 * 1024];
    let mut len = 0;
    let hello = loop {
        match client_hello(&read[..len]) {
            Hello::Partial => len += stream.read(&mut read[len..]).await.unwrap(),
            hello => break hello,
        }
    };
    let (tls, alpn) = match hello {
        Hello::Complete { alpn, .. } => (true, alpn),
        Hello::NotTls | Hello::Partial => (false, Vec::new()),
    };
    let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let inputs = MatchInputs {
        port: local.port(),
        destination: local.ip(),
        server_name: None,
        tls,
        alpn: &alpn,
        direct_source: remote.ip(),
        source: remote.ip(),
        source_port: remote.port(),
    };
    read.truncate(len);
    (
        chains.find(&inputs).unwrap().clone(),
        Rewound::new(Socket::Tcp(stream), read.into()),
    )
}

#[tokio::test]
async fn a_permissive_listener_tells_mutual_tls_from_other_tls_and_from_plaintext() {
    let (authority, stats) = (Authority::new("Root"), Counted::default());
    let chains = permissive(&authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mesh = client(&authority, CLIENT, SERVER);
    let accepting = async {
        let (chain, stream) = inspected(&chains, listener.accept().await.unwrap().0).await;
        let tls = chain.tls.clone().unwrap();
        (chain.name.clone(), tls.accept(stream, &stats.server).await.unwrap())
    };
    let ((name, secured), connected) =
        tokio::join!(accepting, dial(&mesh, address, TlsOverrides::default(), &stats.client));
    assert_eq!((&*name, secured.peer.uri_sans), ("mutual", vec![CLIENT.to_owned()]));
    connected.unwrap();
    let outsider = UpstreamTls::default();
    let accepting = async {
        // What passes is not terminated here.
        let (chain, _stream) = inspected(&chains, listener.accept().await.unwrap().0).await;
        chain.name.clone()
    };
    let (name, refused) = tokio::join!(
        accepting,
        dial(&outsider, address, TlsOverrides::default(), &stats.client)
    );
    assert_eq!((&*name, refused.is_err()), ("passthrough", true));
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (chain, stream) = inspected(&chains, listener.accept().await.unwrap().0).await;
    assert_eq!(&*chain.name, "plaintext");
    let mut first = [0; 3];
    stream.into_io().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"GET");
}
