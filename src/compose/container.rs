//! The containers added to a project: the control plane, and a pod and a sidecar for each service.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::additions::Override;
use super::label::Interception;
use super::name::{INIT, SERVER};
use super::plan::{Plan, Planned};
use super::pod::Pod;

/// Paths within the containers.
const CONFIG: &str = "/etc/topsail/mesh";
const STATE: &str = "/var/lib/topsail";
const JOIN: &str = "/join";

/// User and group of the proxy.
const PROXY: &str = "1337:1337";

/// Volume with the CA, the join token key and the last good configuration.
pub(super) const STATE_VOLUME: &str = "topsail-state";

/// Volume with the sidecar's join token.
pub(super) fn volume(planned: &Planned) -> String {
    format!("topsail-join-{}", planned.object)
}

/// A container with all capabilities dropped.
fn container(image: &str, more: Value) -> Map<String, Value> {
    let least = json!({
        "image": image,
        "read_only": true,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    });
    let fields = [least, more].map(|fields| match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    });
    fields.into_iter().flatten().collect()
}

/// A one-shot container that creates the tokens of all sidecars.
pub(super) fn init(plan: &Plan, settings: &Override) -> Map<String, Value> {
    let joins = plan.meshed.iter();
    let joins = joins.map(|planned| format!("{}:{JOIN}/{}", volume(planned), planned.object));
    let more = json!({
        "command": ["init", "--config", CONFIG, "--state", STATE, "--join", JOIN, "--owner", PROXY],
        "user": "root",
        // For directories owned by another user.
        "cap_add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
        "network_mode": "none",
        "volumes": shared(settings).into_iter().chain(joins).collect::<Vec<_>>(),
        // Sidecars depend on this container only. It runs after the server, which initializes the
        // state directory.
        "depends_on": {SERVER: {"condition": "service_healthy"}},
        "healthcheck": {"disable": true},
    });
    container(&settings.image, more)
}

/// Volumes and settings common to the control plane and [`init`].
fn shared(settings: &Override) -> Vec<String> {
    vec![
        format!("{}:{CONFIG}:ro", settings.config),
        format!("{STATE_VOLUME}:{STATE}"),
    ]
}

/// The control plane, attached to every network that has a sidecar.
pub(super) fn server(plan: &Plan, settings: &Override) -> Map<String, Value> {
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

/// Holds the network namespace of a service and redirects its traffic to the sidecar.
pub(super) fn pod(planned: &Planned, pod: &Pod, plan: &Plan, settings: &Override) -> Map<String, Value> {
    let mut command = ["iptables", "apply", "--hold"].map(str::to_owned).to_vec();
    if planned.interception == Interception::Tproxy {
        command.extend(["--mode", "TPROXY"].map(str::to_owned));
    }
    command.extend(traffic(planned));
    let mut more = json!({
        "command": command,
        "user": "root",
        "cap_add": ["NET_ADMIN"],
        "healthcheck": healthcheck(&["iptables", "-t", "nat", "-L", "ISTIO_OUTPUT", "-n"]),
        "restart": "unless-stopped",
    });
    for (name, value) in &pod.fields {
        more[name] = value.clone();
    }
    if let Some(links) = plan.ties.get(&planned.service).and_then(|ties| ties.links.as_ref()) {
        more["links"] = json!(links);
    }
    add_profiles(&mut more, planned);
    container(&settings.image, more)
}

/// As `--flag=value`, since a value may be empty.
fn traffic(planned: &Planned) -> impl Iterator<Item = String> {
    planned.traffic.iter().map(|(flag, value)| format!("{flag}={value}"))
}

fn add_profiles(service: &mut Value, planned: &Planned) {
    if !planned.profiles.is_empty() {
        service["profiles"] = json!(planned.profiles);
    }
}

/// The sidecar, in the network namespace of the pod or, if there is none, of the service.
pub(super) fn sidecar(planned: &Planned, plan: &Plan, settings: &Override) -> Map<String, Value> {
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
    let (shares, depends_on) = match &planned.pod {
        Ok(pod) => {
            command.push("--no-iptables".to_owned());
            let mut before = sidecars_before(&planned.service, plan);
            before.insert(pod.name.clone(), on_pod(plan));
            (&pod.name, before)
        }
        Err(_) => {
            command.extend(traffic(planned));
            let started = json!({"condition": "service_started"});
            (&planned.service, Map::from_iter([(planned.service.clone(), started)]))
        }
    };
    let mut more = json!({
        "command": command,
        "network_mode": format!("service:{shares}"),
        "volumes": [format!("{}:{JOIN}:ro", volume(planned))],
        "tmpfs": ["/tmp"],
        "depends_on": {INIT: {"condition": "service_completed_successfully"}},
        "healthcheck": healthcheck(&["topsail", "sidecar", "--check"]),
        "restart": "unless-stopped",
    });
    if let Value::Object(before) = &mut more["depends_on"] {
        before.extend(depends_on);
    }
    // TPROXY needs the capability permanently, REDIRECT only to install the rules.
    if planned.pod.is_err() || planned.interception == Interception::Tproxy {
        more["user"] = json!("root");
        more["cap_add"] = json!(["NET_ADMIN", "SETUID", "SETGID", "KILL"]);
    } else {
        more["user"] = json!(PROXY);
    }
    add_profiles(&mut more, planned);
    container(&settings.sidecar_image, more)
}

/// A short interval, since dependent services wait for the next check.
fn healthcheck(command: &[&str]) -> Value {
    let test: Vec<&str> = ["CMD"].iter().chain(command).copied().collect();
    json!({"test": test, "interval": "1s", "timeout": "5s", "retries": 60})
}

/// Dependency of containers in a pod's network namespace: restarting the pod, which recreates the
/// namespace, also restarts them (Compose 2.17 or later).
pub(super) fn on_pod(plan: &Plan) -> Value {
    match plan.takes_back {
        true => json!({"condition": "service_healthy", "restart": true}),
        false => json!({"condition": "service_healthy"}),
    }
}

/// Sidecars of the services that a service depends on. They are ready before its own sidecar
/// requests its first configuration, which then includes their addresses.
pub(super) fn sidecars_before(service: &str, plan: &Plan) -> Map<String, Value> {
    let after = plan.ties.get(service).into_iter().flat_map(|ties| &ties.after);
    let sidecars = after.filter_map(|after| {
        let planned = plan.meshed.iter().find(|planned| planned.service == after.service)?;
        let condition = match after.required {
            true => json!({"condition": "service_healthy"}),
            false => json!({"condition": "service_healthy", "required": false}),
        };
        Some((planned.sidecar.clone(), condition))
    });
    sidecars.collect()
}
