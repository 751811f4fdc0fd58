//! Connections of ours with each other and with those of the `h2` crate.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;

use super::connection::{Config, Connection, Role};
use super::driver::Driver;
use super::error::{Error, Reason};
use super::half::{Receiver, Sender};
use super::head::RequestHead;
use super::waits::Piece;
use super::{Client, begin};
use crate::proxy::http::Underscores;
use crate::proxy::http::body::RequestBody;

const SERVER: Config = Config {
    role: Role::Server,
    stream_window: 100_000,
    connection_window: 150_000,
    header_bytes: 60 << 10,
    max_streams: 100,
    connect_protocol: true,
    underscores: Underscores::Allow,
    metered: false,
};

fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.block_on(limited).expect("the test takes too long");
}

/// Serves a connection: each request has a task of its own, and sees its stream alone. What ended the connection.
async fn serve<F: Future<Output = ()> + 'static>(
    io: DuplexStream,
    config: Config,
    handle: impl Fn(RequestHead, Receiver, Sender) -> F,
) -> Error {
    let connection = Connection::new(config).shared();
    let mut driver = Driver::server(io, BytesMut::new(), connection.clone());
    let over = poll_fn(|cx| {
        connection.borrow_mut().turn_begins(cx);
        let read = driver.poll_read(cx);
        loop {
            let begun = connection.borrow_mut().next_request();
            let Some(begun) = begun else { break };
            let receiver = Receiver::new(connection.clone(), begun.stream);
            let sender = Sender::new(connection.clone(), begun.stream);
            spawn_local(handle(begun.received, receiver, sender));
        }
        if let Poll::Ready(over) = read {
            return Poll::Ready(over);
        }
        match driver.poll_write(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error.into()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if over == Error::Ended {
        assert!(connection.borrow_mut().is_conserved());
    }
    driver.close(over, Duration::from_secs(1)).await;
    over
}

/// Says what it hears, trailers included.
async fn echo(_: RequestHead, mut receiver: Receiver, mut sender: Sender) {
    sender.answer(&Response::new(()), false).unwrap();
    while let Some(piece) = poll_fn(|cx| receiver.poll(cx)).await {
        let sent = match piece {
            Ok(Piece::Data(data)) => match poll_fn(|cx| sender.poll_room(cx)).await {
                Ok(()) => sender.data(data, false),
                Err(error) => Err(error),
            },
            Ok(Piece::Trailers(trailers)) => match poll_fn(|cx| sender.poll_room(cx)).await {
                Ok(()) => return sender.trailers(&trailers).unwrap(),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if sent.is_err() {
            return;
        }
    }
    if poll_fn(|cx| sender.poll_room(cx)).await.is_ok() {
        sender.data(Bytes::new(), true).unwrap();
    }
}

fn post() -> Request<()> {
    Request::post("http://a/b?c").body(()).unwrap()
}

fn some_bytes(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Sends all of it as the peer has room, by the `h2` crate.
async fn send_all(mut stream: h2::SendStream<Bytes>, mut data: Bytes, trailers: Option<HeaderMap>) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(len)) => stream.send_data(data.split_to(len.min(data.len())), false).unwrap(),
            _ => return,
        }
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers).unwrap(),
        None => stream.send_data(Bytes::new(), true).unwrap(),
    }
}

async fn hear_all(stream: &mut h2::RecvStream) -> BytesMut {
    let mut all = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all
}

#[test]
fn clients_of_another_make_are_served() {
    on_a_worker(async {
        let (near, far) = duplex(10_000);
        let serving = spawn_local(serve(far, SERVER, echo));
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        let driving = spawn_local(connection);
        let mut all = Vec::new();
        for len in [0, 1, 70_000, 1_000_000, 16_384] {
            client = client.ready().await.unwrap();
            let (answer, stream) = client.send_request(post(), false).unwrap();
            let trailers = HeaderMap::from_iter([("x-len".parse().unwrap(), HeaderValue::from(len))]);
            spawn_local(send_all(stream, some_bytes(len), Some(trailers)));
            all.push(spawn_local(async move {
                let mut body = answer.await.unwrap().into_body();
                assert!(hear_all(&mut body).await == some_bytes(len), "{len}");
                assert_eq!(body.trailers().await.unwrap().unwrap()["x-len"], HeaderValue::from(len));
            }));
        }
        for one in all {
            one.await.unwrap();
        }
        drop(client);
        driving.await.unwrap().unwrap();
        assert_eq!(serving.await.unwrap(), Error::Ended);
    });
}

/// A client of ours, and a server that does as it is told.
async fn client_of<F: Future<Output = ()> + 'static>(server: impl FnOnce(DuplexStream) -> F) -> Client {
    let (near, far) = duplex(10_000);
    spawn_local(server(far));
    let (client, driver) = begin(near, 100_000, 150_000, None);
    spawn_local(driver.run());
    client.ready().await.unwrap();
    client
}

