//! Loopback addresses that no other test uses.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// The networks that tests take: 127.64.0.0/24 to 127.127.255.0/24.
const NETWORKS: u32 = 64 * 256;

/// A /24 of loopback addresses, this test's own as long as the value lives: a lock on a file says so to the
/// tests beside it, in this process and in others.
pub struct Network {
    prefix: [u8; 3],
    next: AtomicU8,
    _lock: File,
}

impl Network {
    /// Takes a network that is free.
    pub fn take() -> Self {
        // All checkouts on the machine share its loopback addresses, so the locks are not in `target`.
        let folder = std::env::temp_dir().join("topsail-test-networks");
        fs::create_dir_all(&folder).unwrap();
        let busy = listening();
        let first = std::process::id().wrapping_mul(7);
        for step in 0..NETWORKS {
            let number = first.wrapping_add(step) % NETWORKS;
            let [.., high, low] = number.to_be_bytes();
            let prefix = [127, 64 + high, low];
            let lock = File::create(folder.join(format!("{}.{}", prefix[1], prefix[2]))).unwrap();
            // The system's table may leave out a row while others come and go, so it is read twice.
            if !busy.contains(&prefix) && lock.try_lock().is_ok() && !listening().contains(&prefix) {
                return Self {
                    prefix,
                    next: AtomicU8::new(1),
                    _lock: lock,
                };
            }
        }
        panic!("all {NETWORKS} networks are taken");
    }

    /// An address that was not handed out before.
    pub fn address(&self) -> IpAddr {
        let last = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(last < 255, "a test has 254 addresses");
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last).into()
    }

    /// A port on an address of its own.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }
}

/// The networks that something listens in, such as what a killed test run left behind.
fn listening() -> HashSet<[u8; 3]> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let rows = table.lines().skip(1).filter_map(|row| row.split_whitespace().nth(1));
    rows.filter_map(|local| {
        let [a, b, c, _] = u32::from_str_radix(local.split(':').next()?, 16).ok()?.to_le_bytes();
        Some([a, b, c])
    })
    .collect()
}
