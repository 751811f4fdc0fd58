//! `ingress[]`.

use std::net::{IpAddr, SocketAddr};

use super::listener_port;
use crate::api::FieldPath;
use crate::api::sidecar as api;
use crate::mesh::lower::destination_rule::connection_pool;
use crate::mesh::lower::report::Report;
use crate::mesh::sidecar::{DefaultEndpoint, Ingress};

/// The listeners, which must have distinct ports.
pub(super) fn listeners(report: &mut Report<'_>, at: &FieldPath, entries: &[api::IngressListener]) -> Vec<Ingress> {
    let mut found: Vec<Ingress> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        let Some(listener) = listener(report, &at, entry) else {
            continue;
        };
        if found.iter().any(|other| other.port.number == listener.port.number) {
            let number = listener.port.number;
            report.error(
                &at.field("port").field("number"),
                format!("two listeners have the port {number}"),
            );
        }
        found.push(listener);
    }
    found
}

fn listener(report: &mut Report<'_>, at: &FieldPath, entry: &api::IngressListener) -> Option<Ingress> {
    let Some(port) = &entry.port else {
        report.error(at, "an ingress listener must have a `port`");
        return None;
    };
    let port_at = at.field("port");
    let number = report.port(&port_at.field("number"), port.number);
    let port = listener_port(report, &port_at, port, number);
    let pool_at = at.field("connectionPool");
    if entry.connection_pool.as_ref().is_some_and(|pool| pool.http.is_some()) && !port.protocol.is_http() {
        report.warning(
            &pool_at.field("http"),
            "HTTP settings have no effect on a port whose protocol is not HTTP",
        );
    }
    Some(Ingress {
        port,
        bind: (!entry.bind.is_empty())
            .then(|| report.ip(&at.field("bind"), &entry.bind))
            .flatten(),
        bound: entry.capture_mode == api::CaptureMode::None,
        default_endpoint: default_endpoint(report, &at.field("defaultEndpoint"), &entry.default_endpoint),
        connection_pool: entry
            .connection_pool
            .as_ref()
            .map(|pool| connection_pool(report, &pool_at, pool)),
    })
}

fn default_endpoint(report: &mut Report<'_>, at: &FieldPath, text: &str) -> DefaultEndpoint {
    if text.is_empty() {
        return DefaultEndpoint::Original;
    }
    if let Some(path) = text.strip_prefix("unix://") {
        return DefaultEndpoint::Unix(report.unix_path(at, path));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        report
            .error(at, format!("`{text}` does not specify a port"))
            .help(FORMS);
        return DefaultEndpoint::Original;
    };
    let number = port.parse::<u32>().unwrap_or(0);
    let port = report.port(at, number);
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match host.parse::<IpAddr>() {
        _ if host.is_empty() => DefaultEndpoint::Instance(port),
        Ok(ip) if ip.is_unspecified() => DefaultEndpoint::Instance(port),
        Ok(ip) if matches!(host, "127.0.0.1" | "::1") => DefaultEndpoint::Loopback(SocketAddr::new(ip, port)),
        Ok(_) | Err(_) => {
            report
                .error(at, format!("`{text}` is not an address of the workload itself"))
                .help(FORMS);
            DefaultEndpoint::Original
        }
    }
}

const FORMS: &str = "expected `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT`, `[::]:PORT`, `:PORT` or `unix:///PATH`";
