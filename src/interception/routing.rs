//! Routing configuration for TPROXY, applied by netlink (rtnetlink(7)), equivalent to commands of
//! iproute2.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::{Family, Tproxy};

/// A routing setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// An address on the loopback interface.
    Address(IpNet),
    /// A rule: packets with the mark use the routing table.
    Rule(Tproxy),
    /// A local route in the table: all destinations are delivered locally.
    Route(u32),
}

/// A setting could not be applied or removed.
#[derive(Debug, thiserror::Error)]
#[error("`ip {version} {setting}` could not be {done}: {error}", version = .family.version())]
pub struct RoutingError {
    family: Family,
    setting: Setting,
    done: &'static str,
    error: io::Error,
}

impl fmt::Display for Setting {
    /// The equivalent arguments of `ip -4` or `ip -6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Address(address) => write!(f, "address replace {address} dev lo"),
            Setting::Rule(Tproxy { mark, table }) => write!(f, "rule add fwmark {mark} lookup {table}"),
            Setting::Route(table) => write!(f, "route replace local default dev lo table {table}"),
        }
    }
}

impl Setting {
    /// Applies the setting. A rule applied several times exists several times.
    ///
    /// # Errors
    ///
    /// If the kernel rejects it.
    pub(super) fn put(self, family: Family) -> Result<(), RoutingError> {
        let added = ask(&self.request(family, Change::Put));
        added.map_err(|error| self.failed(family, "applied", error))
    }

