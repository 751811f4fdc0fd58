//! DNS queries, as Envoy sends them with c-ares.
//!
//! hickory carries single queries. Where c-ares and hickory's own resolver differ (the order of servers, retries, search
//! domains, what counts as an answer), the rule of c-ares is here. Nothing is cached, as in Envoy (`qcache_max_ttl` 0).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle as _;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{DnsRequestOptions, Message, Query};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use resolv_conf::ScopedIp;
use thiserror::Error;

use super::client::Found;
use super::hosts_file;
use crate::proxy::upstream::cluster::DnsFamily;

/// The server of c-ares where none is configured.
const DEFAULT_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The port of DNS.
const PORT: u16 = 53;

/// Servers and options of a resolver (`CaresDnsResolverConfig`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NameServers {
    /// `resolvers`; empty: those of `/etc/resolv.conf`.
    pub(crate) own: Vec<SocketAddr>,
    /// `use_resolvers_as_fallback`: the servers of `/etc/resolv.conf` come first, if there are any.
    pub(crate) fallback: bool,
    /// Whether the search domains of `/etc/resolv.conf` apply (not `no_default_search_domain`).
    pub(crate) searches: bool,
    /// `use_tcp_for_dns_lookups`; otherwise TCP follows a truncated answer.
    pub(crate) tcp: bool,
    /// `rotate_nameservers`.
    pub(crate) rotates: bool,
    /// `query_timeout_seconds`.
    pub(crate) timeout: Duration,
    /// `query_tries`, for each server.
    pub(crate) tries: u32,
}

