//! `/metrics` in OpenMetrics text format.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::answer::problem;
use super::{Admin, process};
use crate::control::{ProxyStatus, State};
use crate::diag::Severity;
use crate::xds::resource::ResourceType;
use crate::xds::session::SyncState;

/// All metrics, computed from the current state for each scrape.
pub(super) fn answer(admin: &Admin) -> Response {
    let mut registry = Registry::default();
    let topsail = registry.sub_registry_with_prefix("topsail");
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    topsail.register("build", "The version that runs", Info::new(version));
    configuration(topsail, &admin.published.state());
    proxies(topsail, &admin.roster.status(admin.clock.now()));
    process(registry.sub_registry_with_prefix("process"));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A count as a gauge value.
fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSeverity {
    severity: &'static str,
}

fn configuration(registry: &mut Registry, state: &State) {
    if let Some(generation) = &state.generation {
        let number = ConstGauge::new(generation.number);
        registry.register("generation", "The generation of the directory that is served", number);
        let objects = ConstGauge::new(count(generation.objects));
        registry.register("objects", "Objects in force", objects);
        let accepted = ConstGauge::new(generation.accepted_at as f64 / 1000.0);
        let help = "When the generation was accepted, since 1970";
        registry.register_with_unit("generation_accepted_timestamp", help, Unit::Seconds, accepted);
    }
    let diagnostics = Family::<OfSeverity, Gauge>::default();
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        let found = state
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity);
        let label = OfSeverity {
            severity: severity.as_str(),
        };
        diagnostics.get_or_create(&label).set(count(found.count()));
    }
    registry.register("diagnostics", "Problems with the directory at this moment", diagnostics);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTypeAndState {
    r#type: &'static str,
    state: &'static str,
}

fn proxies(registry: &mut Registry, proxies: &[ProxyStatus]) {
    let total = ConstGauge::new(count(proxies.len()));
    registry.register("proxies", "Proxies that are connected", total);
    let states = Family::<OfTypeAndState, Gauge>::default();
    for kind in ResourceType::ALL {
        for state in SyncState::ALL {
            let proxies = proxies
                .iter()
                .filter(|proxy| proxy.types.get(kind.as_str()) == Some(&state));
            let label = OfTypeAndState {
                r#type: kind.as_str(),
                state: state.as_str(),
            };
            states.get_or_create(&label).set(count(proxies.count()));
        }
    }
    registry.register(
        "proxy_types",
        "Proxies by how far they are with a type of resource",
        states,
    );
    let refused = ConstGauge::new(count(proxies.iter().map(|proxy| proxy.refusals.len()).sum()));
    registry.register(
        "refused_resources",
        "Resources that proxies refuse at this moment",
        refused,
    );
    let expired = ConstGauge::new(count(proxies.iter().filter(|proxy| proxy.token_expired).count()));
    let help = "Connected proxies whose join token has expired: they cannot connect again";
    registry.register("expired_tokens", help, expired);
}

fn process(registry: &mut Registry) {
    let Some(usage) = process::usage() else {
        return;
    };
    let memory = ConstGauge::new(count(usize::try_from(usage.resident_bytes).unwrap_or(usize::MAX)));
    registry.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, memory);
    let cpu = ConstCounter::new(usage.cpu_seconds);
    registry.register_with_unit("cpu", "CPU time in user and system mode", Unit::Seconds, cpu);
}
