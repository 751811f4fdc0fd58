//! Lowers DestinationRules: traffic policies of a host and its subsets.

mod load_balancer;
mod pool;
mod tls;

use std::sync::Arc;

use super::report::Report;
use super::value::ExportToNone;
use super::{API_VERSION, Context, Lowered};
use crate::api::destination_rule as api;
use crate::api::{FieldPath, Object};
use crate::mesh::destination_rule::{DestinationRule, PolicyWithPorts, ProxyProtocol, Subset, TrafficPolicy};

pub(super) use load_balancer::locality_lb;
pub(super) use pool::{connection_pool, keepalive};

/// Lowers a DestinationRule.
pub(super) fn lower(object: &Object, spec: &api::DestinationRule, context: &Context) -> Lowered<Arc<DestinationRule>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let host = report.rule_host(&at.field("host"), &spec.host);
    let export_to = report.export_to(
        &spec.export_to,
        &context.config.destination_rule_export_to,
        ExportToNone::Refused,
    );
    let policy = policy(
        &mut report,
        &at.field("trafficPolicy"),
        spec.traffic_policy.as_ref(),
        None,
    );
    let subsets = subsets(&mut report, &at.field("subsets"), spec);
    let rule = host.map(|host| DestinationRule {
        id: object.id.clone(),
        api_version: API_VERSION.into(),
        host,
        export_to,
        policy,
        subsets,
    });
    report.finish_some(rule).map(Arc::new)
}

fn subsets(report: &mut Report<'_>, at: &FieldPath, spec: &api::DestinationRule) -> Vec<Subset> {
    let mut found: Vec<Subset> = Vec::with_capacity(spec.subsets.len());
    for (index, entry) in spec.subsets.iter().enumerate() {
        let at = at.index(index);
        let name = report.label_name(&at.field("name"), "subset", &entry.name);
        if found.iter().any(|other| other.name == name) {
            report.error(&at.field("name"), format!("two subsets have the name `{name}`"));
        }
        found.push(Subset {
            name,
            labels: report.labels(&at.field("labels"), &entry.labels),
            policy: policy(
                report,
                &at.field("trafficPolicy"),
                entry.traffic_policy.as_ref(),
                spec.traffic_policy.as_ref(),
            ),
        });
    }
    found
}

/// The blocks of a policy, at any level.
struct Blocks<'s> {
    load_balancer: Option<&'s api::LoadBalancer>,
    connection_pool: Option<&'s api::ConnectionPool>,
    outlier_detection: Option<&'s api::OutlierDetection>,
    tls: Option<&'s api::ClientTls>,
}

impl Blocks<'_> {
    fn is_empty(&self) -> bool {
        self.load_balancer.is_none()
            && self.connection_pool.is_none()
            && self.outlier_detection.is_none()
            && self.tls.is_none()
    }
}

/// Lowers `trafficPolicy` and its `portLevelSettings`; `parent` is the rule's own policy, for a
/// subset.
fn policy(
    report: &mut Report<'_>,
    at: &FieldPath,
    policy: Option<&api::TrafficPolicy>,
    parent: Option<&api::TrafficPolicy>,
) -> PolicyWithPorts {
    let Some(policy) = policy else {
        return PolicyWithPorts::default();
    };
    let general = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    if general.is_empty() && policy.port_level_settings.is_empty() && policy.proxy_protocol.is_none() {
        report
            .error(at, "an empty traffic policy has no effect")
            .help("omit `trafficPolicy`");
    }
    let outlier = general
        .outlier_detection
        .or_else(|| parent.and_then(|parent| parent.outlier_detection.as_ref()));
    PolicyWithPorts {
        policy: TrafficPolicy {
            proxy_protocol: policy.proxy_protocol.map(|said| match said.version {
                api::ProxyProtocolVersion::V1 => ProxyProtocol::V1,
                api::ProxyProtocolVersion::V2 => ProxyProtocol::V2,
            }),
            ..blocks(report, at, &general, outlier.is_some(), tls::Level::Host)
        },
        ports: ports(report, &at.field("portLevelSettings"), &policy.port_level_settings),
    }
}

