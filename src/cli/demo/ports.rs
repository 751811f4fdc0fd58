//! Checks that the demo's addresses are free, and finds the processes that use them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::Instant;

/// How long to wait for an address whose owner is not visible. A killed process keeps its sockets until its
/// last thread has exited, but they disappear from `/proc` when its main thread does, so a demo started right
/// after another was killed would be refused.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// An address the demo will listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The address.
    pub address: SocketAddr,
    /// Its purpose.
    pub purpose: String,
}

/// Addresses that are not available.
#[derive(Debug, thiserror::Error)]
#[error("the demo cannot listen on all its addresses:{}\n{}", listed(.0), advice(.0))]
pub(super) struct PortsError(Vec<Taken>);

#[derive(Debug)]
struct Taken {
    wanted: Wanted,
    error: io::Error,
    holder: Option<Holder>,
}

/// A process, as far as visible.
#[derive(Debug)]
struct Holder {
    pid: u32,
    name: String,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wanted { address, purpose } = &self.wanted;
        match (self.error.kind(), &self.holder) {
            (io::ErrorKind::AddrInUse, Some(Holder { pid, name })) => {
                write!(f, "{address} ({purpose}) is in use by `{name}`, process {pid}")
            }
            (io::ErrorKind::AddrInUse, None) => write!(f, "{address} ({purpose}) is in use"),
            (io::ErrorKind::AddrNotAvailable, _) => {
                write!(f, "{address} ({purpose}) is not an address of this machine")
            }
            (_, _) => write!(f, "{address} ({purpose}): {}", self.error),
        }
    }
}

fn listed(taken: &[Taken]) -> String {
    taken.iter().map(|taken| format!("\n  {taken}")).collect()
}

fn advice(taken: &[Taken]) -> String {
    let holders: BTreeMap<u32, &str> = taken
        .iter()
        .filter_map(|taken| Some((taken.holder.as_ref()?.pid, &*taken.holder.as_ref()?.name)))
        .collect();
    let end = match holders.keys().map(ToString::to_string).collect::<Vec<_>>() {
        pids if pids.is_empty() => "stop the processes listening there".to_owned(),
        pids => format!("stop the processes listening there (`kill {}`)", pids.join(" ")),
    };
    format!(
        "{end}, or use other addresses: --xds and --admin for the control plane and, for the workloads, --config with \
         a copy of the directory that has other addresses"
    )
}

/// Tries to listen on each address. Waits up to two seconds for an address whose owner is not visible, as
/// that process may be exiting.
///
/// # Errors
/// If some are not available; the error lists all of them.
pub(super) async fn check(wanted: Vec<Wanted>) -> Result<(), PortsError> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    let mut all = Vec::new();
    for wanted in wanted {
        all.extend(taken(wanted, deadline).await);
    }
    match all.is_empty() {
        true => Ok(()),
        false => Err(PortsError(all)),
    }
}

/// Why an address is not available, if so.
async fn taken(wanted: Wanted, deadline: Instant) -> Option<Taken> {
    loop {
        let error = TcpListener::bind(wanted.address).err()?;
        let holder = holder(wanted.address);
        let may_be_let_go = error.kind() == io::ErrorKind::AddrInUse && holder.is_none();
        if !may_be_let_go || Instant::now() >= deadline {
            return Some(Taken { wanted, error, holder });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process that listens on an address, if visible: on Linux, processes of the same user.
fn holder(address: SocketAddr) -> Option<Holder> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = listening_inode(&table, address)?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut holders = processes.filter(|pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|link| link.as_os_str() == &*socket)
    });
    let pid = holders.next()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder {
        pid,
        name: name.trim().to_owned(),
    })
}

/// The inode of the socket listening on an address, from `/proc/net/tcp`.
fn listening_inode(table: &str, address: SocketAddr) -> Option<&str> {
    const LISTEN: &str = "0A";
    let IpAddr::V4(ip) = address.ip() else { return None };
    table.lines().skip(1).find_map(|row| {
        let columns: Vec<&str> = row.split_whitespace().collect();
        let (local_ip, local_port) = columns.get(1)?.split_once(':')?;
        let local_ip = Ipv4Addr::from(u32::from_str_radix(local_ip, 16).ok()?.to_ne_bytes());
        let local_port = u16::from_str_radix(local_port, 16).ok()?;
        let is_same = (local_ip == ip || local_ip.is_unspecified()) && local_port == address.port();
        (is_same && columns.get(3) == Some(&LISTEN)).then(|| columns.get(9).copied())?
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn wanted(address: SocketAddr) -> Wanted {
        Wanted {
            address,
            purpose: "control plane, xDS".into(),
        }
    }

    #[tokio::test]
    async fn all_addresses_in_use_are_listed_with_their_owners() {
        let (one, two) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            TcpListener::bind("127.0.0.1:0").unwrap(),
        );
        let (one, two) = (
            one.local_addr().map(|at| (one, at)).unwrap(),
            two.local_addr().map(|at| (two, at)).unwrap(),
        );
        let error = check(vec![wanted(one.1), wanted(two.1)]).await.unwrap_err().to_string();
        let pid = std::process::id();
        for (_, address) in [&one, &two] {
            assert!(
                error.contains(&format!("{address} (control plane, xDS) is in use by `")),
                "{error}"
            );
        }
        assert!(
            error.contains(&format!("(`kill {pid}`)")) && error.contains("--config"),
            "{error}"
        );
        let free = one.1;
        drop(one);
        check(vec![wanted(free)]).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_of_an_exiting_process_is_waited_for() {
        // The main thread exits at once, which hides the process's sockets; the other thread keeps the
        // address a little longer.
        let script = "import ctypes, os, socket, threading, time
socket = socket.create_server(('127.0.0.1', 0))
threading.Thread(target=lambda: (time.sleep(0.5), os._exit(0))).start()
print(socket.getsockname()[1], flush=True)
ctypes.CDLL(None).syscall(60, 0)";
        let mut python = Command::new("python3");
        let mut ending = python.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(ending.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.trim().parse().unwrap());
        TcpListener::bind(address).unwrap_err();
        check(vec![wanted(address)]).await.unwrap();
        // Another test in this process may have reaped it.
        drop(ending.wait());
    }

    #[tokio::test]
    async fn an_unassigned_address_is_reported() {
        let error = check(vec![wanted("192.0.2.1:80".parse().unwrap())])
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("192.0.2.1:80 (control plane, xDS) is not an address of this machine"),
            "{error}"
        );
    }

    #[test]
    fn proc_net_tcp_is_parsed() {
        let row = |local: &str, state: &str, inode: &str| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"
            )
        };
        let ip = format!("{:08X}", u32::from_ne_bytes([127, 0, 10, 1]));
        let table = format!(
            "  sl  local_address …\n{}{}{}",
            row(&format!("{ip}:2378"), "01", "1"),
            row(&format!("{ip}:2378"), "0A", "2"),
            row("00000000:0050", "0A", "3"),
        );
        assert_eq!(listening_inode(&table, "127.0.10.1:9080".parse().unwrap()), Some("2"));
        assert_eq!(
            listening_inode(&table, "127.0.10.9:80".parse().unwrap()),
            Some("3"),
            "on every address"
        );
        assert_eq!(listening_inode(&table, "127.0.10.2:9080".parse().unwrap()), None);
    }
}
