//! Lowers VirtualServices: hosts, gateways and the routes of each protocol.

mod actions;
mod headers;
mod http;
mod l4;
mod matches;
mod reach;
mod variables;

pub(super) use actions::retries;
pub(super) use http::at_host;

use super::report::Report;
use super::value::ExportToNone;
use super::{API_VERSION, Context, Form, Lowered};
use crate::api::virtual_service::VirtualService as Spec;
use crate::api::{FieldPath, Object};
use crate::diag::{Code, Severity};
use crate::mesh::virtual_service::VirtualService;
use crate::name::{Hostname, is_dns_label};

/// The reserved gateway name for all sidecars.
const MESH: &str = "mesh";

/// Lowers a VirtualService. One that is bound to gateways only does not affect sidecars.
pub(super) fn lower(object: &Object, spec: &Spec, context: &Context) -> Lowered<Form> {
    let mut report = Report::new(&object.id, context);
    let at = FieldPath::root().field("spec");
    let for_mesh = gateways(&mut report, &at, &spec.gateways);
    let hosts = hosts(&mut report, &at, &spec.hosts, for_mesh);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        report
            .error(&at, "a VirtualService without routes has no effect")
            .help("set at least one of `http`, `tls` and `tcp`");
    }
    let value = VirtualService {
        id: object.id.clone(),
        api_version: API_VERSION.into(),
        export_to: report.export_to(
            &spec.export_to,
            &context.config.virtual_service_export_to,
            ExportToNone::Refused,
        ),
        http: http::routes(&mut report, &at.field("http"), &spec.http),
        tls: l4::tls_routes(&mut report, &at.field("tls"), &spec.tls, &hosts),
        tcp: l4::tcp_routes(&mut report, &at.field("tcp"), &spec.tcp),
        hosts,
    };
    if !report.has_errors() {
        reach::analyze(&mut report, &at, &value);
    }
    report.finish(value).map(|value| {
        if for_mesh {
            Form::VirtualService(value.into())
        } else {
            Form::Inert
        }
    })
}

/// Checks `gateways`; returns whether they include sidecars.
fn gateways(report: &mut Report<'_>, at: &FieldPath, gateways: &[String]) -> bool {
    let at = at.field("gateways");
    gateway_names(report, &at, gateways);
    let for_mesh = gateways.is_empty() || gateways.iter().any(|name| name == MESH);
    if let Some(other) = gateways.iter().position(|name| name != MESH) {
        let (severity, message) = if for_mesh {
            (
                Severity::Info,
                "gateways are not supported yet: this applies to sidecars only",
            )
        } else {
            (
                Severity::Warning,
                "gateways are not supported yet: a VirtualService bound only to gateways is not served",
            )
        };
        let finding = report.add(Code::UnsupportedField, &at.index(other), message);
        finding.severity(severity);
        if !for_mesh {
            finding.help("add `mesh` to `gateways`, or omit the field, to apply the rules to sidecars");
        }
    }
    for_mesh
}

/// `namespace/name`, `name`, or the legacy form, a name with dots.
fn gateway_names(report: &mut Report<'_>, at: &FieldPath, gateways: &[String]) {
    for (index, name) in gateways.iter().enumerate() {
        let at = at.index(index);
        match name.split_once('/') {
            Some((namespace, gateway)) => {
                if !(namespace == "." || is_dns_label(namespace)) || !is_dns_label(gateway) {
                    report.error(
                        &at,
                        format!("`{name}` is not a valid gateway name: expected `namespace/name`"),
                    );
                }
            }
            None => {
                if report.host(&at, name).is_some()
                    && let Some((gateway, rest)) = name.split_once('.')
                {
                    let namespace = rest.split('.').next().unwrap_or(rest);
                    report
                        .warning(&at, format!("`{name}` uses the deprecated form of gateway names"))
                        .help(format!("write `{namespace}/{gateway}`"));
                }
            }
        }
    }
}

/// `hosts`, fully qualified. No host may match another one of the list. Like Istio this compares
/// them as written: a service may be listed by both its short and its full name.
fn hosts(report: &mut Report<'_>, at: &FieldPath, hosts: &[String], for_mesh: bool) -> Vec<Hostname> {
    let at = at.field("hosts");
    if hosts.is_empty() {
        report
            .add(
                Code::UnsupportedField,
                &at,
                "a VirtualService without hosts is a delegate, and delegates are not supported yet",
            )
            .help("list the hosts the rules apply to in `hosts`");
    }
    let mut found: Vec<Hostname> = Vec::with_capacity(hosts.len());
    let mut written: Vec<Hostname> = Vec::with_capacity(hosts.len());
    for (index, text) in hosts.iter().enumerate() {
        let at = at.index(index);
        if text == "*" && for_mesh {
            report
                .error(&at, "sidecars cannot apply rules to all hosts (`*`)")
                .help("list the services, or a domain such as `*.example.com`");
            continue;
        }
        let Some(host) = report.rule_host(&at, text) else {
            continue;
        };
        let Some(own) = report.host(&at, text) else {
            continue;
        };
        if let Some(earlier) = written.iter().find(|other| other.covers(&own) || own.covers(other)) {
            report.error(
                &at,
                format!("`{own}` and `{earlier}` overlap: a VirtualService must list each host only once"),
            );
        }
        written.push(own);
        found.push(host);
    }
    found
}

#[cfg(test)]
mod tests;