fn ports(report: &mut Report<'_>, at: &FieldPath, settings: &[api::PortTrafficPolicy]) -> Vec<(u16, TrafficPolicy)> {
    let mut found: Vec<(u16, TrafficPolicy)> = Vec::with_capacity(settings.len());
    for (index, entry) in settings.iter().enumerate() {
        let at = at.index(index);
        let blocks_of = Blocks {
            load_balancer: entry.load_balancer.as_ref(),
            connection_pool: entry.connection_pool.as_ref(),
            outlier_detection: entry.outlier_detection.as_ref(),
            tls: entry.tls.as_ref(),
        };
        if blocks_of.is_empty() {
            report.error(&at, "port-level settings must not be empty");
        }
        let outlier = blocks_of.outlier_detection.is_some();
        let policy = blocks(report, &at, &blocks_of, outlier, tls::Level::Port);
        let Some(port) = &entry.port else {
            report
                .error(&at, "these settings do not specify a port")
                .help("set `port: {number: …}` to a port of the service");
            continue;
        };
        let port_at = at.field("port").field("number");
        let number = report.port(&port_at, port.number);
        if found.iter().any(|(other, _)| *other == number) {
            report.warning(
                &port_at,
                format!("port {number} already has settings; these have no effect"),
            );
        }
        found.push((number, policy));
    }
    found
}

fn blocks(
    report: &mut Report<'_>,
    at: &FieldPath,
    blocks: &Blocks<'_>,
    outlier_in_force: bool,
    level: tls::Level,
) -> TrafficPolicy {
    TrafficPolicy {
        load_balancer: blocks
            .load_balancer
            .map(|entry| load_balancer::load_balancer(report, &at.field("loadBalancer"), entry, outlier_in_force)),
        connection_pool: blocks
            .connection_pool
            .map(|entry| pool::connection_pool(report, &at.field("connectionPool"), entry)),
        outlier_detection: blocks
            .outlier_detection
            .map(|entry| pool::outlier_detection(report, &at.field("outlierDetection"), entry)),
        tls: blocks.tls.map(|entry| tls::tls(report, &at.field("tls"), entry, level)),
        proxy_protocol: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mesh::destination_rule::{
        ClientTlsMode, HashKey, HashTable, LbAlgorithm, LocalityMode, ServerVerification,
    };
    use crate::mesh::lower::Form;
    use crate::mesh::testing::{expect_as_marked, objects};

    /// A DestinationRule with this policy, and its service.
    fn policy(fields: &str) -> String {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: a}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: a}}
