//! Processes all that a peer sends, to test that it does not matter where reads split it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Config, Connection, Role, Shared};
use super::driver::Driver;
use super::error::{Error, Reason};
use super::frame::{Head, SETTINGS};
use super::half::{Receiver, Sender};
use super::waits::Piece;
use crate::proxy::http::Underscores;
use crate::proxy::http::connection::PREFACE;

/// How many requests our client sends to a fuzzed host.
const ASKED: usize = 3;

const CONFIG: Config = Config {
    role: Role::Server,
    stream_window: 2000,
    connection_window: 70_000,
    header_bytes: 1000,
    max_streams: 5,
    connect_protocol: true,
    underscores: Underscores::Allow,
    metered: false,
};

/// Processes what a client or host sends after its settings, split like this.
///
/// # Panics
/// If splitting makes a difference.
pub(crate) fn converse(host: bool, pieces: &[Vec<u8>]) {
    let (role, preface) = if host {
        (Role::Client, &b""[..])
    } else {
        (Role::Server, PREFACE)
    };
    let before = [preface, &Head::new(0, SETTINGS, 0, 0).bytes()].concat();
    let whole = [&before[..], &pieces.concat()].concat();
    let cut: Vec<_> = [&before].into_iter().chain(pieces).map(Vec::as_slice).collect();
    if let (Some((_, whole)), Some((_, cut))) = (understood(role, &[&whole]), understood(role, &cut)) {
        assert_eq!(whole, cut);
    }
}

/// What each stream received and what ended the connection, with reads split like this; `None` where that depends on
/// timing.
///
/// # Panics
/// If receive window is lost.
fn understood(role: Role, pieces: &[&[u8]]) -> Option<(Vec<String>, Option<Error>)> {
    let connection = Connection::new(Config { role, ..CONFIG }).shared();
    let mut driver = match role {
        Role::Server => Driver::server(Pieces::default(), BytesMut::new(), connection.clone()),
        Role::Client => Driver::client(Pieces::default(), connection.clone()),
    };
    let mut streams = Streams::new(role, &connection);
    let mut cx = Context::from_waker(Waker::noop());
    for piece in pieces {
        driver.io().0.push_back(Bytes::copy_from_slice(piece));
        connection.borrow_mut().turn_begins(&cx);
        let read = driver.poll_read(&mut cx);
        streams.hear(&connection, &mut cx);
        if let Poll::Ready(over) = read {
            return (over != Error::Broken(Reason::ENHANCE_YOUR_CALM)).then(|| (streams.said(), Some(over)));
        }
        assert!(connection.borrow_mut().is_conserved());
        assert!(driver.poll_write(&mut cx).is_ready());
    }
    Some((streams.said(), None))
}

/// Streams, and what was received on each.
#[derive(Default)]
struct Streams {
    heard: BTreeMap<usize, String>,
    open: Vec<(usize, Receiver, Option<Sender>)>,
    count: usize,
}

impl Streams {
    fn new(role: Role, connection: &Shared) -> Self {
        let mut streams = Self::default();
        if role == Role::Client {
            for _ in 0..ASKED {
                let opened = connection.borrow_mut().open(true, false, None, |_, _| {});
                if let Ok(place) = opened {
                    streams.add(connection, place, String::new(), false);
                }
            }
        }
        streams
    }

    fn add(&mut self, connection: &Shared, place: usize, head: String, answers: bool) {
        let receiver = Receiver::new(connection.clone(), place);
        let sender = answers.then(|| Sender::new(connection.clone(), place));
        self.heard.insert(self.count, head);
        self.open.push((self.count, receiver, sender));
        self.count += 1;
    }

