//! Parsing the ClientHello, for the TLS inspector.

use std::borrow::Cow;

/// The longest ClientHello that is parsed, as in Envoy, and the longest record, with the expansion that encryption may
/// add (RFC 5246 section 6.2.3).
const LONGEST: usize = 16 * 1024;
const LONGEST_RECORD: usize = (16 + 2) * 1024;

/// Record type of handshake messages, and the major version of every TLS version.
const HANDSHAKE: [u8; 2] = [22, 3];

/// Type of the ClientHello (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;

/// Extension types (RFC 6066 section 3, RFC 7301 section 3.1), and the only name type.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// Not TLS.
    NotTls,
    /// Undecided: more bytes are needed.
    Partial,
    /// A complete ClientHello of any version. Whether that is supported is up to whoever terminates TLS.
    Complete {
        /// SNI, in lower case.
        sni: Option<String>,
        /// The ALPN list, in order of preference.
        alpn: Vec<Vec<u8>>,
    },
}

/// Parses the first bytes of a connection without consuming them.
pub(crate) fn client_hello(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Message::None => Hello::NotTls,
        Message::Partial => Hello::Partial,
        Message::Whole(message) => hello(&message).unwrap_or(Hello::NotTls),
    }
}

/// The first handshake message.
enum Message<'a> {
    None,
    Partial,
    /// Its content, without type and length.
    Whole(Cow<'a, [u8]>),
}

/// Reassembles a message from records.
fn message(mut bytes: &[u8]) -> Message<'_> {
    let mut all = Cow::Borrowed(&[][..]);
    loop {
        let prefix = bytes.len().min(HANDSHAKE.len());
        if bytes[..prefix] != HANDSHAKE[..prefix] {
            return Message::None;
        }
        // The minor version does not matter.
        let header = bytes
            .get(HANDSHAKE.len() + 1..)
            .and_then(<[u8]>::split_first_chunk::<2>);
        let Some((length, rest)) = header else {
            return Message::Partial;
        };
        let length = number(length);
        let is_other = all.is_empty() && rest.first().is_some_and(|kind| *kind != CLIENT_HELLO);
        if length == 0 || length > LONGEST_RECORD || is_other {
            return Message::None;
        }
        let Some((record, rest)) = rest.split_at_checked(length) else {
            return Message::Partial;
        };
        bytes = rest;
        match all.is_empty() {
            true => all = Cow::Borrowed(record),
            false => all.to_mut().extend_from_slice(record),
        }
        let Some(([_kind, length @ ..], _)) = all.split_first_chunk::<4>() else {
            continue;
        };
        let end = 4 + number(length);
        if number(length) > LONGEST {
            return Message::None;
        }
        if all.len() >= end {
            return Message::Whole(match all {
                Cow::Borrowed(all) => Cow::Borrowed(&all[4..end]),
                Cow::Owned(all) => Cow::Owned(all[4..end].to_vec()),
            });
        }
    }
}

/// Parses a ClientHello (RFC 8446 section 4.1.2; those of older versions have the same form).
fn hello(mut message: &[u8]) -> Option<Hello> {
    let version_and_random = 2 + 32;
    message = message.get(version_and_random..)?;
    let _session = vector::<1>(&mut message)?;
    let _suites = vector::<2>(&mut message)?;
    let _compression = vector::<1>(&mut message)?;
    let (mut sni, mut alpn) = (None, Vec::new());
    // The oldest versions have no extensions.
    let mut extensions = match message.is_empty() {
        true => message,
        false => vector::<2>(&mut message)?,
    };
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_first_chunk::<2>()?;
        extensions = rest;
        let mut content = vector::<2>(&mut extensions)?;
        match u16::from_be_bytes(*kind) {
            SERVER_NAME => sni = Some(server_name(only(&mut content)?)?),
            ALPN => alpn = protocols(only(&mut content)?)?,
            _ => {}
        }
    }
    Some(Hello::Complete { sni, alpn })
}

/// The name in a server name list, which must contain exactly one.
fn server_name(names: &[u8]) -> Option<String> {
    let (kind, mut rest) = names.split_first()?;
    let name = vector::<2>(&mut rest).filter(|_| *kind == HOST_NAME && rest.is_empty())?;
    let is_name = !name.is_empty() && !name.contains(&0);
    let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
    Some(name.to_ascii_lowercase())
}

fn protocols(mut list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !list.is_empty() {
        let protocol = vector::<1>(&mut list).filter(|protocol| !protocol.is_empty())?;
        all.push(protocol.to_vec());
    }
    Some(all)
}

/// Takes a vector with a length prefix of `N` bytes (RFC 8446 section 3.4).
fn vector<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<N>()?;
    let (vector, rest) = rest.split_at_checked(number(length))?;
    *bytes = rest;
    Some(vector)
}

/// A non-empty vector that nothing follows.
fn only<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    vector::<2>(bytes).filter(|vector| bytes.is_empty() && !vector.is_empty())
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
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

    /// A message in records of so many bytes.
    fn in_records(message: &[u8], len: usize) -> Vec<u8> {
        let records = message.chunks(len).map(|record| {
            let length = u16::try_from(record.len()).unwrap().to_be_bytes();
            [&[22, 3, 1][..], &length, record].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn it_does_not_matter_in_how_many_records_it_comes() {
        let whole = hello("example.com", &["h2"]);
        for len in [1, 3, 4, 100] {
            let cut = in_records(&whole[5..], len);
            assert_eq!(client_hello(&cut), client_hello(&whole), "{len}");
            assert_eq!(client_hello(&cut[..cut.len() - 1]), Hello::Partial, "{len}");
        }
    }

    /// A hello of TLS 1.0, which names neither signatures nor versions, with these extensions.
    fn old(extensions: &[u8]) -> Vec<u8> {
        let mut message = vec![3, 1];
        message.extend([7; 32]);
        message.extend([0, 0, 2, 0, 0x2f, 1, 0]);
        message.extend(extensions);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        in_records(&[&[1], &length[1..], &message].concat(), 1 << 14)
    }

    #[test]
    fn old_clients_speak_tls_as_well() {
        let told = |sni: Option<&str>| Hello::Complete {
            sni: sni.map(str::to_owned),
            alpn: Vec::new(),
        };
        assert_eq!(client_hello(&old(&[])), told(None));
        let named = [&[0, 11, 0, 0, 0, 7, 0, 5, 0, 0, 2][..], b"Ab"].concat();
        assert_eq!(client_hello(&old(&named)), told(Some("ab")));
        // A length that lies, an empty name, one with a NUL, two names, no protocol, and an empty one.
        for bad in [
            &[0, 9, 0, 0][..],
            &[0, 9, 0, 0, 0, 5, 0, 3, 0, 0, 0],
            &[0, 10, 0, 0, 0, 6, 0, 4, 0, 0, 1, 0],
            &[0, 14, 0, 0, 0, 10, 0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'],
            &[0, 6, 0, 16, 0, 2, 0, 0],
            &[0, 7, 0, 16, 0, 3, 0, 1, 0],
        ] {
            assert_eq!(client_hello(&old(bad)), Hello::NotTls, "{bad:?}");
        }
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