fn request(body: RequestBody) -> Request<RequestBody> {
    let request = Request::post("/b?c").header("host", "a").header("x-a", "b");
    request.body(body).unwrap()
}

/// Echoes by the `h2` crate.
async fn echo_by_another(io: DuplexStream) {
    let mut server = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = server.accept().await {
        assert_eq!(request.uri(), "http://a/b?c");
        assert_eq!(request.headers()["x-a"], "b");
        spawn_local(async move {
            let mut body = request.into_body();
            let stream = respond.send_response(Response::new(()), false).unwrap();
            let all = hear_all(&mut body).await.freeze();
            let trailers = body.trailers().await.unwrap();
            send_all(stream, all, trailers).await;
        });
    }
}

/// So many bytes are sent to a server that sends them back.
async fn comes_back(client: &Client, len: usize) {
    client.ready().await.unwrap();
    let body = RequestBody::Whole(Some(some_bytes(len)));
    let sent = client.send(request(body), "http", None).unwrap();
    let answer = sent.answer(None).await.unwrap();
    let heard = super::super::body::incoming::Incoming::Http2(answer.into_body());
    assert!(heard.collect().await.unwrap().to_bytes() == some_bytes(len), "{len}");
}

#[test]
fn hosts_of_another_make_are_asked() {
    on_a_worker(async {
        let client = client_of(echo_by_another).await;
        for len in [0, 1, 70_000, 1_000_000, 16_384] {
            comes_back(&client, len).await;
        }
    });
}

