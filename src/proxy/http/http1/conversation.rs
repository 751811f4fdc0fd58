//! Parses a whole conversation, to test that it does not matter where reads split it.

use bytes::BytesMut;

use super::lines::{ScanSchedule, Size};
use super::request;
use super::response::{self, RequestKind};
use super::{Refusal, Rest};

const SIZE: Size = Size { bytes: 4096, count: 20 };

/// The sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A client, whose requests may be upgrades.
    Client,
    /// A host, in response to this.
    Host(RequestKind),
}

/// What was parsed from these reads: each head and each body as text, up to the first error.
pub(crate) fn understood(peer: Peer, pieces: &[&[u8]]) -> Vec<String> {
    let (mut bytes, mut rest, mut scans) = (BytesMut::new(), Rest::Nothing, ScanSchedule::default());
    let mut all = vec![String::new()];
    // The parser skips some reads of a slow head, so a last empty piece makes it parse the rest.
    let pieces = pieces.iter().map(|piece| (*piece, false)).chain([(&[][..], true)]);
    for (piece, last) in pieces {
        bytes.extend_from_slice(piece);
        loop {
            let step = match rest {
                Rest::Nothing if !last && !scans.is_due(&bytes, SIZE) => break,
                Rest::Nothing => head(peer, &mut bytes).map(|head| {
                    head.map(|(head, after)| {
                        (rest, scans) = (after, ScanSchedule::default());
                        all.extend([head, String::new()]);
                    })
                }),
                _ => rest.take(&mut bytes, SIZE.bytes).map(|data| {
                    if let (Some(data), Some(last)) = (&data, all.last_mut()) {
                        last.push_str(&data.escape_ascii().to_string());
                    }
                    (data.is_some() || rest == Rest::Nothing).then_some(())
                }),
            };
            match step {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(_) => {
                    all.push("refused".to_owned());
                    return all;
                }
            }
        }
    }
    all
}

fn head(peer: Peer, bytes: &mut BytesMut) -> Result<Option<(String, Rest)>, Refusal> {
    let mut fields = Vec::new();
    match peer {
        Peer::Client => {
            let taken = request::take(bytes, &mut fields, SIZE)?;
            Ok(taken.map(|head| (format!("{:?}", head.request), head.rest)))
        }
        Peer::Host(asked) => {
            let taken = response::take(bytes, &mut fields, asked)?;
            Ok(taken.map(|head| (format!("{:?}", head.response), head.rest)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of which messages are made, and others.
    const WORDS: [&str; 24] = [
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.1\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 404 Not Found\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 100 Continue\r\n",
        "host: a\r\n",
        "content-length: 5\r\n",
        "content-length: 0\r\n",
        "transfer-encoding: chunked\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "connection: close\r\n",
        "x: y\r\n",
        "\r\n",
        "\n",
        "5\r\nhello\r\n",
        "a;b=c\r\n0123456789\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "hello",
        "\r",
        ":",
        "\0",
    ];

    fn peer() -> impl Strategy<Value = Peer> {
        prop_oneof![
            Just(Peer::Client),
            Just(Peer::Host(RequestKind::Other)),
            Just(Peer::Host(RequestKind::Head)),
            Just(Peer::Host(RequestKind::Upgrade)),
            Just(Peer::Host(RequestKind::Connect)),
        ]
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_messages_are_cut(
            peer in peer(),
            words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..24),
            cut in 1..20_usize,
        ) {
            let bytes = words.concat();
            let cuts: Vec<_> = bytes.as_bytes().chunks(cut).collect();
            prop_assert_eq!(understood(peer, &[bytes.as_bytes()]), understood(peer, &cuts));
        }
    }

    #[test]
    fn messages_follow_each_other() {
        let bytes = b"POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\n\r\nBAD\r\n";
        let all = understood(Peer::Client, &[bytes]);
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all[1].contains("POST") && all[3].contains("GET"));
        assert_eq!(
            (all[2].as_str(), all[4].as_str(), all[5].as_str()),
            ("hello", "", "refused")
        );
    }
}
