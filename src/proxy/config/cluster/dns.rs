//! DNS clusters: `DnsCluster`, and the deprecated fields of `Cluster` itself.

use std::net::SocketAddr;
use std::time::Duration;

use crate::proxy::config::value::{duration, host_address, number, unpack};
use crate::proxy::config::{At, Compiled, Refusal, all};
use crate::proxy::upstream::cluster::{DnsConfig, DnsFamily};
use crate::proxy::upstream::dns::client::NameService;
use crate::proxy::upstream::dns::servers::NameServers;
use crate::proxy::upstream::host::{Endpoints, HostAddress};
use crate::xds::pb::cares::CaresDnsResolverConfig;
use crate::xds::pb::cluster;
use crate::xds::pb::cluster::cluster::DnsLookupFamily as OlderFamily;
use crate::xds::pb::core::{Address, TypedExtensionConfig};
use crate::xds::pb::dns_cluster::DnsCluster;
use crate::xds::pb::dns_cluster::dns_cluster::RefreshRate;
use crate::xds::pb::dns_lookup::DnsLookupFamily;
use crate::xds::pb::wkt;

/// Envoy's defaults.
const REFRESH: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: u64 = 5;
const QUERY_TRIES: u32 = 4;

/// The port of a resolver without one.
const PORT: u16 = 53;

const GET_ADDR_INFO: &str = "/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig";

/// A `DnsCluster`.
pub(super) fn extension(message: &DnsCluster, endpoints: &Endpoints) -> Compiled<DnsConfig> {
    let failure = message.dns_failure_refresh_rate.as_ref();
    Ok(DnsConfig {
        logical: message.all_addresses_in_single_endpoint,
        refresh: message.dns_refresh_rate.as_ref().map_or(REFRESH, duration),
        respects_ttl: message.respect_dns_ttl,
        least_ttl: message.dns_min_refresh_rate.as_ref().map(duration).unwrap_or_default(),
        jitter: message.dns_jitter.as_ref().map(duration).unwrap_or_default(),
        retry: failure.map(|failure| retry(failure.base_interval.as_ref(), failure.max_interval.as_ref())),
        family: match message.dns_lookup_family() {
            DnsLookupFamily::Unspecified | DnsLookupFamily::Auto => DnsFamily::V6First,
            DnsLookupFamily::V4Only => DnsFamily::V4,
            DnsLookupFamily::V6Only => DnsFamily::V6,
            DnsLookupFamily::V4Preferred => DnsFamily::V4First,
            DnsLookupFamily::All => DnsFamily::All,
        },
        service: service(message.typed_dns_resolver_config.as_ref()).at("typed_dns_resolver_config")?,
        endpoints: endpoints.clone(),
    })
}

/// A cluster of the types `STRICT_DNS` and `LOGICAL_DNS`: the `DnsCluster` that its fields amount to.
#[expect(
    deprecated,
    reason = "control planes other than ours send what is looked up in the cluster itself"
)]
pub(super) fn older(message: &cluster::Cluster, logical: bool, endpoints: &Endpoints) -> Compiled<DnsConfig> {
    let family = match message.dns_lookup_family() {
        OlderFamily::Auto => DnsLookupFamily::Auto,
        OlderFamily::V4Only => DnsLookupFamily::V4Only,
        OlderFamily::V6Only => DnsLookupFamily::V6Only,
        OlderFamily::V4Preferred => DnsLookupFamily::V4Preferred,
        OlderFamily::All => DnsLookupFamily::All,
    };
    let failure = message.dns_failure_refresh_rate.as_ref();
    let cluster = DnsCluster {
        dns_refresh_rate: message.dns_refresh_rate,
        dns_failure_refresh_rate: failure.map(|failure| RefreshRate {
            base_interval: failure.base_interval,
            max_interval: failure.max_interval,
        }),
        respect_dns_ttl: message.respect_dns_ttl,
        dns_jitter: message.dns_jitter,
        dns_lookup_family: family.into(),
        typed_dns_resolver_config: message.typed_dns_resolver_config.clone(),
        all_addresses_in_single_endpoint: logical,
        ..Default::default()
    };
    extension(&cluster, endpoints)
}

/// Base and maximum interval of DNS look-ups after failures.
fn retry(base: Option<&wkt::Duration>, max: Option<&wkt::Duration>) -> (Duration, Duration) {
    let base = base.map_or(REFRESH, duration);
    (base, max.map_or(base.saturating_mul(10), duration))
}

/// A `typed_dns_resolver_config`; c-ares is the default.
fn service(config: Option<&TypedExtensionConfig>) -> Compiled<NameService> {
    let default = CaresDnsResolverConfig::default();
    let Some(any) = config.and_then(|config| config.typed_config.as_ref()) else {
        return servers(&default).map(NameService::Servers);
    };
    if any.type_url.ends_with(GET_ADDR_INFO) {
        return Ok(NameService::System);
    }
    let cares = unpack(any).and_then(|cares| servers(&cares)).at("typed_config")?;
    Ok(NameService::Servers(cares))
}

fn servers(message: &CaresDnsResolverConfig) -> Compiled<NameServers> {
    let options = message.dns_resolver_options.as_ref();
    let own = message.resolvers.iter().enumerate();
    let timeout = message.query_timeout_seconds.as_ref();
    Ok(NameServers {
        own: all(own.map(|(index, address)| server(address).at_index("resolvers", index)))?,
        fallback: message.use_resolvers_as_fallback,
        searches: options.is_none_or(|options| !options.no_default_search_domain),
        tcp: options.is_some_and(|options| options.use_tcp_for_dns_lookups),
        rotates: message.rotate_nameservers,
        timeout: Duration::from_secs(timeout.map_or(QUERY_TIMEOUT, |seconds| seconds.value)),
        tries: number(message.query_tries.as_ref(), QUERY_TRIES),
    })
}

fn server(address: &Address) -> Compiled<SocketAddr> {
    match host_address(Some(address))? {
        HostAddress::Ip(address) if address.port() == 0 => Ok(SocketAddr::new(address.ip(), PORT)),
        HostAddress::Ip(address) => Ok(address),
        HostAddress::Unix(_) => Err(Refusal::new("an IP address is required")),
    }
}
