//! What goes over a network, byte by byte.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A capture that goes on.
pub struct Capture {
    tcpdump: Child,
    folder: TempDir,
}

/// A segment of TCP.
#[derive(Debug)]
pub struct Segment {
    /// Who sent it.
    pub from: (IpAddr, u16),
    /// Whom to.
    pub to: (IpAddr, u16),
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Segment {
    /// Whether it carries these bytes.
    pub fn holds(&self, text: &str) -> bool {
        self.payload.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Whether it begins a TLS connection: a handshake record with a ClientHello (RFC 8446, 5.1 and 4).
    pub fn is_client_hello(&self) -> bool {
        matches!(self.payload[..], [22, 3, _, _, _, 1, ..])
    }
}

impl Capture {
    /// Captures all of TCP on an interface, from now on.
    pub async fn start(interface: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut tcpdump = Command::new("tcpdump")
            .args([
                "-i",
                interface,
                "--immediate-mode",
                "-U",
                "-Z",
                "root",
                "-s",
                "0",
                "-B",
                "16384",
                "-w",
            ])
            .arg(path(&folder))
            .args(["ip and tcp"])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("tcpdump cannot be run ({error}); on Debian: apt-get install -y tcpdump"));
        let mut lines = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("tcpdump has ended");
            if line.contains("listening on") {
                break;
            }
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { tcpdump, folder }
    }

    /// Ends it: all segments that carry something.
    pub async fn stop(mut self) -> Vec<Segment> {
        let id = self.tcpdump.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        kill_process(id.unwrap(), Signal::INT).unwrap();
        assert!(self.tcpdump.wait().await.unwrap().success());
        segments(&fs::read(path(&self.folder)).unwrap())
    }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("capture")
}

/// The segments in a file of libpcap's form, written on a machine of this byte order, with frames of Ethernet.
fn segments(file: &[u8]) -> Vec<Segment> {
    assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "a file of libpcap");
    assert_eq!(file[20..24], 1_u32.to_ne_bytes(), "frames of Ethernet");
    let (mut segments, mut rest) = (Vec::new(), &file[24..]);
    while rest.len() >= 16 {
        let [captured, long] = [8, 12].map(|at| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap()));
        assert_eq!(captured, long, "a frame was cut off");
        let (frame, after) = rest[16..].split_at(captured as usize);
        segments.extend(segment(&frame[14..]).filter(|segment| !segment.payload.is_empty()));
        rest = after;
    }
    segments
}

/// The segment in a packet of IPv4 (RFC 791, 3.1; RFC 9293, 3.1).
fn segment(packet: &[u8]) -> Option<Segment> {
    if packet[0] >> 4 != 4 || packet[9] != 6 {
        return None;
    }
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let address = |at: usize| IpAddr::V4(Ipv4Addr::from_octets(packet[at..at + 4].try_into().unwrap()));
    let tcp = &packet[header..total];
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    Some(Segment {
        from: (address(12), port(0)),
        to: (address(16), port(2)),
        payload: tcp[usize::from(tcp[12] >> 4) * 4..].to_vec(),
    })
}
