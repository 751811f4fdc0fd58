//! Clusters of one service: one per port and one per port and subset of its DestinationRule.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::endpoints::{self, Selection};
use super::locality;
use super::naming;
use super::scope::Scope;
use super::transport::Peer;
use crate::ir::cluster::{
    Cluster, ClusterEndpoints, ClusterMetadata, Discovery, HttpVersion, Limits, LoadBalancer, Lookup, Transport,
    UpstreamHttp, UpstreamTls,
};
use crate::ir::node::InterceptionMode;
use crate::ir::{Origins, ResourceName};
use crate::mesh::config::MeshConfig;
use crate::mesh::destination_rule::{
    ConnectionPool, DestinationRule, H2Upgrade, LbAlgorithm, LoadBalancerPolicy, LocalityLb, LocalityMode,
    ServerVerification, Subset, TrafficPolicy,
};
use crate::mesh::service::{Protocol, Resolution, Service, ServicePort};
use crate::name::Hostname;

/// The clusters of one host and their EDS endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HostUnit {
    /// Clusters by name.
    pub(super) clusters: BTreeMap<ResourceName, Arc<Cluster>>,
    /// Endpoints of clusters with [`Discovery::Eds`].
    pub(super) endpoints: BTreeMap<ResourceName, Arc<ClusterEndpoints>>,
}

/// Builds the clusters for `host`; empty if the proxy sees no such service.
pub(super) fn host_unit(scope: &Scope<'_>, host: &Hostname) -> HostUnit {
    let mut unit = HostUnit::default();
    let Some(service) = scope.service(host) else {
        return unit;
    };
    let rule = scope.destination_rule(service);
    let subsets = rule.iter().flat_map(|rule| rule.subsets.iter().map(Some));
    for subset in std::iter::once(None).chain(subsets) {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            if !scope.reaches_port(service, port.number) {
                continue;
            }
            let subject = Subject {
                scope,
                service,
                rule: rule.as_deref(),
                port,
                subset,
            };
            if let Some(cluster) = subject.cluster() {
                subject.add(&mut unit, cluster);
            }
        }
    }
    unit
}

/// HTTP version used for a port (`http2_protocol_options`, `use_downstream_protocol_config`).
pub(super) fn http_version(protocol: Protocol, pool: Option<&ConnectionPool>, config: &MeshConfig) -> HttpVersion {
    let upgrade = match pool.and_then(|pool| pool.h2_upgrade) {
        Some(asked) => asked == H2Upgrade::Upgrade,
        None => config.h2_upgrade == H2Upgrade::Upgrade && protocol.is_http(),
    };
    if pool.is_some_and(|pool| pool.use_client_protocol) {
        HttpVersion::Downstream
    } else if upgrade || protocol.is_http2() {
        HttpVersion::Http2
    } else if protocol == Protocol::Auto {
        HttpVersion::Downstream
    } else {
        HttpVersion::Http1
    }
}

/// Circuit breaker thresholds from a connection pool.
pub(super) fn limits(pool: Option<&ConnectionPool>) -> Limits {
    pool.map_or_else(Limits::default, |pool| Limits {
        connections: pool.max_connections,
        pending_requests: pool.max_pending_requests,
        requests: pool.max_requests,
        retries: pool.max_retries,
    })
}

/// HTTP options from a connection pool. Its TCP settings apply where it has no HTTP ones.
pub(super) fn upstream_http(version: HttpVersion, pool: Option<&ConnectionPool>) -> UpstreamHttp {
    let Some(pool) = pool else {
        return UpstreamHttp {
            version,
            ..UpstreamHttp::default()
        };
    };
    let http2 = version == HttpVersion::Http2;
    UpstreamHttp {
        version,
        max_concurrent_streams: pool.max_concurrent_streams.filter(|_| http2),
        keepalive: pool.http2_keepalive.filter(|_| http2),
        idle_timeout: pool.http_idle_timeout.or(pool.tcp_idle_timeout),
        max_connection_duration: pool.max_connection_duration,
        max_requests_per_connection: pool.max_requests_per_connection,
        auto_sni: false,
        auto_san_validation: false,
    }
}

/// Inputs of one cluster.
struct Subject<'a> {
    scope: &'a Scope<'a>,
    service: &'a Service,
    rule: Option<&'a DestinationRule>,
    port: &'a ServicePort,
    subset: Option<&'a Subset>,
}