    fn hear(&mut self, connection: &Shared, cx: &mut Context<'_>) {
        loop {
            let begun = connection.borrow_mut().next_request();
            let Some(begun) = begun else { break };
            let head = format!("{:?}", begun.received);
            self.add(connection, begun.stream, head, true);
        }
        let heard = &mut self.heard;
        self.open.retain_mut(|(number, receiver, sender)| {
            let said = heard.entry(*number).or_default();
            if let Poll::Ready(Ok(answer)) = receiver.poll_answer(cx) {
                *said += &format!("{:?}", answer.response);
            }
            loop {
                match receiver.poll(cx) {
                    Poll::Pending => return true,
                    Poll::Ready(Some(Ok(Piece::Data(data)))) => *said += &data.escape_ascii().to_string(),
                    Poll::Ready(Some(Ok(Piece::Trailers(trailers)))) => {
                        *said += &format!("{trailers:?}");
                        break;
                    }
                    Poll::Ready(None) => break,
                    // How much of it was received depends on timing.
                    Poll::Ready(Some(Err(_))) => {
                        said.clear();
                        break;
                    }
                }
            }
            if let Some(sender) = sender {
                // It may have been reset.
                let _ = sender.answer(&Response::new(()), false);
                let _ = sender.trailers(&HeaderMap::new());
            }
            false
        });
    }

    fn said(self) -> Vec<String> {
        self.heard.into_values().filter(|said| !said.is_empty()).collect()
    }
}

/// A connection on which one piece is received at a time, and which accepts all writes.
#[derive(Debug, Default)]
pub(super) struct Pieces(VecDeque<Bytes>);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.0.pop_front() else {
            return Poll::Pending;
        };
        buf.put_slice(&piece.split_to(piece.len().min(buf.remaining())));
        if !piece.is_empty() {
            self.0.push_front(piece);
        }
        match buf.filled().is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of headers: none, requests, answers, trailers, and what is none of them.
    const BLOCKS: [&[u8]; 7] = [
        b"",
        b"\x82\x86\x84\x41\x01a",
        b"\x83\x86\x84\x41\x01a\x0f\x0d\x015",
        b"\x88",
        b"\x88\x0f\x0d\x015",
        b"\0\x01x\x01y",
        b"\xff\xff",
    ];

    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let kinds = prop_oneof![Just(0_u8), Just(0), Just(1), Just(1), 0..11_u8];
        let flags = prop_oneof![Just(4_u8), Just(5), Just(1), Just(0), any::<u8>()];
        let streams = prop_oneof![0..12_u32, Just(1), Just(3)];
        let payloads = prop_oneof![
            prop::sample::select(&BLOCKS[..]).prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 0..10),
            (0..1500_usize).prop_map(|len| vec![b'x'; len]),
            Just(vec![0, 0, 0, 5]),
            Just(b"01234".to_vec()),
        ];
        (kinds, flags, streams, payloads).prop_map(|(kind, flags, stream, payload)| {
            [&Head::new(payload.len(), kind, flags, stream).bytes()[..], &payload].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn it_does_not_matter_how_frames_are_cut(
            host in any::<bool>(),
            frames in prop::collection::vec(frame(), 0..20),
            cut in 1..40_usize,
        ) {
            let cuts: Vec<_> = frames.concat().chunks(cut).map(<[u8]>::to_vec).collect();
            converse(host, &cuts);
        }
    }

    #[test]
    fn requests_and_answers_are_understood() {
        let frames = |frames: &[(u8, u8, u32, &[u8])]| {
            let frames = frames.iter().flat_map(|(kind, flags, stream, payload)| {
                [&Head::new(payload.len(), *kind, *flags, *stream).bytes()[..], payload].concat()
            });
            frames.collect::<Vec<_>>()
        };
        let said = frames(&[
            (4, 0, 0, b""),
            (1, 4, 1, BLOCKS[2]),
            (0, 1, 1, b"hello"),
            (1, 5, 3, BLOCKS[1]),
        ]);
        let (streams, over) = understood(Role::Server, &[PREFACE, &said]).unwrap();
        assert_eq!((streams.len(), over), (2, None));
        assert!(
            streams[0].contains("POST") && streams[0].ends_with("hello"),
            "{streams:?}"
        );
        let said = frames(&[
            (4, 0, 0, b""),
            (1, 4, 3, BLOCKS[4]),
            (0, 1, 3, b"hello"),
            (1, 5, 1, BLOCKS[3]),
        ]);
        let (streams, over) = understood(Role::Client, &[&said]).unwrap();
        assert_eq!((streams.len(), over), (2, None));
        assert!(
            streams[1].contains("200") && streams[1].ends_with("hello"),
            "{streams:?}"
        );
        let (_, over) = understood(Role::Client, &[&frames(&[(1, 5, 1, BLOCKS[3])])]).unwrap();
        assert_eq!(over, Some(Error::Broken(Reason::PROTOCOL_ERROR)));
    }
}
