//! Readiness probes of an application, as in Kubernetes and Istio's WorkloadGroup.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::interception::{self, Family};
use crate::tls::unverified_client_config;
use crate::xds::joining;

/// Default `User-Agent`.
const USER_AGENT: &str = concat!("topsail-probe/", env!("CARGO_PKG_VERSION"));

/// A readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Host name or IP address; `None` for loopback.
    host: Option<String>,
    port: u16,
    /// The HTTP request; `None` for a TCP probe.
    get: Option<Get>,
}

/// An `httpGet` probe.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Get {
    path: Uri,
    tls: bool,
    headers: HeaderMap,
}

impl FromStr for Probe {
    type Err = String;

    /// Parses `tcp:PORT` or `http:PORT[/PATH]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected tcp:PORT or http:PORT[/PATH], such as tcp:9080 or http:9080/health".to_owned();
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (port, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let path = match (kind, path) {
            ("tcp", "") => None,
            ("http", "") => Some(Uri::from_static("/")),
            ("http", path) => Some(path.parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        let get = path.map(|path| Get {
            path,
            tls: false,
            headers: HeaderMap::new(),
        });
        Ok(Self { host: None, port, get })
    }
}

impl TryFrom<&joining::Probe> for Probe {
    type Error = String;

    fn try_from(probe: &joining::Probe) -> Result<Self, String> {
        let port = u16::try_from(probe.port).ok().filter(|port| *port != 0);
        Ok(Self {
            host: Some(probe.host.clone()).filter(|host| !host.is_empty()),
            port: port.ok_or_else(|| format!("{} is not a port", probe.port))?,
            get: probe.http_get.as_ref().map(Get::try_from).transpose()?,
        })
    }
}

impl TryFrom<&joining::HttpGet> for Get {
    type Error = String;

    fn try_from(get: &joining::HttpGet) -> Result<Self, String> {
        let header = |header: &joining::Header| {
            let name: HeaderName = header.name.parse().ok()?;
            Some((name, HeaderValue::from_str(&header.value).ok()?))
        };
        let headers: Option<Vec<_>> = get.headers.iter().map(header).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers.ok_or("invalid header in the request")? {
            map.append(name, value);
        }
        Ok(Self {
            path: get.path.parse().map_err(|_| format!("`{}` is not a path", get.path))?,
            tls: get.tls,
            headers: map,
        })
    }
}

impl Probe {
    /// Probes the application of the workload with address `own`; the error says why it is not ready.
    /// `patience` is the timeout.
    pub(super) async fn ask(&self, own: IpAddr, patience: Duration) -> Result<(), String> {
        let late = |_| Err(format!("no response within {patience:?}"));
        timeout(patience, self.ask_anywhere(own)).await.unwrap_or_else(late)
    }

    async fn ask_anywhere(&self, own: IpAddr) -> Result<(), String> {
        let mut failures = Vec::new();
        for address in self.addresses().await? {
            match self.ask_at(address, own).await {
                Ok(()) => return Ok(()),
                Err(why) => failures.push(why),
            }
        }
        Err(failures.join("; "))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let Some(host) = &self.host else {
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(loopback.map(|address| SocketAddr::new(address, self.port)).to_vec());
        };
        let found = tokio::net::lookup_host((host.as_str(), self.port)).await;
        Ok(found
            .map_err(|error| format!("cannot resolve {host}: {error}"))?
            .collect())
    }

    async fn ask_at(&self, address: SocketAddr, own: IpAddr) -> Result<(), String> {
        let connected = connect(address, own).await;
        let stream = connected.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let Some(get) = &self.get else { return Ok(()) };
        let host = self.host.clone().unwrap_or_else(|| address.ip().to_string());
        let status = match get.tls {
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                let config = unverified_client_config().map_err(|error| error.to_string())?;
                let encrypted = TlsConnector::from(config).connect(name, stream).await;
                get.status(
                    encrypted.map_err(|error| format!("{address}: {error}"))?,
                    &host,
                    self.port,
                )
                .await
            }
            false => get.status(stream, &host, self.port).await,
        };
        match status {
            // 2xx and 3xx are success, as in Kubernetes.
            Ok(status) if status.is_success() || status.is_redirection() => Ok(()),
            Ok(status) => Err(format!("{address}{} returned {status}", get.path)),
            Err(error) => Err(format!("{address}: {error}")),
        }
    }
}

/// Connects to an application. To the workload's own address, it connects from the source address of the
/// proxy's own connections, which interception exempts; otherwise the probe would be redirected like inbound
/// traffic.
async fn connect(address: SocketAddr, own: IpAddr) -> io::Result<TcpStream> {
    let (socket, family) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, Family::V4),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, Family::V6),
    };
    if address.ip() == own {
        // Ignored: without interception the address may not exist.
        let _ = socket.bind(SocketAddr::new(interception::own_source(family).addr(), 0));
    }
    socket.connect(address).await
}

