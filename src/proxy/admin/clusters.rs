//! `/clusters`: clusters with circuit breakers, hosts and their statistics.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::commands::Query;
use super::listeners::socket_address;
use crate::proxy::store::Published;
use crate::proxy::upstream::breaker::Breaker;
use crate::proxy::upstream::cluster::{Cluster, Discovery};
use crate::proxy::upstream::health_check::state::Checked;
use crate::proxy::upstream::host::{EdsHealth, Host, HostAddress};

/// Lines, or JSON.
pub(super) fn answer(published: &Published, query: &Query) -> Result<Answer, Answer> {
    let filter = query.regex("filter")?;
    let slots = published.clusters.values().filter_map(|slot| slot.load_full());
    let mut clusters: Vec<_> = slots
        .filter(|one| filter.as_ref().is_none_or(|filter| filter.is_match(&one.config.name)))
        .collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if query.get("format") == Some("json") {
        let statuses: Vec<_> = clusters.iter().map(|one| status(one)).collect();
        return Ok(Answer::pretty(&json!({"cluster_statuses": statuses})));
    }
    let mut out = String::new();
    clusters.iter().for_each(|one| lines(&mut out, one));
    Ok(Answer::text(out))
}

/// Statistics of a host: counters, then gauges.
fn numbers(host: &Host) -> [(&'static str, u64); 8] {
    let state = &host.state;
    let stats = &state.stats;
    [
        ("cx_connect_fail", stats.cx_connect_fail.load(Relaxed)),
        ("cx_total", stats.cx_total.load(Relaxed)),
        ("rq_error", stats.rq_error.load(Relaxed)),
        ("rq_success", stats.rq_success.load(Relaxed)),
        ("rq_timeout", stats.rq_timeout.load(Relaxed)),
        ("rq_total", stats.rq_total.load(Relaxed)),
        ("cx_active", state.connections.load(Relaxed).into()),
        ("rq_active", state.active.load(Relaxed).into()),
    ]
}

/// How many of them are counters.
const COUNTERS: usize = 6;

fn limits(breaker: &Breaker) -> [(&'static str, u32); 4] {
    [
        ("max_connections", breaker.connections.max()),
        ("max_pending_requests", breaker.pending.max()),
        ("max_requests", breaker.requests.max()),
        ("max_retries", breaker.retries.max()),
    ]
}

fn lines(out: &mut String, cluster: &Arc<Cluster>) {
    let config = &cluster.config;
    let mut line = |rest: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}::{rest}", config.name);
    };
    line(format!("observability_name::{}", config.stat_name));
    for (priority, high) in [("default", false), ("high", true)] {
        for (name, max) in limits(cluster.breakers.of(high)) {
            line(format!("{priority}_priority::{name}::{max}"));
        }
    }
    line(format!("added_via_api::{}", config.via_api));
    if let Discovery::Eds(name) = &config.discovery {
        line(format!("eds_service_name::{name}"));
    }
    for host in &cluster.hosts.load().hosts {
        let mut numbers = numbers(host);
        numbers.sort_unstable();
        for (name, value) in numbers {
            line(format!("{}::{name}::{value}", host.address));
        }
        for (name, value) in facts(host) {
            line(format!("{}::{name}::{value}", host.address));
        }
    }
}