/// Why a look-up failed.
#[derive(Debug, Error)]
pub(super) enum LookupError {
    /// The name is not valid.
    #[error("invalid name: {0}")]
    Name(#[from] ProtoError),
    /// No server gave an answer.
    #[error(transparent)]
    Server(#[from] NetError),
    /// `getaddrinfo` failed.
    #[error(transparent)]
    System(#[from] io::Error),
    /// There is no address, which a logical host cannot do without.
    #[error("no address")]
    NoAddress,
}

/// A resolver that sends DNS queries.
pub(super) struct Servers {
    pools: Vec<NameServerPool<TokioRuntimeProvider>>,
    tries: usize,
    /// The server that comes first in the next query, where they rotate.
    first: Option<AtomicUsize>,
    /// Search domains.
    search: Vec<Name>,
    /// A name with at least so many dots is tried as it is before the search domains.
    ndots: usize,
}

impl Servers {
    /// Reads `/etc/resolv.conf`, once for each resolver as Envoy.
    pub(super) fn new(config: &NameServers) -> Self {
        let text = fs::read("/etc/resolv.conf").unwrap_or_else(|error| {
            tracing::info!(%error, "/etc/resolv.conf names no DNS server");
            Vec::new()
        });
        Self::beside(config, System::read(&text))
    }

    fn beside(config: &NameServers, system: System) -> Self {
        #[expect(clippy::expect_used, reason = "nothing can fail where hickory is built without TLS")]
        let tls = TlsConfig::new().expect("no TLS");
        let context = Arc::new(PoolContext::new(options(config), tls));
        // A pool for each, since hickory's order of servers is not that of c-ares.
        let pool = |address| {
            let server = server(address, config.tcp);
            NameServerPool::from_config([server], context.clone(), TokioRuntimeProvider::default())
        };
        Self {
            pools: asked(config, system.servers).into_iter().map(pool).collect(),
            tries: usize::try_from(config.tries).unwrap_or(usize::MAX),
            first: config.rotates.then(AtomicUsize::default),
            search: if config.searches { system.search } else { Vec::new() },
            ndots: system.ndots,
        }
    }

    /// The addresses of a name. As Envoy: a preferred family is queried first and the other one only if there is none of
    /// it; without any address, a failure of either query is a failure.
    pub(super) async fn lookup(&self, name: &str, family: DnsFamily) -> Result<Vec<Found>, LookupError> {
        let (first, second) = match family {
            DnsFamily::V4 => return self.find(name, &[RecordType::A]).await,
            DnsFamily::V6 => return self.find(name, &[RecordType::AAAA]).await,
            DnsFamily::All => return self.find(name, &[RecordType::A, RecordType::AAAA]).await,
            DnsFamily::V4First => (RecordType::A, RecordType::AAAA),
            DnsFamily::V6First => (RecordType::AAAA, RecordType::A),
        };
        let nothing = match self.find(name, &[first]).await {
            Ok(found) if !found.is_empty() => return Ok(found),
            nothing => nothing,
        };
        match self.find(name, &[second]).await? {
            found if found.is_empty() => nothing,
            found => Ok(found),
        }
    }

    /// From `/etc/hosts`, or from the first candidate with records.
    async fn find(&self, name: &str, kinds: &[RecordType]) -> Result<Vec<Found>, LookupError> {
        let wanted = |address: &IpAddr| kinds.contains(&kind(address));
        let known = hosts_file::addresses(name, wanted);
        if !known.is_empty() {
            let found = known.into_iter().map(|address| Found {
                address,
                ttl: Duration::ZERO,
            });
            return Ok(found.collect());
        }
        for name in candidates(name, &self.search, self.ndots)? {
            let found = self.ask_for_all(&name, kinds).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// The records of all these types. A failed query matters only if there are no records at all.
    async fn ask_for_all(&self, name: &Name, kinds: &[RecordType]) -> Result<Vec<Found>, NetError> {
        let answers = join_all(kinds.iter().map(|kind| self.ask(name, *kind))).await;
        let (mut all, mut failure) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Ok(found) => all.extend(found),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    /// Queries one server after the other until one gives an answer, be it a negative one.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Vec<Found>, NetError> {
        let first = self.first.as_ref().map_or(0, |first| first.fetch_add(1, Relaxed));
        let mut failure = NetError::NoConnections;
        for attempt in 0..self.tries.saturating_mul(self.pools.len()) {
            let server = &self.pools[first.wrapping_add(attempt) % self.pools.len()];
            match ask(server, name, kind).await {
                Ok(found) => return Ok(found),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// `/etc/resolv.conf`.
#[derive(Default)]
struct System {
    servers: Vec<SocketAddr>,
    search: Vec<Name>,
    ndots: usize,
}

impl System {
    /// As c-ares: invalid lines are ignored, and the domain of the host name is the default search domain.
    fn read(text: &[u8]) -> Self {
        let (config, _) = resolv_conf::Config::parse_with_errors(text);
        let servers = config.nameservers.iter().map(|server| match server {
            ScopedIp::V4(ip) => SocketAddr::new((*ip).into(), PORT),
            ScopedIp::V6(ip, _) => SocketAddr::new((*ip).into(), PORT),
        });
        let mut search: Vec<_> = config.get_last_search_or_domain().cloned().collect();
        if search.is_empty() {
            search.extend(config.get_system_domain());
        }
        let search = search.iter().filter_map(|domain| Name::from_ascii(domain).ok());
        Self {
            servers: servers.collect(),
            search: search.filter(|domain| !domain.is_root()).collect(),
            ndots: usize::try_from(config.ndots).unwrap_or(usize::MAX),
        }
    }
}

/// The servers that are queried.
fn asked(config: &NameServers, system: Vec<SocketAddr>) -> Vec<SocketAddr> {
    match (&*config.own, &*system) {
        ([], []) => vec![SocketAddr::new(DEFAULT_SERVER, PORT)],
        ([], _) => system,
        (_, [_, ..]) if config.fallback => system,
        _ => config.own.clone(),
    }
}

fn server(address: SocketAddr, tcp: bool) -> NameServerConfig {
    let mut server = match tcp {
        true => NameServerConfig::tcp(address.ip()),
        // TCP for truncated answers.
        false => NameServerConfig::udp_and_tcp(address.ip()),
    };
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn options(config: &NameServers) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = config.timeout;
    // As many queries on a TCP connection as there are ids.
    options.max_active_requests = usize::from(u16::MAX);
    options
}

/// Queries one server. NXDOMAIN and an answer without records are answers, without addresses.
async fn ask(
    server: &NameServerPool<TokioRuntimeProvider>,
    name: &Name,
    kind: RecordType,
) -> Result<Vec<Found>, NetError> {
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = true;
    let query = Query::query(name.clone(), kind);
    match server.lookup(query, options).next().await {
        Some(Ok(answer)) => Ok(records(&answer, kind)),
        Some(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => Ok(Vec::new()),
        Some(Err(error)) => Err(error),
        None => Err(NetError::NoConnections),
    }
}

/// The addresses in an answer. A CNAME limits the TTL of what it leads to.
fn records(answer: &Message, wanted: RecordType) -> Vec<Found> {
    let of_alias = |record: &Record| matches!(record.data, RData::CNAME(_)).then_some(record.ttl);
    let least = answer.answers.iter().filter_map(of_alias).min().unwrap_or(u32::MAX);
    let found = answer.answers.iter().filter_map(|record| {
        let address = record.data.ip_addr().filter(|address| kind(address) == wanted)?;
        let ttl = Duration::from_secs(record.ttl.min(least).into());
        Some(Found { address, ttl })
    });
    found.collect()
}

fn kind(address: &IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

/// The names to query for a name, in this order: itself and each search domain's. One that ends with a dot is absolute.
fn candidates(name: &str, search: &[Name], ndots: usize) -> Result<Vec<Name>, ProtoError> {
    let relative = Name::from_ascii(name)?;
    let mut absolute = relative.clone();
    absolute.set_fqdn(true);
    if relative.is_fqdn() {
        return Ok(vec![absolute]);
    }
    // A name that is too long for a domain cannot be in it.
    let mut candidates: Vec<_> = search
        .iter()
        .filter_map(|domain| relative.clone().append_domain(domain).ok())
        .collect();
    if name.matches('.').count() >= ndots {
        candidates.insert(0, absolute);
    } else {
        candidates.push(absolute);
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests;