spec:
  host: a
  trafficPolicy:
{fields}"
        )
    }

    fn lowered(text: &str) -> Arc<DestinationRule> {
        let object = objects("a.yaml", text).pop().unwrap();
        let lowered = crate::mesh::lower::lower(&object, &Context::default());
        match lowered.value {
            Some(Form::DestinationRule(rule)) => rule,
            other => panic!("{other:?} {:?}", lowered.findings),
        }
    }

    #[test]
    fn hosts_and_subsets() {
        expect_as_marked(
            r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a_b                               #! IST0106
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec:
  host: nowhere                           #! IST0174
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: c}
spec:
  host: c
  exportTo: ["~"]                         #! IST0106
  trafficPolicy: {}                       #! IST0106
  subsets:
  - name: v 1                             #! IST0106
  - name: v2
    labels: {"a b": c}                    #! IST0106
  - name: v2                              #! IST0106
    trafficPolicy: {}                     #! IST0106
"#,
        );
    }

    #[test]
    fn ports() {
        expect_as_marked(&policy(
            "
    portLevelSettings:
    - port: {number: 70000}               #! IST0106
      loadBalancer: {simple: RANDOM}
    - port: {number: 80}                  #! IST0106
    - loadBalancer: {simple: RANDOM}      #! IST0106
    - port:                               #!
        number: 81
      loadBalancer: {simple: RANDOM}
    - port:                               #!
        number: 81                        #! IST0133
      loadBalancer: {simple: RANDOM}
",
        ));
    }

    #[test]
    fn load_balancers() {
        expect_as_marked(&policy(
            "
    loadBalancer:
      simple: RANDOM
      consistentHash:                     #! IST0106
        useSourceIp: true                 #! IST0106
        httpCookie: {name: ''}            #! IST0106
        minimumRingSize: 10               #! IST0106 IST0133
        maglev:                           #!
          tableSize: 4                    #! IST0106
",
        ));
        expect_as_marked(&policy(
            "
    loadBalancer:
      consistentHash:                     #! IST0106
        ringHash: {minimumRingSize: 9000000} #! IST0106
",
        ));
        expect_as_marked(&policy(
            "
    loadBalancer:
      consistentHash:
        httpCookie:
          name: a
          attributes:
          - {name: ''}                    #! IST0106
          - {name: b}
          - {name: b}                     #! IST0106
",
        ));
    }

    #[test]
    fn warmups() {
        expect_as_marked(&policy(
            "
    loadBalancer:
      warmupDurationSecs: 10s             #! IST0106
      warmup:                             #! IST0106
        minimumPercent: 101               #! IST0106
        aggression: 0                     #! IST0106
",
        ));
        expect_as_marked(&policy(
            "
    loadBalancer:
      simple: RANDOM
      warmup: {duration: 10s}             #! IST0133
",
        ));
        expect_as_marked(&policy(
            "
    loadBalancer:
      simple: PASSTHROUGH
      warmupDurationSecs: 0s              #! IST0106 IST0133
",
        ));
    }

    #[test]
    fn localities() {
        expect_as_marked(&policy(
            "
    outlierDetection: {}
    loadBalancer:
      localityLbSetting:
        distribute:
        - from: a/*/c                     #! IST0106
          to:
            b: 0                          #! IST0106
            c: 100
        - from: a/b                       #! IST0106
          to:                             #! IST0106
            c/d: 50                       #! IST0106
            c: 60
        - from: a                         #! IST0106
          to: {d: 100}
        failover:                         #! IST0106
        - {from: a, to: a}                #! IST0106
        - {from: a/b, to: '*'}            #! IST0106 IST0106
        failoverPriority: ['']            #! IST0106 IST0133
",
        ));
        expect_as_marked(&policy(
            "
    loadBalancer:
      localityLbSetting:                  #! IST0133
        failover: [{from: a, to: b}]
        failoverPriority:                 #! TS0005
        - topology.kubernetes.io/region   #! IST0106
        - app
",
        ));
    }

    #[test]
    fn pools_and_outliers() {
        expect_as_marked(&policy(
            "
    connectionPool: {}                    #! IST0106
    outlierDetection:
      consecutiveErrors: 3                #! IST0133
      consecutiveLocalOriginFailures: 3   #! IST0106
      interval: 0s                        #! IST0106
      baseEjectionTime: 1us               #! IST0106
      maxEjectionPercent: 101             #! IST0106
      minHealthPercent: -1                #! IST0106
      outlierDetectionHttpErrorCodes: [500] #! TS0005
    portLevelSettings:
    - port: {number: 80}
      connectionPool:
        tcp:
          maxConnections: -1              #! IST0106
          connectTimeout: 0s              #! IST0106
          maxConnectionDuration: 0s       #! IST0106
          idleTimeout: 0s
          tcpKeepalive: {time: 0s}        #! IST0106
        http:
          http1MaxPendingRequests: -1     #! IST0106
          http2MaxRequests: -1            #! IST0106
          maxRequestsPerConnection: -1    #! IST0106
          maxRetries: -1                  #! IST0106
          idleTimeout: 0s                 #! IST0106
          h2UpgradePolicy: UPGRADE
          useClientProtocol: true         #! IST0106
          maxConcurrentStreams: -1        #! IST0106
          http2KeepAlive: {interval: 1s}  #! IST0106
",
        ));
    }

    #[test]
    fn tls_settings() {
        expect_as_marked(&policy(
            "
    tls:                                  #! IST0106 IST0106 IST0128
      mode: MUTUAL
      credentialName: a                   #! TS0005
      caCrl: /crl                         #! IST0133
    portLevelSettings:
    - port: {number: 80}
      tls:                                #!
        mode: SIMPLE
        insecureSkipVerify: true
        caCertificates: /ca               #! IST0106
        subjectAltNames: [a]              #! IST0106
    - port: {number: 81}
      tls: {mode: SIMPLE}                 #! IST0129
    - port: {number: 82}
      tls:
        mode: ISTIO_MUTUAL
        clientCertificate: /a             #! IST0133
        privateKey: /b                    #! IST0133
        caCertificates: /c                #! IST0133
",
        ));
    }

    #[test]
    fn a_policy_is_lowered_block_by_block() {
        let rule = lowered(&policy(
            "
    loadBalancer:
      consistentHash: {httpCookie: {name: user, path: /, ttl: 0s}, maglev: {tableSize: 65537}}
      localityLbSetting: {enabled: true, failoverPriority: [app, zone=b]}
    connectionPool: {tcp: {maxConnections: 5, idleTimeout: 0s}, http: {maxRetries: 0}}
    outlierDetection: {consecutive5xxErrors: 0, maxEjectionPercent: 0, minHealthPercent: 50}
    tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca, sni: s, subjectAltNames: [x]}
    portLevelSettings:
    - {port: {number: 80}, tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: ''}}
  subsets:
  - name: v1
    labels: {version: v1}
    trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}
",
        ));
        let policy = &rule.policy.policy;
        let balancer = policy.load_balancer.as_ref().unwrap();
        let expected = LbAlgorithm::Hash {
            key: HashKey::Cookie {
                name: "user".into(),
                path: "/".into(),
                ttl: Some(Duration::ZERO),
                attributes: Vec::new(),
            },
            table: HashTable::Maglev(65537),
        };
        assert_eq!(balancer.algorithm, Some(expected));
        let labels = vec!["app".into(), "zone=b".into()];
        assert_eq!(
            balancer.locality.as_ref().unwrap().mode,
            LocalityMode::FailoverPriority(labels)
        );
        let pool = policy.connection_pool.as_ref().unwrap();
        assert_eq!((pool.max_connections, pool.max_retries), (Some(5), None));
        assert_eq!(pool.tcp_idle_timeout, Some(Duration::ZERO));
        let outlier = policy.outlier_detection.as_ref().unwrap();
        assert_eq!((outlier.consecutive_5xx, outlier.max_ejection_percent), (Some(0), None));
        assert_eq!(outlier.min_health_percent, 50);
        let mutual = ClientTlsMode::Originate {
            certificate: Some(("/c".into(), "/k".into())),
            verify: ServerVerification::File {
                ca: "/ca".into(),
                crl: None,
            },
        };
        assert_eq!(policy.tls.as_ref().unwrap().mode, mutual);
        let (port, of_port) = &rule.policy.ports[0];
        let unverified = ClientTlsMode::Originate {
            certificate: None,
            verify: ServerVerification::None,
        };
        assert_eq!((*port, &of_port.tls.as_ref().unwrap().mode), (80, &unverified));
        let subset = &rule.subsets[0];
        let balancer = subset.policy.policy.load_balancer.as_ref().unwrap();
        assert_eq!(balancer.algorithm, Some(LbAlgorithm::Passthrough));
        assert_eq!(rule.effective(443, Some(subset)).tls, policy.tls);
    }
}
