//! Compiling listener filters.

use std::time::Duration;

use crate::proxy::config::value::{limit, truth, unpack};
use crate::proxy::config::{At, Compiled, Names, Refusal};
use crate::proxy::listener::proxy_protocol::ProxyProtocol;
use crate::proxy::listener::{Inspection, PortRange};
use crate::xds::pb::core::proxy_protocol_config::Version;
use crate::xds::pb::listener::listener_filter_chain_match_predicate::Rule;
use crate::xds::pb::listener::{Listener, ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter};
use crate::xds::pb::listener_filter::http_inspector::HttpInspector;
use crate::xds::pb::listener_filter::original_dst::OriginalDst;
use crate::xds::pb::listener_filter::original_src::OriginalSrc;
use crate::xds::pb::listener_filter::proxy_protocol as message;
use crate::xds::pb::listener_filter::tls_inspector::TlsInspector;

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_secs(15);

const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
const ORIGINAL_SRC: &str = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc";
const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

/// Compiles the listener filters of a listener.
pub(super) fn inspection(message: &Listener, names: &mut Names) -> Compiled<Inspection> {
    let mut inspection = Inspection {
        timeout: limit(message.listener_filters_timeout.as_ref(), Some(TIMEOUT)),
        continue_on_timeout: message.continue_on_listener_filters_timeout,
        ..Default::default()
    };
    for (index, one) in message.listener_filters.iter().enumerate() {
        filter(one, &mut inspection, names).at_index("listener_filters", index)?;
    }
    // As in Envoy, which adds the filter to such a listener itself.
    inspection.original_dst |= truth(message.use_original_dst.as_ref(), false);
    Ok(inspection)
}

fn filter(message: &ListenerFilter, inspection: &mut Inspection, names: &mut Names) -> Compiled<()> {
    let Some(listener_filter::ConfigType::TypedConfig(config)) = message.config_type.as_ref() else {
        return Err(Refusal::not_implemented(format!(
            "`{}` without typed_config",
            message.name
        )));
    };
    match config.type_url.rsplit('/').next() {
        Some(ORIGINAL_DST) => {
            unpack::<OriginalDst>(config)?;
            always(message)?;
            // The inspectors' `filter_disabled` ports are those of the original destination, which the PROXY protocol
            // may change.
            if inspection.tls.is_some() || inspection.http.is_some() || inspection.proxy_protocol.is_some() {
                return Err(Refusal::not_implemented(
                    "`original_dst` after `proxy_protocol` or an inspector",
                ));
            }
            inspection.original_dst = true;
        }
        Some(ORIGINAL_SRC) => {
            let config: OriginalSrc = unpack(config)?;
            always(message)?;
            if config.bind_port {
                return Err(Refusal::not_implemented("bind_port"));
            }
            inspection.original_src = Some(config.mark);
        }
        Some(PROXY_PROTOCOL) => {
            always(message)?;
            // The PROXY header comes first, and tells the address that `original_src` uses.
            if inspection.tls.is_some() || inspection.http.is_some() || inspection.original_src.is_some() {
                return Err(Refusal::not_implemented(
                    "`proxy_protocol` after `original_src` or an inspector",
                ));
            }
            if inspection.proxy_protocol.is_some() {
                return Err(Refusal::not_implemented("`proxy_protocol` a second time"));
            }
            inspection.proxy_protocol = Some(proxy_protocol(&unpack(config)?, names)?);
        }
        Some(TLS_INSPECTOR) => {
            tls_inspector(&unpack(config)?)?;
            // TLS is detected first; HTTP is not looked for in TLS.
            if inspection.http.is_some() {
                return Err(Refusal::not_implemented("`tls_inspector` after `http_inspector`"));
            }
            inspection.tls = Some(ports(message)?);
        }
        Some(HTTP_INSPECTOR) => {
            unpack::<HttpInspector>(config)?;
            inspection.http = Some(ports(message)?);
        }
        _ => {
            return Err(Refusal::not_implemented(format!(
                "the listener filter `{}`",
                message.name
            )));
        }
    }
    Ok(())
}

fn proxy_protocol(config: &message::ProxyProtocol, names: &mut Names) -> Compiled<ProxyProtocol> {
    // Metadata from TLVs is not supported.
    if !config.rules.is_empty() {
        return Err(Refusal::not_implemented("rules"));
    }
    let allowed = |version: Version| !config.disallowed_versions.contains(&version.into());
    Ok(ProxyProtocol {
        optional: config.allow_requests_without_proxy_protocol,
        v1: allowed(Version::V1),
        v2: allowed(Version::V2),
        stats: names.stats.proxy_protocol(&config.stat_prefix),
        prefix: config.stat_prefix.as_str().into(),
    })
}

fn tls_inspector(config: &TlsInspector) -> Compiled<()> {
    let fields = [
        (
            "enable_ja3_fingerprinting",
            truth(config.enable_ja3_fingerprinting.as_ref(), false),
        ),
        (
            "enable_ja4_fingerprinting",
            truth(config.enable_ja4_fingerprinting.as_ref(), false),
        ),
        (
            "close_connection_on_client_hello_parsing_errors",
            config.close_connection_on_client_hello_parsing_errors,
        ),
        ("max_client_hello_size", config.max_client_hello_size.is_some()),
    ];
    match fields.iter().find(|(_, used)| *used) {
        Some((field, _)) => Err(Refusal::not_implemented(*field)),
        None => Ok(()),
    }
}

fn always(message: &ListenerFilter) -> Compiled<()> {
    match message.filter_disabled {
        Some(_) => Err(Refusal::not_implemented("filter_disabled here")),
        None => Ok(()),
    }
}

/// The ports on which a filter is disabled.
fn ports(message: &ListenerFilter) -> Compiled<Vec<PortRange>> {
    let mut ports = Vec::new();
    if let Some(predicate) = &message.filter_disabled {
        predicate_ports(predicate, &mut ports).at("filter_disabled")?;
    }
    Ok(ports)
}

fn predicate_ports(predicate: &ListenerFilterChainMatchPredicate, ports: &mut Vec<PortRange>) -> Compiled<()> {
    match predicate.rule.as_ref() {
        Some(Rule::OrMatch(set)) => set.rules.iter().try_for_each(|rule| predicate_ports(rule, ports)),
        Some(Rule::DestinationPortRange(range)) => {
            let start = u16::try_from(range.start);
            let end = u32::try_from(range.end);
            let (Ok(start), Ok(end)) = (start, end) else {
                return Err(Refusal::new("invalid port range").within("destination_port_range"));
            };
            ports.push((start, end));
            Ok(())
        }
        Some(_) | None => Err(Refusal::not_implemented(
            "a condition other than or_match and destination_port_range",
        )),
    }
}
