//! Whether an application is ready, as the probes of Kubernetes and of Istio's WorkloadGroup find out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::envoy;

/// How long the application may take to answer: Kubernetes' `timeoutSeconds`.
const PATIENCE: Duration = Duration::from_secs(1);

/// `tcp:PORT` (Kubernetes' `tcpSocket`) or `http:PORT[/PATH]` (`httpGet`), on the loopback interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    port: u16,
    /// What is asked for; none where a connection is enough.
    path: Option<String>,
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "tcp:PORT or http:PORT[/PATH] is needed, such as tcp:9080 or http:9080/health".to_owned();
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (port, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let path = match (kind, path) {
            ("tcp", "") => None,
            ("http", "") => Some("/".to_owned()),
            ("http", path) if path.parse::<Uri>().is_ok() => Some(path.to_owned()),
            _ => return Err(wrong()),
        };
        Ok(Self { port, path })
    }
}

impl Probe {
    /// Whether the application is ready, and if not, why.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let v4 = self.ask_at((Ipv4Addr::LOCALHOST, self.port).into()).await;
        let Err(why) = v4 else { return Ok(()) };
        let v6 = self.ask_at((Ipv6Addr::LOCALHOST, self.port).into()).await;
        v6.map_err(|_| why)
    }

    async fn ask_at(&self, address: SocketAddr) -> Result<(), String> {
        let asked = async {
            let Some(path) = &self.path else {
                let connected = TcpStream::connect(address).await.map(drop);
                return connected.map_err(|error| format!("no connection to {address}: {error}"));
            };
            match envoy::get(address, path).await {
                // Kubernetes: any status from 200 to 399.
                Ok((status, _)) if status.is_success() || status.is_redirection() => Ok(()),
                Ok((status, _)) => Err(format!("{address}{path} answers {status}")),
                Err(error) => Err(error.to_string()),
            }
        };
        let late = || Err(format!("{address} does not answer within {PATIENCE:?}"));
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| late())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn probes_are_read() {
        let probe = |text: &str| text.parse::<Probe>();
        let tcp = Probe { port: 9080, path: None };
        assert_eq!(probe("tcp:9080").unwrap(), tcp);
        let path = |text: &str| probe(text).unwrap().path.unwrap();
        assert_eq!(path("http:9080/health?full=1"), "/health?full=1");
        assert_eq!(path("http:9080"), "/");
        for text in ["", "9080", "tcp:0", "tcp:9080/x", "udp:9080", "http:/x", "http:9080/ x"] {
            assert!(probe(text).unwrap_err().contains("tcp:9080"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_application_is_ready_when_it_listens_and_when_it_says_so() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let probe = |text: String| text.parse::<Probe>().unwrap();
            probe(format!("tcp:{port}")).ask().await.unwrap();
            let application = tokio::spawn(async move {
                for status in ["", "200 OK", "503 Service Unavailable"] {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = stream.read(&mut [0; 1024]).await;
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            let http = probe(format!("http:{port}/health"));
            http.ask().await.unwrap();
            http.ask().await.unwrap_err();
            application.await.unwrap();
            probe(format!("tcp:{port}")).ask().await.unwrap_err();
        }
    }
}
