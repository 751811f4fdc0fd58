//! Packet capture on a network.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running capture.
pub struct Capture {
    tcpdump: Child,
    folder: TempDir,
}

/// A TCP segment.
#[derive(Debug)]
pub struct Segment {
    /// Source.
    pub from: (IpAddr, u16),
    /// Destination.
    pub to: (IpAddr, u16),
    /// Payload.
    pub payload: Vec<u8>,
}

impl Segment {
    /// Whether the payload contains this text.
    pub fn holds(&self, text: &str) -> bool {
        self.payload.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Whether it starts a TLS connection: a handshake record with a ClientHello (RFC 8446, sections 5.1 and
    /// 4).
    pub fn is_client_hello(&self) -> bool {
        matches!(self.payload[..], [22, 3, _, _, _, 1, ..])
    }
}

impl Capture {
    /// Starts capturing all TCP traffic on an interface.
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

    /// Stops the capture and returns all segments with a payload.
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

/// Parses a pcap file in native byte order with Ethernet frames.
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

/// Parses an IPv4 packet (RFC 791, section 3.1) with a TCP segment (RFC 9293, section 3.1).
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
