//! DestinationRules: traffic policies of a host and of its subsets.

mod load_balancer;
mod pool;
mod tls;

use std::sync::Arc;

use super::report::Report;
use super::value::Nobody;
use super::{API_VERSION, Context, Lowered};
use crate::api::destination_rule as api;
use crate::api::{FieldPath, Object};
use crate::mesh::destination_rule::{DestinationRule, PolicyWithPorts, Subset, TrafficPolicy};

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
        Nobody::Refused,
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

/// The four blocks of a policy, wherever it stands.
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

/// `trafficPolicy` with its `portLevelSettings`; `parent` is the rule's own, for a subset's.
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
    if general.is_empty() && policy.port_level_settings.is_empty() {
        report
            .error(at, "an empty traffic policy says nothing")
            .help("leave `trafficPolicy` out");
    }
    let outlier = general
        .outlier_detection
        .or_else(|| parent.and_then(|parent| parent.outlier_detection.as_ref()));
    PolicyWithPorts {
        policy: blocks(report, at, &general, outlier.is_some(), tls::Level::Host),
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
            report.error(&at, "the settings of a port must say something");
        }
        let outlier = blocks_of.outlier_detection.is_some();
        let policy = blocks(report, &at, &blocks_of, outlier, tls::Level::Port);
        let Some(port) = &entry.port else {
            report
                .error(&at, "these settings name no port")
                .help("give `port: {number: …}`, a port of the service");
            continue;
        };
        let port_at = at.field("port").field("number");
        let number = report.port(&port_at, port.number);
        if found.iter().any(|(other, _)| *other == number) {
            report.warning(
                &port_at,
                format!("port {number} has settings already, these have no effect"),
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
    }
}
