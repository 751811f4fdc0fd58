//! `egress[]`.

use super::listener_port;
use crate::api::FieldPath;
use crate::api::sidecar as api;
use crate::mesh::lower::report::Report;
use crate::mesh::sidecar::{Bind, Egress, FilterNamespace, HostFilter, ListenerPort};
use crate::name::{Hostname, Namespace, is_dns_label};

/// The listeners. One without a port must be last.
pub(super) fn listeners(report: &mut Report<'_>, at: &FieldPath, entries: &[api::EgressListener]) -> Vec<Egress> {
    let mut found: Vec<Egress> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        if entry.port.is_none() && index + 1 < entries.len() {
            report
                .error(
                    &at,
                    "a listener without a port handles all traffic no other listener handles, and must be the last",
                )
                .help("set its `port`, or move it to the end");
        }
        let listener = listener(report, &at, entry);
        if let Some(other) = found.iter().find(|other| collide(other, &listener)) {
            let number = other.port.as_ref().map_or(0, |port| port.number);
            let what = if number == 0 {
                "socket".to_owned()
            } else {
                format!("port {number}")
            };
            report.error(&at.field("port"), format!("two listeners have the {what}"));
        }
        found.push(listener);
    }
    found
}

/// Whether two listeners have the same port or socket.
fn collide(a: &Egress, b: &Egress) -> bool {
    match (&a.port, &b.port) {
        (Some(a_port), Some(b_port)) => a_port.number == b_port.number && (a_port.number != 0 || a.bind == b.bind),
        (_, None) | (None, _) => false,
    }
}

fn listener(report: &mut Report<'_>, at: &FieldPath, entry: &api::EgressListener) -> Egress {
    let port = entry.port.as_ref().map(|port| {
        let at = at.field("port");
        let number = if port.number == 0 {
            0
        } else {
            report.port(&at.field("number"), port.number)
        };
        listener_port(report, &at, port, number)
    });
    Egress {
        bind: bind(report, at, entry, port.as_ref()),
        port,
        bound: entry.capture_mode == api::CaptureMode::None || entry.bind.starts_with("unix://"),
        hosts: hosts(report, &at.field("hosts"), &entry.hosts),
    }
}

/// A Unix domain socket requires port number 0, an IP address another.
fn bind(
    report: &mut Report<'_>,
    at: &FieldPath,
    entry: &api::EgressListener,
    port: Option<&ListenerPort>,
) -> Option<Bind> {
    let bind_at = at.field("bind");
    let socket = entry.bind.strip_prefix("unix://");
    let numbered = port.is_some_and(|port| port.number != 0);
    if port.is_some() && !numbered && socket.is_none() {
        report
            .error(
                &at.field("port").field("number"),
                "port 0 is only valid for listeners on a Unix domain socket",
            )
            .help("set `bind: unix:///PATH`, or a port");
    }
    let Some(path) = socket else {
        let given = !entry.bind.is_empty();
        return given.then(|| report.ip(&bind_at, &entry.bind)).flatten().map(Bind::Ip);
    };
    if numbered {
        report.error(&bind_at, "a listener on a Unix domain socket must have port number 0");
    }
    if port.is_none() {
        report.error(
            &bind_at,
            "a listener on a Unix domain socket requires a `port` with the protocol",
        );
    }
    if entry.capture_mode == api::CaptureMode::Iptables {
        report.error(
            &at.field("captureMode"),
            "traffic cannot be redirected to a Unix domain socket",
        );
    }
    Some(Bind::Unix(report.unix_path(&bind_at, path)))
}

/// `namespace/host` entries, without duplicates.
fn hosts(report: &mut Report<'_>, at: &FieldPath, entries: &[String]) -> Vec<HostFilter> {
    if entries.is_empty() {
        report
            .error(at, "an egress listener must have at least one host")
            .help("use `*/*` for all hosts");
    }
    let mut found: Vec<HostFilter> = Vec::with_capacity(entries.len());
    let mut everything = None;
    for (index, text) in entries.iter().enumerate() {
        let at = at.index(index);
        let Some(filter) = host(report, &at, text) else {
            continue;
        };
        let again = found.iter().any(|other| {
            other.exclude == filter.exclude
                && other.namespace == filter.namespace
                && (other.host == filter.host || other.host.as_str() == "*")
        });
        if again {
            report.warning(&at, format!("duplicate host `{text}`"));
        } else if text == "*/*" {
            everything = Some(at);
        }
        found.push(filter);
    }
    let others = found.iter().filter(|filter| !filter.exclude).count();
    if let Some(at) = everything.filter(|_| others > 1) {
        report.warning(&at, "`*/*` matches all hosts: the other entries have no effect");
    }
    found
}

fn host(report: &mut Report<'_>, at: &FieldPath, text: &str) -> Option<HostFilter> {
    let (exclude, rest) = match text.strip_prefix('~') {
        // `~/*` is Istio's legacy form for no hosts at all.
        Some(rest) if !rest.starts_with('/') => (true, rest),
        Some(_) | None => (false, text),
    };
    let Some((namespace, host)) = rest.split_once('/') else {
        report
            .error(at, format!("`{text}` does not specify a namespace"))
            .help(format!("write `./{text}` for this namespace or `*/{text}` for any"));
        return None;
    };
    if is_dns_label(host) {
        let domain = &report.context.config.domain;
        let own = report.namespace().as_str();
        let of = if is_dns_label(namespace) { namespace } else { own };
        let whole = format!("{namespace}/{host}.{of}.svc.{domain}");
        report
            .error(at, format!("`{host}` is a short name, which is not allowed here"))
            .help(format!("use the fully qualified name, such as `{whole}`"));
        return None;
    }
    let host = report.name(at, host.parse::<Hostname>())?;
    let within = host.as_str().strip_prefix('*').unwrap_or_default();
    if !within.is_empty() && !within.starts_with('.') {
        report.error(
            at,
            format!("`{host}` has a wildcard within a label, which is not allowed here"),
        );
        return None;
    }
    let namespace = match namespace {
        "*" => FilterNamespace::Any,
        "." if *report.namespace() == report.context.config.root_namespace => FilterNamespace::Proxy,
        "." => FilterNamespace::Named(report.namespace().clone()),
        "~" => return nobody(),
        name => FilterNamespace::Named(report.name(at, name.parse::<Namespace>())?),
    };
    Some(HostFilter {
        exclude,
        namespace,
        host,
    })
}

/// `~/*`: matches no service.
fn nobody() -> Option<HostFilter> {
    Some(HostFilter {
        exclude: true,
        namespace: FilterNamespace::Any,
        host: "*".parse().ok()?,
    })
}
