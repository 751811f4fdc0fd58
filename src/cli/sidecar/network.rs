//! The network namespace of a sidecar's container.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::bail;
use tokio::time::{sleep, timeout};

use crate::cli::bootstrap;
use crate::cli::value::{Endpoint, Host};

/// Interval of the check whether the namespace still has its address.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long to try to resolve the control plane's name before falling back to the default route. Docker's DNS
/// does not know the name of a container that is not running.
const LOOKUP: Duration = Duration::from_secs(5);

/// The container's address: the source address of connections to the control plane or, if its name cannot be
/// resolved, of those on the default route.
///
/// # Errors
/// If there is no address other than loopback.
pub(super) async fn own_address(server: &Endpoint) -> anyhow::Result<IpAddr> {
    let found = match &server.host {
        Host::Address(address) => Some(*address),
        Host::Name(name) => match timeout(LOOKUP, look_up(name.as_str(), server.port)).await {
            Ok(address) => Some(address),
            Err(_) => {
                tracing::warn!(
                    "cannot resolve {name}: using the address on the default route as the workload's address"
                );
                None
            }
        },
    };
    let towards = found.and_then(bootstrap::address_towards);
    let usable = |address: &IpAddr| !address.is_loopback();
    let address = towards.filter(usable).unwrap_or_else(bootstrap::own_address);
    if usable(&address) {
        return Ok(address);
    }
    bail!("this container has no address other than loopback: specify the workload's address with --ip")
}

async fn look_up(name: &str, port: u16) -> IpAddr {
    loop {
        match tokio::net::lookup_host((name, port)).await {
            Ok(mut found) => {
                if let Some(found) = found.next() {
                    return found.ip();
                }
            }
            Err(error) => tracing::debug!(name, %error, "cannot resolve the control plane's name"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The other IPv4 addresses of this network namespace: its local addresses (`/proc/net/fib_trie`) except
/// `own` and loopback.
pub(super) fn other_addresses(own: IpAddr) -> Vec<IpAddr> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let others = local(&table).into_iter().map(IpAddr::V4);
    others
        .filter(|address| *address != own && !address.is_loopback())
        .collect()
}

/// The addresses followed by a line `/32 host LOCAL`, without duplicates, in the order of the table.
fn local(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Waits until this network namespace no longer has the address. The engine has then stopped the container
/// that owns the namespace, and after a restart that container has a new one.
pub(super) async fn address_lost(address: IpAddr) {
    let mut missed = false;
    loop {
        sleep(CHECK_INTERVAL).await;
        let bound = UdpSocket::bind((address, 0));
        let is_gone = bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable);
        if is_gone && missed {
            return;
        }
        missed = is_gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_listed_once() {
        let table = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 172.20.0.0/16 2 0 2
        |-- 172.20.0.4
           /32 host LOCAL
        |-- 172.20.255.255
           /32 link BROADCAST
Local:
        |-- 172.20.0.4
           /32 host LOCAL
        |-- 172.21.0.9
           /32 host LOCAL
";
        let found: Vec<String> = local(table).iter().map(Ipv4Addr::to_string).collect();
        assert_eq!(found, ["127.0.0.1", "172.20.0.4", "172.21.0.9"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_missing_addresses_are_lost() {
        // A documentation address (RFC 5737), which no interface has.
        address_lost(Ipv4Addr::new(192, 0, 2, 1).into()).await;
        let stays = tokio::time::timeout(CHECK_INTERVAL * 10, address_lost(Ipv4Addr::LOCALHOST.into())).await;
        assert!(stays.is_err());
    }
}