impl<'a> Subject<'a> {
    fn add(&self, unit: &mut HostUnit, (cluster, endpoints): (Cluster, Option<ClusterEndpoints>)) {
        let name = cluster.name.clone();
        if unit.clusters.contains_key(&name) {
            return;
        }
        if let Some(endpoints) = endpoints {
            unit.endpoints.insert(name.clone(), Arc::new(endpoints));
        }
        unit.clusters.insert(name, Arc::new(cluster));
    }

    fn subset_name(&self) -> Option<&str> {
        self.subset.map(|subset| &*subset.name)
    }

    /// The cluster and its EDS endpoints. `None` for aliases and, as in Istio, for DNS clusters
    /// without a name to resolve.
    fn cluster(&self) -> Option<(Cluster, Option<ClusterEndpoints>)> {
        let config = &self.scope.mesh.config;
        let policy = self.rule.map(|rule| rule.effective(self.port.number, self.subset));
        let policy = policy.unwrap_or_default();
        let pool = policy.connection_pool.as_ref();
        let name = naming::outbound_cluster(self.port.number, self.subset_name(), &self.service.key.host);
        let version = http_version(self.port.protocol, pool, config);
        let original_dst = self.goes_to_original(&policy);
        let peer = Peer {
            scope: self.scope,
            service: self.service,
            port: self.port,
            subset: self.subset_name(),
            version,
            original_dst,
        };
        let transport = peer.transport(policy.tls.as_ref());
        let (discovery, separate) = self.discovery(&name, &policy, &transport)?;
        let preference = self.preference(&policy);
        let cluster = Cluster {
            name,
            discovery,
            connect_timeout: pool
                .and_then(|pool| pool.connect_timeout)
                .unwrap_or(config.connect_timeout),
            load_balancer: load_balancer(policy.load_balancer.as_ref(), original_dst),
            warmup: policy.load_balancer.as_ref().and_then(|lb| lb.warmup),
            locality_weighted: !original_dst
                && preference
                    .setting
                    .is_some_and(|setting| is_weighted(setting, preference.failover)),
            limits: limits(pool),
            panic_threshold: policy
                .outlier_detection
                .as_ref()
                .map_or(0, |detection| detection.min_health_percent),
            outlier_detection: policy.outlier_detection.clone(),
            http: http_options(version, pool, &transport),
            tcp_keepalive: pool.and_then(|pool| pool.tcp_keepalive).or(config.tcp_keepalive),
            marked_source: false,
            transport,
            proxy_protocol: policy.proxy_protocol,
            metadata: self.metadata(),
            origins: self.origins(),
        };
        Some((cluster, separate))
    }

    /// Whether connections go to their original destination. Without interception that is unknown,
    /// so a service with endpoints uses these instead.
    fn goes_to_original(&self, policy: &TrafficPolicy) -> bool {
        let known = self.scope.view.mode != InterceptionMode::None || self.service.endpoints.is_empty();
        let algorithm = policy.load_balancer.as_ref().and_then(|lb| lb.algorithm.as_ref());
        let wanted = self.service.resolution == Resolution::Passthrough || algorithm == Some(&LbAlgorithm::Passthrough);
        known && wanted
    }

    fn discovery(
        &self,
        name: &ResourceName,
        policy: &TrafficPolicy,
        transport: &Transport,
    ) -> Option<(Discovery, Option<ClusterEndpoints>)> {
        if self.service.resolution == Resolution::Alias {
            return None;
        }
        if self.goes_to_original(policy) {
            let overridden = !self.service.kubernetes && self.port.target != self.port.number;
            let discovery = Discovery::OriginalDst {
                port: overridden.then_some(self.port.target),
                inbound: false,
            };
            return Some((discovery, None));
        }
        let endpoints = self.endpoints(name, policy, transport);
        match self.service.resolution {
            Resolution::Static | Resolution::Passthrough | Resolution::Alias => Some((Discovery::Eds, Some(endpoints))),
            Resolution::Dns => Some((Discovery::StrictDns(resolved(endpoints)?, self.lookup()), None)),
            Resolution::DnsRoundRobin => Some((Discovery::LogicalDns(first(endpoints)?, self.lookup()), None)),
        }
    }

    fn lookup(&self) -> Lookup {
        Lookup {
            refresh: self.scope.mesh.config.dns_refresh_rate,
            ipv6: self.scope.view.ipv6,
        }
    }

