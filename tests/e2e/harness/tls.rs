//! TLS clients and servers with arbitrary certificates, or none.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use topsail::clock::Clock;
use topsail::pki::{Ca, IssueOptions, StateDir};

use super::client::{Answer, Call};

/// A certificate and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Issues a certificate for this SPIFFE ID with the CA in a state directory, which is created
    /// for the trust domain `authority` if necessary.
    pub fn issued(state: &Path, authority: &str, spiffe_id: &str) -> Self {
        fs::create_dir_all(state).unwrap();
        let state = StateDir::open(state).unwrap();
        let ca = Ca::load_or_create(&state, &authority.parse().unwrap(), &Clock::system()).unwrap();
        let issued = ca.issue(&spiffe_id.parse().unwrap(), &IssueOptions::default()).unwrap();
        Self::of(&issued.chain_pem, issued.key_pem.expose())
    }

    /// A certificate chain and key, in PEM.
    pub fn of(chain: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
        Self {
            chain: chain.map(Result::unwrap).collect(),
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        }
    }
}

/// A CA for servers outside of the mesh.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub pem: String,
}

impl Authority {
    /// Creates a CA.
    pub fn new(name: &str) -> Self {
        let mut params = Self::params(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Issues a certificate for this DNS name, valid to the end of a year; returns it and its key
    /// in PEM.
    pub fn issue(&self, name: &str, until: i32) -> (String, String) {
        let mut params = Self::params(name, vec![name.to_owned()]);
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A TLS acceptor with a certificate for this DNS name that optionally requires client
    /// certificates of the same CA.
    pub fn acceptor(&self, name: &str, mutual: bool) -> TlsAcceptor {
        let (chain, key) = self.issue(name, 2100);
        let identity = Identity::of(&chain, &key);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(identity.chain, identity.key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn params(name: &str, names: Vec<String>) -> CertificateParams {
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }
}

/// A TLS acceptor with a self-signed certificate.
pub(super) fn acceptor(name: &str) -> TlsAcceptor {
    let state = tempfile::tempdir().unwrap();
    let identity = Identity::issued(
        state.path(),
        "app.example",
        &format!("spiffe://app.example/ns/apps/sa/{name}"),
    );
    acceptor_with(identity)
}

/// A TLS acceptor with this certificate, without client authentication.
pub fn acceptor_with(identity: Identity) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = builder
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Connects to a listener with TLS, without verifying the server.
pub async fn connect(
    to: SocketAddr,
    sni: &str,
    identity: Option<&Identity>,
    alpn: &[&str],
) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    over(stream, sni, identity, alpn).await
}

/// Starts TLS on a connection.
pub async fn over(
    stream: TcpStream,
    sni: &str,
    identity: Option<&Identity>,
    alpn: &[&str],
) -> Result<TlsStream<TcpStream>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())
}

/// Sends an HTTP/1.1 request over TLS, as between sidecars.
pub async fn send(call: &Call, identity: Option<&Identity>) -> Result<Answer, String> {
    let stream = connect(
        call.to(),
        "sidecar.example",
        identity,
        &["istio-http/1.1", "istio", "http/1.1"],
    )
    .await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let response = sender
        .send_request(call.request())
        .await
        .map_err(|error| error.to_string())?;
    Answer::read(response).await
}

/// Accepts any certificate, since the server is under test.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
