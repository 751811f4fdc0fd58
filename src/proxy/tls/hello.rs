//! The first message of a client, for choosing a filter chain.

use rustls::server::Acceptor;

/// Longest first message that is read, as in Envoy.
const LONGEST: usize = 64 * 1024;

/// The type of a record that holds a handshake message, and the major version of every TLS.
const HANDSHAKE: [u8; 2] = [22, 3];

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// No TLS, or none that could be served.
    NotTls,
    /// It may be TLS; more bytes are needed.
    Partial,
    /// A whole ClientHello.
    Complete {
        /// The server name, lower case.
        sni: Option<String>,
        /// Application protocols, as they are preferred.
        alpn: Vec<Vec<u8>>,
    },
}

/// Looks at the first bytes of a connection, which stay to be read.
pub(crate) fn client_hello(bytes: &[u8]) -> Hello {
    let prefix = bytes.len().min(HANDSHAKE.len());
    if bytes[..prefix] != HANDSHAKE[..prefix] {
        return Hello::NotTls;
    }
    let mut acceptor = Acceptor::default();
    let mut left = &bytes[..bytes.len().min(LONGEST)];
    while !left.is_empty() {
        if !matches!(acceptor.read_tls(&mut left), Ok(1..)) {
            return Hello::NotTls;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Hello::Complete {
                    sni: hello.server_name().map(str::to_ascii_lowercase),
                    alpn: hello
                        .alpn()
                        .map(|all| all.map(<[u8]>::to_vec).collect())
                        .unwrap_or_default(),
                };
            }
            Err(_) => return Hello::NotTls,
        }
    }
    if bytes.len() >= LONGEST {
        return Hello::NotTls;
    }
    Hello::Partial
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::proxy::tls::suites;

    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(suites::provider().clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_whole_hello_tells_the_server_name_and_the_protocols() {
        let name = "outbound_.9080_._.Reviews.default.svc.cluster.local";
        let complete = Hello::Complete {
            sni: Some(name.to_ascii_lowercase()),
            alpn: vec![b"istio".to_vec(), b"h2".to_vec()],
        };
        assert_eq!(client_hello(&hello(name, &["istio", "h2"])), complete);
        let nameless = Hello::Complete {
            sni: None,
            alpn: Vec::new(),
        };
        assert_eq!(client_hello(&hello("127.0.0.1", &[])), nameless);
    }

    #[test]
    fn every_beginning_of_one_asks_for_more() {
        let bytes = hello("example.com", &["h2"]);
        for end in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..end]), Hello::Partial, "{end}");
        }
    }

    #[test]
    fn http_and_server_first_bytes_are_no_tls() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x02", b"SSH-2.0"] {
            assert_eq!(client_hello(bytes), Hello::NotTls);
        }
        let endless = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; LONGEST]].concat();
        assert_eq!(client_hello(&endless), Hello::NotTls);
    }

    proptest::proptest! {
        #[test]
        fn garbage_does_no_harm(noise: Vec<u8>, at in 0_usize..300) {
            client_hello(&noise);
            client_hello(&[&HANDSHAKE[..], &noise].concat());
            let mut bent = hello("example.com", &["h2"]);
            let at = at.min(bent.len());
            let end = (at + noise.len()).min(bent.len());
            bent.splice(at..end, noise);
            client_hello(&bent);
        }
    }
}
