//! DNS resolvers: one for each `typed_dns_resolver_config`.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::lookup_host;

use super::servers::{LookupError, NameServers, Servers};
use crate::proxy::upstream::cluster::DnsFamily;

/// Envoy's TTL of what `getaddrinfo` returns.
const SYSTEM_TTL: Duration = Duration::from_secs(60);

/// Which resolver a cluster uses (`typed_dns_resolver_config`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NameService {
    /// DNS queries (`CaresDnsResolverConfig`).
    Servers(NameServers),
    /// The C library (`GetAddrInfoDnsResolverConfig`).
    System,
}

/// An address record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: IpAddr,
    /// Its TTL; zero where it has none (`/etc/hosts`).
    pub(super) ttl: Duration,
}

/// A resolver.
pub(super) enum Client {
    Servers(Servers),
    System,
}

impl Client {
    /// The addresses of a name; empty for NXDOMAIN and for an answer without records of the family.
    pub(super) async fn lookup(&self, name: &str, family: DnsFamily) -> Result<Vec<Found>, LookupError> {
        match self {
            Self::Servers(servers) => servers.lookup(name, family).await,
            Self::System => Ok(system(name, family).await?),
        }
    }
}

/// By `getaddrinfo`, on a thread that may block.
async fn system(name: &str, family: DnsFamily) -> io::Result<Vec<Found>> {
    let found = lookup_host((name, 0)).await?;
    let wanted = wanted(found.map(|address| address.ip()).collect(), family);
    let found = wanted.into_iter().map(|address| Found {
        address,
        ttl: SYSTEM_TTL,
    });
    Ok(found.collect())
}

/// The addresses that `dns_lookup_family` selects.
fn wanted(found: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_ipv4);
    match family {
        DnsFamily::V4 => v4,
        DnsFamily::V6 => v6,
        DnsFamily::V6First if v6.is_empty() => v4,
        DnsFamily::V6First => v6,
        DnsFamily::V4First if v4.is_empty() => v6,
        DnsFamily::V4First => v4,
        DnsFamily::All => [v4, v6].concat(),
    }
}

/// The resolvers in use. Each is made when the first cluster needs it and shared by all clusters of the same configuration.
#[derive(Default)]
pub(super) struct Clients {
    known: HashMap<NameService, Weak<Client>>,
}

impl Clients {
    /// The resolver of this configuration.
    pub(super) fn of(&mut self, service: &NameService) -> Arc<Client> {
        if let Some(client) = self.known.get(service).and_then(Weak::upgrade) {
            return client;
        }
        self.known.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(match service {
            NameService::Servers(servers) => Client::Servers(Servers::new(servers)),
            NameService::System => Client::System,
        });
        self.known.insert(service.clone(), Arc::downgrade(&client));
        client
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::nowhere;
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_are_chosen_as_envoy_chooses_them() {
        let both = || ips(&["::1", "127.0.0.2", "127.0.0.1"]);
        assert_eq!(wanted(both(), DnsFamily::V4), ips(&["127.0.0.2", "127.0.0.1"]));
        assert_eq!(wanted(both(), DnsFamily::V6), ips(&["::1"]));
        assert_eq!(wanted(both(), DnsFamily::V6First), ips(&["::1"]));
        assert_eq!(wanted(both(), DnsFamily::V4First), ips(&["127.0.0.2", "127.0.0.1"]));
        assert_eq!(wanted(both(), DnsFamily::All).len(), 3);
        assert_eq!(wanted(ips(&["::1"]), DnsFamily::V4First), ips(&["::1"]));
        assert_eq!(wanted(ips(&["::1"]), DnsFamily::V4), ips(&[]));
    }

    #[tokio::test]
    async fn the_systems_resolver_is_asked_where_it_is_wanted() {
        let found = Client::System.lookup("localhost", DnsFamily::V4).await.unwrap();
        let expected = Found {
            address: "127.0.0.1".parse().unwrap(),
            ttl: SYSTEM_TTL,
        };
        assert_eq!(found, [expected]);
        assert!(
            Client::System
                .lookup("does-not-exist.invalid", DnsFamily::V4)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn clusters_that_ask_the_same_servers_share_a_client() {
        let mut clients = Clients::default();
        let (one, other) = (nowhere(), NameService::System);
        let first = clients.of(&one);
        assert!(Arc::ptr_eq(&first, &clients.of(&one)));
        assert!(!Arc::ptr_eq(&first, &clients.of(&other)));
        drop(first);
        clients.of(&other);
        assert!(!clients.known.contains_key(&one));
    }
}