#[test]
fn ours_understand_each_other_and_many_share_short_windows() {
    on_a_worker(async {
        let server = |io| async {
            serve(io, SERVER, echo).await;
        };
        let client = Rc::new(client_of(server).await);
        let all: Vec<_> = (0..50)
            .map(|number| {
                let client = client.clone();
                spawn_local(async move {
                    comes_back(&client, 20_000 * number).await;
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
    });
}

#[test]
fn no_more_is_taken_than_the_peer_has_room_for() {
    on_a_worker(async {
        const CHUNK: usize = 16 << 10;
        let taken = Rc::new(std::cell::Cell::new(0));
        let counted = taken.clone();
        let (near, far) = duplex(1 << 20);
        spawn_local(serve(far, SERVER, move |_, _receiver, mut sender| {
            let taken = counted.clone();
            async move {
                sender.answer(&Response::new(()), false).unwrap();
                for _ in 0..20 {
                    poll_fn(|cx| sender.poll_room(cx)).await.unwrap();
                    taken.set(taken.get() + 1);
                    sender.data(Bytes::from_static(&[0; CHUNK]), false).unwrap();
                }
                poll_fn(|cx| sender.poll_room(cx)).await.unwrap();
                sender.data(Bytes::new(), true).unwrap();
            }
        }));
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        spawn_local(connection);
        let (answer, _) = client.send_request(post(), true).unwrap();
        let mut heard = answer.await.unwrap().into_body();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        // A window has room for almost four, of which the last waits for the rest of its room.
        assert_eq!(taken.get(), 4);
        assert_eq!((hear_all(&mut heard).await.len(), taken.get()), (20 * CHUNK, 20));
    });
}

#[test]
fn who_does_not_read_holds_back_one_stream_and_no_other() {
    on_a_worker(async {
        let (near, far) = duplex(1 << 20);
        let config = Config {
            connection_window: 1 << 20,
            ..SERVER
        };
        spawn_local(serve(far, config, |received, receiver, mut sender| async move {
            if received.request.uri().path() == "/never" {
                let _unread = receiver;
                poll_fn(|cx| sender.poll_broken(cx)).await;
            } else {
                echo(received, receiver, sender).await;
            }
        }));
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        spawn_local(connection);
        let never = Request::post("http://a/never").body(()).unwrap();
        let (_waits, stream) = client.send_request(never, false).unwrap();
        spawn_local(send_all(stream, some_bytes(1 << 20), None));
        let (answer, stream) = client.send_request(post(), false).unwrap();
        spawn_local(send_all(stream, some_bytes(1 << 20), None));
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(hear_all(&mut body).await.len(), 1 << 20);
    });
}

#[test]
fn what_is_dropped_is_reset() {
    on_a_worker(async {
        // A server that drops what it has begun to answer.
        let (near, far) = duplex(1 << 20);
        spawn_local(serve(far, SERVER, |_, _receiver, mut sender| async move {
            sender.answer(&Response::new(()), false).unwrap();
        }));
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        spawn_local(connection);
        let (answer, _) = client.send_request(post(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!((error.is_remote(), error.reason()), (true, Some(h2::Reason::CANCEL)));
        // A server that answers before it has the whole request.
        let (near, far) = duplex(1 << 20);
        spawn_local(serve(far, SERVER, |_, _receiver, mut sender| async move {
            sender.answer(&Response::new(()), true).unwrap();
        }));
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        spawn_local(connection);
        let (answer, mut stream) = client.send_request(post(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        let reason = poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
        assert_eq!(reason, h2::Reason::NO_ERROR);
    });
}

#[test]
fn resets_and_goaway_are_told_apart() {
    on_a_worker(async {
        let client = client_of(|io| async {
            let mut server = h2::server::handshake(io).await.unwrap();
            for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::INTERNAL_ERROR] {
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                respond.send_reset(reason);
            }
            let (_, _respond) = server.accept().await.unwrap().unwrap();
            server.abrupt_shutdown(h2::Reason::NO_ERROR);
            while server.accept().await.is_some() {}
        })
        .await;
        let mut errors = Vec::new();
        for _ in 0..3 {
            client.ready().await.unwrap();
            let sent = client.send(request(RequestBody::Empty), "http", None).unwrap();
            errors.push(sent.answer(None).await.unwrap_err());
        }
        assert_eq!(
            errors[..2],
            [
                Error::Reset(Reason::REFUSED_STREAM),
                Error::Reset(Reason::INTERNAL_ERROR)
            ]
        );
        assert!(client.is_closed() && client.ready().await.is_err());
    });
}

#[test]
fn a_client_waits_for_room_among_the_streams_of_a_host() {
    on_a_worker(async {
        let config = Config {
            max_streams: 1,
            ..SERVER
        };
        let client = client_of(move |io| async move {
            serve(io, config, echo).await;
        })
        .await;
        let client = Rc::new(client);
        // Until the host's settings are there.
        let first = client.send(request(RequestBody::Empty), "http", None).unwrap();
        let first = first.answer(None).await.unwrap();
        assert_eq!(client.room(), 1);
        drop(first);
        let all: Vec<_> = (0..5)
            .map(|_| {
                let client = client.clone();
                spawn_local(async move {
                    client.ready().await.unwrap();
                    let sent = client
                        .send(request(RequestBody::Whole(Some(some_bytes(9)))), "http", None)
                        .unwrap();
                    let answer = sent.answer(None).await.unwrap();
                    let heard = super::super::body::incoming::Incoming::Http2(answer.into_body());
                    assert_eq!(heard.collect().await.unwrap().to_bytes(), some_bytes(9));
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
    });
}

#[test]
fn the_end_has_two_stages() {
    on_a_worker(async {
        let (mut near, far) = duplex(1 << 16);
        let connection = Connection::new(SERVER).shared();
        let mut driver = Driver::server(far, BytesMut::new(), connection.clone());
        connection.borrow_mut().announce_goaway();
        near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        near.write_all(b"\0\0\x08\x06\x01\0\0\0\0shutdown").await.unwrap();
        poll_fn(|cx| {
            connection.borrow_mut().turn_begins(cx);
            assert!(driver.poll_read(cx).is_pending());
            driver.poll_write(cx)
        })
        .await
        .unwrap();
        assert!(connection.borrow().is_done());
        let mut bytes = vec![0; 1 << 16];
        let len = near.read(&mut bytes).await.unwrap();
        let goaways = bytes[..len]
            .windows(9)
            .filter(|head| head[3] == 7 && head[..3] == [0, 0, 8]);
        assert_eq!(goaways.count(), 2);
    });
}