    fn endpoints(&self, name: &ResourceName, policy: &TrafficPolicy, transport: &Transport) -> ClusterEndpoints {
        let detection = policy.outlier_detection.as_ref();
        let preference = self.preference(policy);
        let selection = Selection {
            scope: self.scope,
            service: self.service,
            port: self.port.number,
            labels: self.subset.map(|subset| &subset.labels),
            names: !matches!(self.service.resolution, Resolution::Static),
            unready: detection.is_none_or(|detection| detection.min_health_percent == 0),
            transport,
            locality: preference.setting,
            failover: preference.failover,
        };
        ClusterEndpoints {
            cluster: name.clone(),
            localities: endpoints::localities(&selection),
            origins: self.service.origins.clone().into(),
        }
    }

    /// Locality preference: that of the DestinationRule, else of the service, else of the mesh.
    fn preference<'p>(&self, policy: &'p TrafficPolicy) -> Preference<'p>
    where
        'a: 'p,
    {
        let own = policy.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
        let of_service = self
            .service
            .traffic_distribution
            .locality_lb()
            .filter(|_| own.is_none());
        let setting = own.or(of_service).unwrap_or(&self.scope.mesh.config.locality_lb);
        Preference {
            setting: Some(setting).filter(|setting| setting.enabled),
            failover: policy.outlier_detection.is_some() || of_service.is_some(),
        }
    }

    fn metadata(&self) -> ClusterMetadata {
        let key = &self.service.key;
        ClusterMetadata {
            config: self.rule.map(|rule| (rule.id.clone(), rule.api_version.clone())),
            services: vec![(key.host.clone(), self.service.name.clone(), key.namespace.clone())],
            subset: self.subset.map(|subset| subset.name.clone()),
            external: self.service.external,
        }
    }

    fn origins(&self) -> Origins {
        let rule = self.rule.map(|rule| rule.id.clone());
        self.service.origins.iter().cloned().chain(rule).collect()
    }
}

/// Locality preference of a cluster.
struct Preference<'a> {
    /// The effective locality setting; `None` if disabled.
    setting: Option<&'a LocalityLb>,
    /// Whether endpoints get priorities: needs outlier detection, or a request by the service.
    failover: bool,
}

/// Whether localities are weighted. Not by default, since it distorts LEAST_REQUEST.
fn is_weighted(setting: &LocalityLb, failover: bool) -> bool {
    match &setting.mode {
        LocalityMode::Distribute(_) => true,
        LocalityMode::Failover(regions) => failover && !regions.is_empty(),
        LocalityMode::FailoverPriority(labels) => failover && !labels.is_empty(),
    }
}

fn load_balancer(policy: Option<&LoadBalancerPolicy>, original_dst: bool) -> LoadBalancer {
    if original_dst {
        return LoadBalancer::ClusterProvided;
    }
    match policy.and_then(|policy| policy.algorithm.as_ref()) {
        None | Some(LbAlgorithm::LeastRequest | LbAlgorithm::Passthrough) => LoadBalancer::LeastRequest,
        Some(LbAlgorithm::RoundRobin) => LoadBalancer::RoundRobin,
        Some(LbAlgorithm::Random) => LoadBalancer::Random,
        Some(LbAlgorithm::Hash { table, .. }) => LoadBalancer::Hash(*table),
    }
}

/// Like [`upstream_http`]; TLS origination without SNI takes it from the request.
fn http_options(version: HttpVersion, pool: Option<&ConnectionPool>, transport: &Transport) -> UpstreamHttp {
    let mut options = upstream_http(version, pool);
    if let Transport::Tls(UpstreamTls::Files {
        sni: None,
        subject_alt_names,
        verify,
        ..
    }) = transport
    {
        options.auto_sni = true;
        options.auto_san_validation = subject_alt_names.is_empty() && *verify != ServerVerification::None;
    }
    options
}

/// Endpoints of a DNS cluster, which is omitted if there are none.
fn resolved(endpoints: ClusterEndpoints) -> Option<Arc<ClusterEndpoints>> {
    (!endpoints.localities.is_empty()).then(|| Arc::new(endpoints))
}

/// A LOGICAL_DNS cluster has exactly one endpoint.
fn first(endpoints: ClusterEndpoints) -> Option<Arc<ClusterEndpoints>> {
    let mut group = endpoints.localities.into_iter().min_by_key(|group| group.priority)?;
    group.endpoints.truncate(1);
    group.priority = 0;
    group.weight = locality::sum_of_weights(&group.endpoints);
    Some(Arc::new(ClusterEndpoints {
        localities: vec![group],
        ..endpoints
    }))
}
