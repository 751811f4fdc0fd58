//! A DNS server controlled by the test.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A DNS server on a port of 127.0.0.1, by UDP and TCP. Stops on drop.
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Reply>,
    asked: Vec<Question>,
}

/// Response for a name. Names without one do not exist (NXDOMAIN).
#[derive(Clone, Debug)]
pub enum Reply {
    /// Addresses and their TTL in seconds; empty for other types (NODATA).
    Addresses(Vec<(IpAddr, u32)>),
    /// A CNAME record with this TTL, and addresses of its target.
    Alias(u32, Vec<(IpAddr, u32)>),
    /// SERVFAIL for these types, and addresses for others.
    Broken(&'static [u16], Vec<(IpAddr, u32)>),
    /// No response.
    Silence,
}

/// A received query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, without trailing dot.
    pub name: String,
    /// The record type: [`A`] or [`AAAA`].
    pub kind: u16,
    /// Whether it was received by TCP.
    pub tcp: bool,
}

/// Record type of IPv4 addresses.
pub const A: u16 = 1;
/// Record type of IPv6 addresses.
pub const AAAA: u16 = 28;

const CNAME: u16 = 5;
const NO_ERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// Compression pointer to the name in the question.
const ASKED_NAME: [u8; 2] = [0xc0, 12];

impl NameServer {
    /// Starts a server.
    pub async fn start() -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, zone.clone()));
        tasks.spawn(serve_tcp(tcp, zone.clone()));
        Self {
            address,
            zone,
            _tasks: tasks,
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the response for a name.
    pub fn says(&self, name: &str, reply: Reply) {
        self.zone.lock().unwrap().names.insert(name.into(), reply);
    }

    /// Sets addresses for a name, with this TTL in seconds.
    pub fn leads(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        let addresses = addresses.iter().map(|address| (*address, ttl)).collect();
        self.says(name, Reply::Addresses(addresses));
    }

    /// Removes a name.
    pub fn forgets(&self, name: &str) {
        self.zone.lock().unwrap().names.remove(name);
    }

    /// Queries for a name so far.
    pub fn asked(&self, name: &str) -> Vec<Question> {
        let zone = self.zone.lock().unwrap();
        zone.asked.iter().filter(|asked| asked.name == name).cloned().collect()
    }
}

/// Binds the same port for both protocols.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // The port may be in use for TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 1500];
    // A client that has disconnected makes the next receive fail; others are still there.
    loop {
        if let Ok((len, peer)) = socket.recv_from(&mut buffer).await
            && let Some(answer) = answer(&buffer[..len], false, &zone)
        {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let zone = zone.clone();
        connections.spawn(async move {
            let _ = serve_connection(stream, &zone).await;
        });
    }
}

async fn serve_connection(mut stream: TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = answer(&query, true, zone) {
            stream.write_u16(answer.len().try_into().unwrap()).await?;
            stream.write_all(&answer).await?;
        }
    }
}

fn answer(query: &[u8], tcp: bool, zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let (question, end) = question(query, tcp)?;
    let mut zone = zone.lock().unwrap();
    zone.asked.push(question.clone());
    let (code, records) = match zone.names.get(&question.name) {
        None => (NXDOMAIN, Vec::new()),
        Some(Reply::Silence) => return None,
        Some(Reply::Broken(kinds, _)) if kinds.contains(&question.kind) => (SERVFAIL, Vec::new()),
        Some(Reply::Addresses(found) | Reply::Broken(_, found)) => {
            (NO_ERROR, records(found, question.kind, &ASKED_NAME))
        }
        Some(Reply::Alias(ttl, found)) => {
            let mut all = vec![record(&ASKED_NAME, CNAME, *ttl, b"\x05alias\0")];
            all.extend(records(found, question.kind, b"\x05alias\0"));
            (NO_ERROR, all)
        }
    };
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut message = query[..end].to_vec();
    // Sets the flags of a response from a recursive resolver.
    message[2] |= 0x80;
    message[3] = 0x80 | code;
    message[6..12].copy_from_slice(&[count[0], count[1], 0, 0, 0, 0]);
    message.extend(records.concat());
    Some(message)
}

/// The question of a query, and where it ends.
fn question(query: &[u8], tcp: bool) -> Option<(Question, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let len = usize::from(*query.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + len)?).to_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = Question {
        name: labels.join("."),
        kind,
        tcp,
    };
    (query.len() >= at + 4).then_some((question, at + 4))
}

fn records(found: &[(IpAddr, u32)], kind: u16, name: &[u8]) -> Vec<Vec<u8>> {
    let records = found.iter().filter_map(|(address, ttl)| match address {
        IpAddr::V4(address) if kind == A => Some(record(name, A, *ttl, &address.octets())),
        IpAddr::V6(address) if kind == AAAA => Some(record(name, AAAA, *ttl, &address.octets())),
        _ => None,
    });
    records.collect()
}

fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap();
    [
        name,
        &kind.to_be_bytes(),
        // IN.
        &[0, 1],
        &ttl.to_be_bytes(),
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}