impl Get {
    /// The status of the response; its body is not read.
    async fn status<I>(&self, io: I, host: &str, port: u16) -> Result<StatusCode, hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let host = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        headers.extend(HeaderValue::from_str(&host).ok().map(|host| (header::HOST, host)));
        for name in self.headers.keys() {
            headers.remove(name);
        }
        headers.extend(self.headers.clone());
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        let mut exchange = pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut exchange => answer,
            // The connection ended: the exchange then completes with a response or an error.
            _ = connection => exchange.await,
        };
        answer.map(|answer| answer.status())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9));
    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn probes_are_parsed() {
        let probe = |text: &str| text.parse::<Probe>();
        let tcp = Probe {
            host: None,
            port: 9080,
            get: None,
        };
        assert_eq!(probe("tcp:9080").unwrap(), tcp);
        let path = |text: &str| probe(text).unwrap().get.unwrap().path.to_string();
        assert_eq!(path("http:9080/health?full=1"), "/health?full=1");
        assert_eq!(path("http:9080"), "/");
        for text in ["", "9080", "tcp:0", "tcp:9080/x", "udp:9080", "http:/x", "http:9080/ x"] {
            assert!(probe(text).unwrap_err().contains("tcp:9080"), "{text}");
        }
    }

    #[tokio::test]
    async fn tcp_and_http_probes() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let ask = async |text: String| text.parse::<Probe>().unwrap().ask(OWN, PATIENCE).await;
            ask(format!("tcp:{port}")).await.unwrap();
            let application = tokio::spawn(async move {
                for status in ["", "200 OK", "302 Found", "503 Service Unavailable"] {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = stream.read(&mut [0; 1024]).await;
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            let http = format!("http:{port}/health");
            ask(http.clone()).await.unwrap();
            ask(http.clone()).await.unwrap();
            assert!(ask(http).await.unwrap_err().contains("503"));
            application.await.unwrap();
            ask(format!("tcp:{port}")).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn probes_of_workload_groups() {
        let listener = TcpListener::bind((OWN, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let header = |name: &str, value: &str| joining::Header {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let probe = |headers| joining::Probe {
            host: OWN.to_string(),
            port: port.into(),
            http_get: Some(joining::HttpGet {
                path: "/a?b".to_owned(),
                tls: false,
                headers,
            }),
            ..joining::Probe::default()
        };
        let application = tokio::spawn(async move {
            let mut heard = Vec::new();
            for _ in 0..2 {
                let (mut stream, client) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let len = stream.read(&mut request).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                heard.push((client.ip(), String::from_utf8_lossy(&request[..len]).into_owned()));
            }
            heard
        });
        for headers in [
            Vec::new(),
            vec![header("Host", "web"), header("a", "b"), header("a", "c")],
        ] {
            let probe = Probe::try_from(&probe(headers)).unwrap();
            probe.ask(OWN, PATIENCE).await.unwrap();
        }
        let [(client, plain), (_, with_headers)] = <[_; 2]>::try_from(application.await.unwrap()).unwrap();
        assert_eq!(client.to_string(), "127.0.0.6", "as the proxy's own calls");
        assert!(plain.starts_with("GET /a?b HTTP/1.1\r\n"), "{plain}");
        assert!(plain.contains(&format!("host: {OWN}:{port}\r\n")), "{plain}");
        assert!(plain.contains(USER_AGENT), "{plain}");
        for line in ["host: web\r\n", "a: b\r\n", "a: c\r\n"] {
            assert!(with_headers.contains(line), "{with_headers}");
        }
        assert_eq!(with_headers.matches("host:").count(), 1, "{with_headers}");
    }

    #[tokio::test]
    async fn https_probes_accept_any_certificate() {
        let elsewhere = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(elsewhere.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![elsewhere.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let application = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            let _ = stream.shutdown().await;
        });
        let probe = joining::Probe {
            port: port.into(),
            http_get: Some(joining::HttpGet {
                path: "/".to_owned(),
                tls: true,
                headers: Vec::new(),
            }),
            ..joining::Probe::default()
        };
        Probe::try_from(&probe).unwrap().ask(OWN, PATIENCE).await.unwrap();
        application.await.unwrap();
    }

    #[tokio::test]
    async fn probes_time_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe: Probe = format!("http:{port}").parse().unwrap();
        let why = probe.ask(OWN, Duration::from_millis(50)).await.unwrap_err();
        assert!(why.contains("50ms"), "{why}");
    }

    #[test]
    fn invalid_probes_are_rejected() {
        let probe = |port, path: &str, name: &str| {
            let header = joining::Header {
                name: name.to_owned(),
                value: String::new(),
            };
            Probe::try_from(&joining::Probe {
                port,
                http_get: Some(joining::HttpGet {
                    path: path.to_owned(),
                    tls: false,
                    headers: vec![header],
                }),
                ..joining::Probe::default()
            })
        };
        probe(80, "/", "a").unwrap();
        for (port, path, name) in [(0, "/", "a"), (70_000, "/", "a"), (80, "/ ", "a"), (80, "/", "a b")] {
            probe(port, path, name).unwrap_err();
        }
    }
}
