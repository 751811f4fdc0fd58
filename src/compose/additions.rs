//! The override file: what compose adds to a project's own files.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::label::Interception;
use super::name::{INIT, SERVER};
use super::plan::{Plan, Planned};

/// What the override does not take from the project.
#[derive(Clone, Debug)]
pub struct Override {
    /// The image of the control plane.
    pub image: String,
    /// The image of sidecars.
    pub sidecar_image: String,
    /// `envoy` or `rust`.
    pub dataplane: String,
    /// The configuration directory, as compose finds it.
    pub config: String,
}

/// Where things are in the containers.
const CONFIG: &str = "/etc/topsail/mesh";
const STATE: &str = "/var/lib/topsail";
const JOIN: &str = "/join";

/// The user and group of the data plane.
const PROXY: &str = "1337:1337";

/// The override file's text, without its first line.
pub fn additions(plan: &Plan, settings: &Override) -> serde_json::Result<String> {
    let mut services = Map::new();
    services.insert(INIT.to_owned(), init(plan, settings));
    services.insert(SERVER.to_owned(), server(plan, settings));
    for planned in &plan.meshed {
        services.insert(planned.sidecar.clone(), sidecar(planned, settings));
    }
    for (service, added) in dependencies(plan) {
        services.insert(service, json!({"depends_on": added}));
    }
    let volumes = plan.meshed.iter().map(volume).chain([STATE_VOLUME.to_owned()]);
    let volumes: Map<String, Value> = volumes.map(|name| (name, json!({}))).collect();
    let all = json!({"services": services, "volumes": volumes});
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(&all, options).map_err(serde::ser::Error::custom)
}

const STATE_VOLUME: &str = "topsail-state";

/// What a sidecar joins with.
fn volume(planned: &Planned) -> String {
    format!("topsail-join-{}", planned.object)
}

/// What every container of ours may do at least: nothing.
fn container(image: &str, more: Value) -> Value {
    let mut all = json!({
        "image": image,
        "read_only": true,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

/// Makes the tokens of all sidecars, and ends.
fn init(plan: &Plan, settings: &Override) -> Value {
    let joins = plan.meshed.iter();
    let joins = joins.map(|planned| format!("{}:{JOIN}/{}", volume(planned), planned.object));
    let more = json!({
        "command": ["init", "--config", CONFIG, "--state", STATE, "--join", JOIN, "--owner", PROXY],
        "user": "root",
        // For folders that are another user's.
        "cap_add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        "network_mode": "none",
        "volumes": shared(settings).into_iter().chain(joins).collect::<Vec<_>>(),
        // Others wait for it alone, so that the state directory has one owner before anybody else looks at it.
        "depends_on": {SERVER: {"condition": "service_healthy"}},
        "healthcheck": {"disable": true},
    });
    container(&settings.image, more)
}

/// What the control plane and [`init`] both see.
fn shared(settings: &Override) -> Vec<String> {
    vec![
        format!("{}:{CONFIG}:ro", settings.config),
        format!("{STATE_VOLUME}:{STATE}"),
    ]
}

/// The control plane, in every network that a sidecar is in.
fn server(plan: &Plan, settings: &Override) -> Value {
    let networks: BTreeSet<&str> = plan
        .meshed
        .iter()
        .flat_map(|planned| planned.networks.iter().map(String::as_str))
        .collect();
    let more = json!({
        "command": ["serve", "--config", CONFIG, "--state", STATE, "--xds", "0.0.0.0:15012", "--server-name", SERVER],
        "networks": networks,
        "volumes": shared(settings),
        "healthcheck": healthcheck(&["topsail", "status", "--ready"]),
        "restart": "unless-stopped",
    });
    container(&settings.image, more)
}

fn sidecar(planned: &Planned, settings: &Override) -> Value {
    let server = format!("{SERVER}:15012");
    let mut command = [
        "sidecar",
        "--join",
        JOIN,
        "--server",
        &server,
        "--dataplane",
        &settings.dataplane,
    ]
    .map(str::to_owned)
    .to_vec();
    command.push("--shared-network".to_owned());
    if planned.networks.len() > 1 {
        command.push("--all-addresses".to_owned());
    }
    if planned.interception != Interception::default() {
        command.extend(["--intercept".to_owned(), planned.interception.flag().to_owned()]);
    }
    if let Some(level) = &planned.log_level {
        command.extend(["--proxy-log-level".to_owned(), level.clone()]);
    }
    // As one word each: a value may be empty.
    command.extend(planned.traffic.iter().map(|(flag, value)| format!("{flag}={value}")));
    let mut more = json!({
        "command": command,
        // It becomes user 1337 once the rules of interception are there.
        "user": "root",
        "cap_add": ["NET_ADMIN", "SETUID", "SETGID", "KILL"],
        "network_mode": format!("service:{}", planned.service),
        "volumes": [format!("{}:{JOIN}:ro", volume(planned))],
        "tmpfs": ["/tmp"],
        "depends_on": {
            INIT: {"condition": "service_completed_successfully"},
            &planned.service: {"condition": "service_started"},
        },
        "healthcheck": healthcheck(&["topsail", "sidecar", "--check"]),
        "restart": "unless-stopped",
    });
    if !planned.profiles.is_empty() {
        more["profiles"] = json!(planned.profiles);
    }
    container(&settings.sidecar_image, more)
}

/// Looked at often: whoever depends on it waits for the next look.
fn healthcheck(command: &[&str]) -> Value {
    let test: Vec<&str> = ["CMD"].iter().chain(command).copied().collect();
    json!({"test": test, "interval": "1s", "timeout": "5s", "retries": 60})
}

/// What services of the project start after, beside what they say themselves: tokens and the control plane, so that their
/// sidecars need not wait for them, and the sidecars of those they call.
fn dependencies(plan: &Plan) -> Vec<(String, Map<String, Value>)> {
    let healthy = || json!({"condition": "service_healthy"});
    let names: BTreeSet<&String> = plan
        .meshed
        .iter()
        .map(|planned| &planned.service)
        .chain(plan.waits.keys())
        .collect();
    let added = names.into_iter().map(|name| {
        let mut added = Map::new();
        if plan.meshed.iter().any(|planned| planned.service == *name) {
            let made = json!({"condition": "service_completed_successfully"});
            added.insert(INIT.to_owned(), made);
        }
        for before in plan.waits.get(name).into_iter().flatten() {
            let sidecar = plan.meshed.iter().find(|planned| planned.service == *before);
            added.extend(sidecar.map(|sidecar| (sidecar.sidecar.clone(), healthy())));
        }
        (name.clone(), added)
    });
    added.collect()
}
