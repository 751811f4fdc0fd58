//! What tests of lookups have in common.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::NameService;
use super::servers::NameServers;

/// These servers, each asked once.
pub(super) fn servers(own: &[SocketAddr]) -> NameServers {
    NameServers {
        own: own.to_vec(),
        fallback: false,
        searches: true,
        tcp: false,
        rotates: false,
        timeout: Duration::from_secs(1),
        tries: 1,
    }
}

/// Nobody answers here.
pub(super) fn nowhere() -> NameService {
    NameService::Servers(servers(&["127.0.0.1:1".parse().unwrap()]))
}