    /// Removes all instances of the setting, if any.
    ///
    /// # Errors
    ///
    /// If the kernel rejects it.
    pub(super) fn take(self, family: Family) -> Result<(), RoutingError> {
        loop {
            match ask(&self.request(family, Change::Take)) {
                Ok(()) => {}
                // The rule, route or address does not exist, or the address family is not
                // available.
                Err(Errno::NOENT | Errno::SRCH | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {
                    return Ok(());
                }
                Err(error) => return Err(self.failed(family, "reverted", error)),
            }
        }
    }

    fn failed(self, family: Family, done: &'static str, error: Errno) -> RoutingError {
        RoutingError {
            family,
            setting: self,
            done,
            error: error.into(),
        }
    }

    /// The netlink message for a change.
    fn request(self, family: Family, change: Change) -> Vec<u8> {
        let domain = match family {
            Family::V4 => AddressFamily::INET,
            Family::V6 => AddressFamily::INET6,
        };
        let [domain, _] = domain.as_raw().to_le_bytes();
        match self {
            Setting::Address(address) => {
                let mut request = Request::new(RTM_ADDR, change, NLM_F_REPLACE);
                // struct ifaddrmsg: no flags, universe scope.
                request.bytes(&[domain, address.prefix_len(), 0, 0]);
                request.bytes(&LOOPBACK.to_ne_bytes());
                let octets = octets(address.addr());
                request.attribute(IFA_LOCAL, &octets).attribute(IFA_ADDRESS, &octets)
            }
            Setting::Rule(Tproxy { mark, table }) => {
                let mut request = Request::new(RTM_RULE, change, NLM_F_EXCL);
                // struct fib_rule_hdr: any source and destination, the table in an attribute, no
                // flags.
                request.bytes(&[domain, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0]);
                let (mark, table) = (mark.to_ne_bytes(), table.to_ne_bytes());
                request.attribute(FRA_FWMARK, &mark).attribute(FRA_TABLE, &table)
            }
            Setting::Route(table) => {
                let mut request = Request::new(RTM_ROUTE, change, NLM_F_REPLACE);
                let scope = match family {
                    Family::V4 => RT_SCOPE_HOST,
                    // IPv6 routes have no scope.
                    Family::V6 => RT_SCOPE_UNIVERSE,
                };
                // When removing, match routes of any protocol.
                let protocol = match change {
                    Change::Put => RTPROT_BOOT,
                    Change::Take => 0,
                };
                // struct rtmsg: any destination, the table in an attribute, no flags.
                request.bytes(&[domain, 0, 0, 0, 0, protocol, scope, RTN_LOCAL, 0, 0, 0, 0]);
                let table = table.to_ne_bytes();
                let interface = LOOPBACK.to_ne_bytes();
                request.attribute(RTA_TABLE, &table).attribute(RTA_OIF, &interface)
            }
        }
        .finish()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Interface index of loopback, which is the first in every network namespace.
const LOOPBACK: u32 = 1;

// `linux/netlink.h`.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

// `linux/rtnetlink.h`, `linux/if_addr.h`, `linux/fib_rules.h`. The number of `RTM_NEW*`; `RTM_DEL*`
// is the next one.
const RTM_ADDR: u16 = 20;
const RTM_ROUTE: u16 = 24;
const RTM_RULE: u16 = 32;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTN_LOCAL: u8 = 2;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;

/// The kind of change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Put,
    Take,
}

/// A netlink message being built: `struct nlmsghdr`, a type-specific header and attributes.
struct Request(Vec<u8>);

impl Request {
    /// `if_there` are the flags for a setting that exists already.
    fn new(kind: u16, change: Change, if_there: u16) -> Self {
        let (kind, more) = match change {
            Change::Put => (kind, NLM_F_CREATE | if_there),
            Change::Take => (kind + 1, 0),
        };
        let mut request = Self(Vec::new());
        request.bytes(&0_u32.to_ne_bytes());
        request.bytes(&kind.to_ne_bytes());
        request.bytes(&(NLM_F_REQUEST | NLM_F_ACK | more).to_ne_bytes());
        // Sequence number and sender port: the socket sends one message, and the kernel fills in
        // the port.
        request.bytes(&[0; 8]);
        request
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// `struct rtattr`, aligned like everything after it.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // A header of 4 bytes and at most 16 bytes of address.
        self.bytes(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self
    }

    fn finish(self) -> Vec<u8> {
        let mut message = self.0;
        let len = (message.len() as u32).to_ne_bytes();
        message[..4].copy_from_slice(&len);
        message
    }
}

/// Sends a message on its own socket and receives the response.
fn ask(request: &[u8]) -> Result<(), Errno> {
    let socket: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE
        None,
    )?;
    send(&socket, request, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match acknowledged(&answer[..len]) {
        Some(0) => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(-error)),
        None => Err(Errno::BADMSG),
    }
}

/// The error in a response (`struct nlmsgerr`): a negated errno, 0 for success.
fn acknowledged(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_stated_length_and_alignment() {
        let tproxy = Tproxy { mark: 1337, table: 133 };
        for setting in [
            Setting::Address("::6/128".parse().unwrap()),
            Setting::Rule(tproxy),
            Setting::Route(133),
        ] {
            for change in [Change::Put, Change::Take] {
                let request = setting.request(Family::V6, change);
                assert_eq!(request[..4], (request.len() as u32).to_ne_bytes(), "{setting}");
                assert_eq!(request.len() % 4, 0, "{setting}");
            }
        }
    }

    #[test]
    fn only_a_netlink_ack_is_accepted() {
        let answer = |kind: u16, error: i32| {
            let mut answer = vec![0; 4];
            answer.extend(kind.to_ne_bytes());
            answer.extend([0; 10]);
            answer.extend(error.to_ne_bytes());
            answer
        };
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, 0)), Some(0));
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, -1)), Some(-1));
        assert_eq!(acknowledged(&answer(RTM_RULE, 0)), None);
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, 0)[..19]), None);
    }

    #[test]
    fn errors_show_the_equivalent_ip_command() {
        let error = Setting::Route(133).failed(Family::V6, "applied", Errno::PERM);
        assert_eq!(
            error.to_string(),
            "`ip -6 route replace local default dev lo table 133` could not be applied: \
             Operation not permitted (os error 1)"
        );
    }
}
