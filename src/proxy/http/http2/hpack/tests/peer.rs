//! The `h2` crate on the other side: it reads what we write, and we read what it writes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::proxy::http::http2::hpack::{Decoder, Encoder, Indexing, Name, TABLE_SIZE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
const HEADER_TABLE_SIZE: u16 = 1;

/// A client that knows no more of HTTP/2 than it takes to send requests without bodies.
struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    /// The size of the decoder's table as it was asked for last.
    asked: usize,
    stream: u32,
}

impl Client {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_uint(payload.len() as u64, 3);
        frame.put_slice(&[kind, flags]);
        frame.put_u32(stream);
        frame.put_slice(payload);
        self.io.write_all(&frame).await.unwrap();
    }

    async fn set_table_size(&mut self, size: u32) {
        let mut setting = BytesMut::new();
        setting.put_u16(HEADER_TABLE_SIZE);
        setting.put_u32(size);
        self.asked = size as usize;
        self.send(SETTINGS, 0, 0, &setting).await;
    }

    /// Sends a request; what is answered.
    async fn exchange(&mut self, path: &str, headers: &HeaderMap) -> HeaderMap {
        let mut block = BytesMut::new();
        self.encoder.begin(&mut block);
        self.encoder.method(&Method::PUT, &mut block);
        self.encoder.scheme("https", &mut block);
        self.encoder.authority("www.example.com", &mut block);
        self.encoder.path(path, &mut block);
        for (name, value) in headers {
            self.encoder.field(name, value, Indexing::of(name, value), &mut block);
        }
        self.send(HEADERS, END_STREAM_AND_HEADERS, self.stream, &block).await;
        self.stream += 2;
        self.answer().await
    }

    async fn answer(&mut self) -> HeaderMap {
        loop {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await.unwrap();
            let [len @ .., kind, flags, _, _, _, _] = head;
            let mut payload = vec![0; (&len[..]).get_uint(3) as usize];
            self.io.read_exact(&mut payload).await.unwrap();
            match (kind, flags & ACK) {
                (SETTINGS, ACK) => self.decoder.set_max_table(self.asked),
                (SETTINGS, _) => self.heard(&payload).await,
                (HEADERS, _) => return self.decoded(payload.into()),
                _ => {}
            }
        }
    }

    async fn heard(&mut self, settings: &[u8]) {
        for mut setting in settings.chunks(6) {
            if setting.get_u16() == HEADER_TABLE_SIZE {
                self.encoder.set_max_table(setting.get_u32() as usize);
            }
        }
        self.send(SETTINGS, ACK, 0, &[]).await;
    }

    fn decoded(&mut self, block: Bytes) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut status = None;
        let taken = self.decoder.decode(block, |name, mut value, never| {
            value.set_sensitive(never);
            match name {
                Name::Status => status = Some(value),
                Name::Regular(name) => drop(headers.append(name, value)),
                other => panic!("{other:?}: {value:?}"),
            }
        });
        assert_eq!(taken, Ok(()));
        assert_eq!(status.unwrap(), "201");
        headers
    }
}

/// Answers with the headers of the request, to which its path is added.
async fn echo(io: DuplexStream, table_size: u32) {
    let mut builder = h2::server::Builder::new();
    builder.header_table_size(table_size);
    let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request.unwrap();
        let mut response = Response::builder().status(201).body(()).unwrap();
        *response.headers_mut() = request.headers().clone();
        let said = format!("{} {}", request.method(), request.uri());
        response.headers_mut().append("said", said.parse().unwrap());
        respond.send_response(response, true).unwrap();
    }
}

/// Headers of which some often come again.
fn headers(random: &mut fastrand::Rng) -> HeaderMap {
    const NAMES: &[&str] = &[
        "accept",
        "accept-encoding",
        "authorization",
        "content-type",
        "cookie",
        "date",
        "etag",
        "user-agent",
        "x-a",
        "x-b",
        "x-forwarded-for",
        "x-request-id",
    ];
    let mut headers = HeaderMap::new();
    for _ in 0..random.usize(..12) {
        let name = HeaderName::from_static(NAMES[random.usize(..NAMES.len())]);
        let bytes: Vec<u8> = match random.u8(..4) {
            0 => vec![b'a' + random.u8(..3); random.usize(..4)],
            1 => b"gzip, deflate".to_vec(),
            2 => (0..random.usize(..300)).map(|_| random.u8(b' '..b'~')).collect(),
            _ => (0..random.usize(..30)).map(|_| random.u8(0x80..)).collect(),
        };
        let mut value = HeaderValue::from_bytes(&bytes).unwrap();
        value.set_sensitive(random.u8(..8) == 0);
        headers.append(name, value);
    }
    headers
}

#[tokio::test]
async fn the_h2_crate_reads_what_we_write_and_we_what_it_writes() {
    for (seed, table_size) in [(1, 4096), (2, 300), (3, 0), (4, 1 << 16)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let (io, theirs) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(echo(theirs, table_size));
        let mut client = Client {
            io,
            encoder: Encoder::new(),
            decoder: Decoder::new(TABLE_SIZE),
            asked: TABLE_SIZE,
            stream: 1,
        };
        client.io.write_all(PREFACE).await.unwrap();
        client.set_table_size(4096).await;
        for number in 0..400 {
            if number % 50 == 49 {
                let sizes = [0, 60, 200, 1000, 4096, 1 << 16];
                client.set_table_size(sizes[random.usize(..sizes.len())]).await;
            }
            let (sent, path) = (headers(&mut random), format!("/{}", number % 7));
            let mut answered = client.exchange(&path, &sent).await;
            let said = answered.remove("said").unwrap();
            assert_eq!(said, format!("PUT https://www.example.com{path}"));
            assert_eq!(answered, sent, "request {number} with {table_size}");
        }
        drop(client);
        served.await.unwrap();
    }
}
