//! `tls[]` and `tcp[]`: routes of connections.

use std::net::IpAddr;

use super::http::{required_destination, total_weight, weight};
use super::matches::clients;
use crate::api::FieldPath;
use crate::api::virtual_service as api;
use crate::mesh::lower::report::Report;
use crate::mesh::virtual_service::{Destination, L4Match, TcpRoute, TlsMatch, TlsRoute};
use crate::name::Hostname;

/// `tls[]`. SNI hosts must be covered by the hosts of the VirtualService.
pub(super) fn tls_routes(
    report: &mut Report<'_>,
    at: &FieldPath,
    routes: &[api::TlsRoute],
    hosts: &[Hostname],
) -> Vec<TlsRoute> {
    let mut found = Vec::with_capacity(routes.len());
    for (index, entry) in routes.iter().enumerate() {
        let at = at.index(index);
        if entry.matches.is_empty() {
            report
                .error(&at, "a TLS route without `match` matches no connections")
                .help("list the server names in `match[].sniHosts`");
        }
        let matches = entry.matches.iter().enumerate();
        found.push(TlsRoute {
            matches: matches
                .map(|(index, entry)| tls_match(report, &at.field("match").index(index), entry, hosts))
                .collect(),
            destinations: destinations(report, &at, &entry.route),
        });
    }
    found
}

fn tls_match(report: &mut Report<'_>, at: &FieldPath, entry: &api::TlsMatch, hosts: &[Hostname]) -> TlsMatch {
    let sni_at = at.field("sniHosts");
    if entry.sni_hosts.is_empty() {
        report.error(&sni_at, "a TLS match must have at least one SNI host");
    }
    let mut sni_hosts = Vec::with_capacity(entry.sni_hosts.len());
    for (index, text) in entry.sni_hosts.iter().enumerate() {
        sni_hosts.extend(sni_host(report, &sni_at.index(index), text, hosts));
    }
    TlsMatch {
        sni_hosts,
        l4: L4Match {
            destination_subnets: subnets(report, at, &entry.destination_subnets),
            port: report.optional_port(&at.field("port"), entry.port),
            source: clients(
                report,
                at,
                &entry.source_labels,
                &entry.source_namespace,
                &entry.gateways,
            ),
        },
    }
}

fn sni_host(report: &mut Report<'_>, at: &FieldPath, text: &str, hosts: &[Hostname]) -> Option<Hostname> {
    let host = report.host(at, text)?;
    if text.parse::<IpAddr>().is_ok() {
        report.warning(
            at,
            format!("`{text}` is an IP address, but TLS clients only send names in SNI"),
        );
    } else if !hosts.iter().any(|known| known.covers(&host)) {
        let known: Vec<&str> = hosts.iter().map(Hostname::as_str).collect();
        report
            .error(
                at,
                format!(
                    "`{text}` is not among the hosts of this VirtualService ({})",
                    known.join(", ")
                ),
            )
            .help("use the fully qualified name, and add it to `hosts` as well");
    }
    Some(host)
}

/// `tcp[]`.
pub(super) fn tcp_routes(report: &mut Report<'_>, at: &FieldPath, routes: &[api::TcpRoute]) -> Vec<TcpRoute> {
    let mut found = Vec::with_capacity(routes.len());
    for (index, entry) in routes.iter().enumerate() {
        let at = at.index(index);
        let matches = entry.matches.iter().enumerate();
        found.push(TcpRoute {
            matches: matches
                .map(|(index, entry)| tcp_match(report, &at.field("match").index(index), entry))
                .collect(),
            destinations: destinations(report, &at, &entry.route),
        });
    }
    found
}

fn tcp_match(report: &mut Report<'_>, at: &FieldPath, entry: &api::L4Match) -> L4Match {
    if !entry.source_subnet.is_empty() {
        report.warning(&at.field("sourceSubnet"), "`sourceSubnet` has no effect, as in Istio");
    }
    L4Match {
        destination_subnets: subnets(report, at, &entry.destination_subnets),
        port: report.optional_port(&at.field("port"), entry.port),
        source: clients(
            report,
            at,
            &entry.source_labels,
            &entry.source_namespace,
            &entry.gateways,
        ),
    }
}

fn subnets(report: &mut Report<'_>, at: &FieldPath, subnets: &[String]) -> Vec<ipnet::IpNet> {
    let at = at.field("destinationSubnets");
    let mut found = Vec::with_capacity(subnets.len());
    for (index, text) in subnets.iter().enumerate() {
        found.extend(report.subnet(&at.index(index), text));
    }
    found
}

fn destinations(report: &mut Report<'_>, at: &FieldPath, entries: &[api::RouteDestination]) -> Vec<(Destination, u32)> {
    let at = at.field("route");
    if entries.is_empty() {
        report.error(&at, "this route has no destination").help("set `route`");
    }
    let mut found = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = at.index(index);
        let weight = weight(report, &at, entry.weight);
        let destination = required_destination(report, &at, entry.destination.as_ref());
        found.extend(destination.map(|destination| (destination, weight)));
    }
    total_weight(report, &at, entries.iter().map(|entry| entry.weight));
    found
}