fn facts(host: &Host) -> [(&'static str, String); 8] {
    [
        ("hostname", host.hostname.as_deref().unwrap_or_default().to_owned()),
        ("health_flags", health_flags(host)),
        ("weight", host.weight.to_string()),
        ("region", host.locality.region.clone()),
        ("zone", host.locality.zone.clone()),
        ("sub_zone", host.locality.sub_zone.clone()),
        ("canary", "false".to_owned()),
        ("priority", host.priority.to_string()),
    ]
}

/// Envoy's health flags, each after a slash.
fn health_flags(host: &Host) -> String {
    let checked = |what: fn(&Checked) -> bool| host.checked.as_ref().is_some_and(|checked| what(checked));
    let flags = [
        ("/failed_active_hc", checked(Checked::failed)),
        ("/failed_outlier_check", host.state.ejected.load(Relaxed)),
        ("/failed_eds_health", host.eds == EdsHealth::Unhealthy),
        ("/degraded_active_hc", checked(Checked::degraded)),
        ("/degraded_eds_health", host.eds == EdsHealth::Degraded),
        ("/pending_dynamic_removal", checked(Checked::leaving)),
        ("/pending_active_hc", checked(Checked::pending)),
        ("/excluded_via_immediate_hc_fail", checked(Checked::excluded)),
        ("/active_hc_timeout", checked(Checked::timed_out)),
    ];
    let set: String = flags.iter().filter(|(_, set)| *set).map(|(word, _)| *word).collect();
    if set.is_empty() { "healthy".to_owned() } else { set }
}

/// `envoy.admin.v3.ClusterStatus`.
fn status(cluster: &Cluster) -> Value {
    let set = cluster.hosts.load();
    let mut status = json!({"name": cluster.config.name});
    if cluster.config.via_api {
        status["added_via_api"] = json!(true);
    }
    if let Discovery::Eds(name) = &cluster.config.discovery {
        status["eds_service_name"] = json!(name);
    }
    if !set.hosts.is_empty() {
        status["host_statuses"] = set.hosts.iter().map(|host| host_status(host)).collect();
    }
    let thresholds = [false, true].map(|high| {
        let mut limits: Map<String, Value> = limits(cluster.breakers.of(high))
            .into_iter()
            .map(|(name, max)| (name.to_owned(), max.into()))
            .collect();
        if high {
            limits.insert("priority".to_owned(), "HIGH".into());
        }
        Value::from(limits)
    });
    status["circuit_breakers"] = json!({"thresholds": thresholds});
    status["observability_name"] = json!(cluster.config.stat_name);
    status
}

/// `envoy.admin.v3.HostStatus`; as in proto3 JSON, zeroes are left out.
fn host_status(host: &Host) -> Value {
    let stats = numbers(host).into_iter().enumerate().map(|(index, (name, value))| {
        let mut stat = Map::new();
        if index >= COUNTERS {
            stat.insert("type".to_owned(), "GAUGE".into());
        }
        if value > 0 {
            stat.insert("value".to_owned(), value.to_string().into());
        }
        stat.insert("name".to_owned(), name.into());
        Value::from(stat)
    });
    let mut status = json!({
        "address": match &host.address {
            HostAddress::Ip(address) => socket_address(*address),
            HostAddress::Unix(path) => json!({"pipe": {"path": path}}),
        },
        "stats": stats.collect::<Vec<_>>(),
        "health_status": health(host),
        "weight": host.weight,
        "locality": locality(host),
    });
    if let Some(hostname) = &host.hostname {
        status["hostname"] = json!(hostname);
    }
    if host.priority > 0 {
        status["priority"] = json!(host.priority);
    }
    status
}

fn health(host: &Host) -> Value {
    let mut health = json!({"eds_health_status": host.eds.name()});
    if host.state.ejected.load(Relaxed) {
        health["failed_outlier_check"] = json!(true);
    }
    if let Some(checked) = &host.checked {
        let flags = [
            ("failed_active_health_check", checked.failed()),
            ("failed_active_degraded_check", checked.degraded()),
            ("pending_dynamic_removal", checked.leaving()),
            ("pending_active_hc", checked.pending()),
            ("excluded_via_immediate_hc_fail", checked.excluded()),
            ("active_hc_timeout", checked.timed_out()),
        ];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            health[name] = json!(true);
        }
    }
    health
}

/// `core.v3.Locality`.
pub(super) fn locality(host: &Host) -> Value {
    let parts = [
        ("region", &host.locality.region),
        ("zone", &host.locality.zone),
        ("sub_zone", &host.locality.sub_zone),
    ];
    let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
    parts
        .map(|(name, part)| (name.to_owned(), Value::from(part.as_str())))
        .collect::<Map<_, _>>()
        .into()
}
