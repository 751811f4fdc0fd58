//! Allocates loopback addresses unique to a test.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// Number of networks for tests: 127.64.0.0/24 to 127.127.255.0/24.
const NETWORKS: u32 = 64 * 256;

/// A /24 network of loopback addresses reserved for a test, across processes, by a lock file that
/// is held while the value exists.
pub struct Network {
    prefix: [u8; 3],
    next: AtomicU8,
    _lock: File,
}

impl Network {
    /// Reserves a free network.
    pub fn take() -> Self {
        // Not in `target`: all checkouts on the machine share the loopback addresses.
        let folder = std::env::temp_dir().join("topsail-test-networks");
        fs::create_dir_all(&folder).unwrap();
        let busy = listening();
        let first = std::process::id().wrapping_mul(7);
        for step in 0..NETWORKS {
            let number = first.wrapping_add(step) % NETWORKS;
            let [.., high, low] = number.to_be_bytes();
            let prefix = [127, 64 + high, low];
            let lock = File::create(folder.join(format!("{}.{}", prefix[1], prefix[2]))).unwrap();
            // The kernel's table may omit entries while sockets are opened and closed, so it is
            // read twice.
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

    /// An address that is not in use yet.
    pub fn address(&self) -> IpAddr {
        let last = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(last < 255, "a test has 254 addresses");
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last).into()
    }

    /// A new address with this port.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }
}

/// Networks with listening sockets, e.g. left by a killed test run.
fn listening() -> HashSet<[u8; 3]> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let rows = table.lines().skip(1).filter_map(|row| row.split_whitespace().nth(1));
    rows.filter_map(|local| {
        let [a, b, c, _] = u32::from_str_radix(local.split(':').next()?, 16).ok()?.to_le_bytes();
        Some([a, b, c])
    })
    .collect()
}
