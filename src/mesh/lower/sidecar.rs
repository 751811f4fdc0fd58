//! Sidecars: what a proxy accepts and what it can reach.

mod egress;
mod ingress;

use std::sync::Arc;

use super::destination_rule::connection_pool;
use super::report::Report;
use super::{Context, Lowered};
use crate::api::service_entry::ServicePort;
use crate::api::sidecar as api;
use crate::api::{FieldPath, Object};
use crate::mesh::config::OutboundPolicy;
use crate::mesh::sidecar::{ListenerPort, Sidecar};

/// Lowers a Sidecar.
pub(super) fn lower(object: &Object, spec: &api::Sidecar, context: &Context) -> Lowered<Arc<Sidecar>> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let says_something = !spec.ingress.is_empty()
        || !spec.egress.is_empty()
        || spec.inbound_connection_pool.is_some()
        || spec.outbound_traffic_policy.is_some();
    if !says_something {
        report
            .error(&at, "a Sidecar without settings says nothing")
            .help("give `egress`, `ingress`, `outboundTrafficPolicy` or `inboundConnectionPool`");
    }
    let selector = spec
        .workload_selector
        .as_ref()
        .map(|selector| report.selector(&at.field("workloadSelector").field("labels"), &selector.labels))
        .filter(|labels| !labels.is_empty());
    let value = Sidecar {
        id: object.id.clone(),
        selector,
        ingress: ingress::listeners(&mut report, &at.field("ingress"), &spec.ingress),
        egress: egress::listeners(&mut report, &at.field("egress"), &spec.egress),
        outbound_policy: spec
            .outbound_traffic_policy
            .as_ref()
            .map(|policy| outbound(policy.mode)),
        inbound_connection_pool: spec
            .inbound_connection_pool
            .as_ref()
            .map(|pool| connection_pool(&mut report, &at.field("inboundConnectionPool"), pool)),
    };
    report.finish(value).map(Arc::new)
}

/// `outboundTrafficPolicy.mode` of a Sidecar and of the mesh.
pub(super) fn outbound(mode: api::OutboundTrafficMode) -> OutboundPolicy {
    match mode {
        api::OutboundTrafficMode::RegistryOnly => OutboundPolicy::RegistryOnly,
        api::OutboundTrafficMode::AllowAny => OutboundPolicy::AllowAny,
        api::OutboundTrafficMode::AllowAnyDynamicDns(never) => match never {},
    }
}

/// `port` of a listener; a number of 0 is checked by the caller.
fn listener_port(report: &mut Report<'_>, at: &FieldPath, port: &ServicePort, number: u16) -> ListenerPort {
    if port.target_port != 0 {
        report.error(&at.field("targetPort"), "a listener has no `targetPort`");
    }
    if !port.name.is_empty() {
        report.label_name(&at.field("name"), "port", &port.name);
    }
    ListenerPort {
        number,
        protocol: report.protocol(&at.field("protocol"), &port.protocol),
        name: port.name.as_str().into(),
    }
}
