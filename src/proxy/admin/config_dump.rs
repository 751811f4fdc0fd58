//! `/config_dump`: the configuration in Envoy's form, secrets redacted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use super::answer::{Answer, aside};
use super::ask::{Dump, Held};
use super::commands::Query;
use super::mask::Mask;
use super::{Admin, certs, clusters, listeners};
use crate::proxy::store::Published;
use crate::proxy::upstream::cluster::{Cluster, Discovery};
use crate::proxy::upstream::host::{EdsHealth, Host, HostAddress};
use crate::xds::ResourceType;
use crate::xds::json::{JsonError, Printer};

/// Type URL of the bootstrap.
pub(super) const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// The dumps' list fields, and the types of their elements.
const LISTS: [(&str, &str); 11] = [
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    ("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster"),
    ("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster"),
    ("static_endpoint_configs", "EndpointsConfigDump.StaticEndpointConfig"),
    ("dynamic_endpoint_configs", "EndpointsConfigDump.DynamicEndpointConfig"),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    ("dynamic_route_configs", "RoutesConfigDump.DynamicRouteConfig"),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
];

/// With milliseconds, as Envoy formats times.
const TIME: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The dump, or the requested part of it.
pub(super) async fn answer(admin: &Admin, query: &Query, dump: Dump) -> Result<Answer, Answer> {
    let mask = query.get("mask").map(Mask::parse);
    let names = query.regex("name_regex")?;
    let resource = query.get("resource").map(str::to_owned);
    let work = DumpInputs {
        bootstrap: admin.start.bootstrap.clone(),
        started: admin.start.time,
        published: admin.published.load_full(),
        dump,
        endpoints: query.has("include_eds") || resource.as_deref().is_some_and(|name| name.contains("endpoint")),
        names,
    };
    let configs = aside(move || work.configs()).await?;
    match resource {
        None => {
            let configs = masked(configs, mask.as_ref());
            Ok(Answer::pretty(&json!({"configs": configs})))
        }
        Some(resource) => part(configs, &resource, mask.as_ref()),
    }
}

fn masked(values: Vec<Value>, mask: Option<&Mask>) -> Vec<Value> {
    match mask {
        Some(mask) => values.iter().map(|value| mask.apply(value)).collect(),
        None => values,
    }
}

/// The elements of one list.
fn part(configs: Vec<Value>, resource: &str, mask: Option<&Mask>) -> Result<Answer, Answer> {
    let Some((_, kind)) = LISTS.iter().find(|(name, _)| *name == resource) else {
        let text = format!("{resource} not found in config dump");
        return Err(Answer::text(text).with(StatusCode::NOT_FOUND));
    };
    let elements = configs
        .into_iter()
        .filter_map(|mut config| match config[resource].take() {
            Value::Array(elements) => Some(elements),
            _ => None,
        });
    let elements = elements.flatten().map(|element| of_type(kind, element));
    let typed = masked(elements.collect(), mask);
    Ok(match typed.is_empty() {
        true => Answer::pretty(&json!({})),
        false => Answer::pretty(&json!({"configs": typed})),
    })
}

/// A message of `envoy.admin.v3` in an `Any`.
fn of_type(kind: &str, value: Value) -> Value {
    let mut any = Map::new();
    any.insert(
        "@type".to_owned(),
        format!("type.googleapis.com/envoy.admin.v3.{kind}").into(),
    );
    if let Value::Object(fields) = value {
        any.extend(fields);
    }
    any.into()
}

/// The inputs of a dump.
struct DumpInputs {
    bootstrap: bytes::Bytes,
    started: SystemTime,
    published: Arc<Published>,
    dump: Dump,
    endpoints: bool,
    names: Option<regex::Regex>,
}

impl DumpInputs {
    fn configs(self) -> Result<Vec<Value>, JsonError> {
        let printer = Printer::new()?;
        let bootstrap = json!({
            "bootstrap": printer.to_json(BOOTSTRAP, &self.bootstrap)?,
            "last_updated": timestamp(self.started),
        });
        let mut configs = vec![of_type("BootstrapConfigDump", bootstrap)];
        configs.push(of_type("ClustersConfigDump", self.clusters(&printer)?));
        if self.endpoints {
            configs.push(of_type("EndpointsConfigDump", self.all_endpoints()));
        }
        let listeners = self.listeners(&printer)?;
        let inline = self.inline_routes(&listeners);
        configs.push(of_type("ListenersConfigDump", listeners));
        configs.push(of_type("ScopedRoutesConfigDump", json!({})));
        configs.push(of_type("RoutesConfigDump", self.routes(&printer, inline)?));
        configs.push(of_type("SecretsConfigDump", self.secrets()));
        Ok(configs)
    }

    fn wanted(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name))
    }

    /// The resources of a type, sorted by name.
    fn held(&self, kind: ResourceType) -> Vec<&Held> {
        let held = self.dump.resources.iter();
        let mut held: Vec<_> = held.filter(|one| one.kind == kind && self.wanted(&one.name)).collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        held
    }

    fn clusters(&self, printer: &Printer) -> Result<Value, JsonError> {
        let mut lists = Lists::default();
        for one in self.held(ResourceType::Cluster) {
            let list = match (one.fixed, one.warming) {
                (true, _) => "static_clusters",
                (false, false) => "dynamic_active_clusters",
                (false, true) => "dynamic_warming_clusters",
            };
            lists.push(list, entry("cluster", printer, one)?);
        }
        Ok(lists.with_version(&self.dump, ResourceType::Cluster))
    }

    fn listeners(&self, printer: &Printer) -> Result<Value, JsonError> {
        let mut lists = Lists::default();
        for one in self.held(ResourceType::Listener) {
            let entry = entry("listener", printer, one)?;
            if one.fixed {
                lists.push("static_listeners", entry);
                continue;
            }
            let state = if one.warming { "warming_state" } else { "active_state" };
            lists.push("dynamic_listeners", json!({"name": one.name, state: entry}));
        }
        Ok(lists.with_version(&self.dump, ResourceType::Listener))
    }

    fn routes(&self, printer: &Printer, inline: Vec<Value>) -> Result<Value, JsonError> {
        let mut lists = Lists::default();
        inline
            .into_iter()
            .for_each(|one| lists.push("static_route_configs", one));
        for one in self.held(ResourceType::Route) {
            lists.push("dynamic_route_configs", entry("route_config", printer, one)?);
        }
        Ok(lists.0.into())
    }

    /// Inline routes of listeners.
    fn inline_routes(&self, listeners: &Value) -> Vec<Value> {
        let mut found = Vec::new();
        find_routes(listeners, &mut found);
        found.retain(|routes| self.wanted(routes["name"].as_str().unwrap_or_default()));
        let any = |routes| {
            let mut any = Map::new();
            any.insert("@type".to_owned(), ResourceType::Route.type_url().into());
            if let Value::Object(fields) = routes {
                any.extend(fields);
            }
            json!({"route_config": any, "last_updated": timestamp(self.started)})
        };
        found.into_iter().map(any).collect()
    }

    /// The present hosts of all clusters, however discovered.
    fn all_endpoints(&self) -> Value {
        let fixed = self
            .dump
            .resources
            .iter()
            .filter(|one| one.kind == ResourceType::Cluster && one.fixed);
        let fixed: std::collections::HashSet<_> = fixed.map(|one| &*one.name).collect();
        let clusters = self.published.clusters.values().filter_map(|slot| slot.load_full());
        let mut clusters: Vec<_> = clusters.filter(|one| self.wanted(&one.config.name)).collect();
        clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        let mut lists = Lists::default();
        for one in &clusters {
            let list = match fixed.contains(&*one.config.name) {
                true => "static_endpoint_configs",
                false => "dynamic_endpoint_configs",
            };
            lists.push(list, json!({"endpoint_config": endpoints(one)}));
        }
        lists.0.into()
    }

    /// Certificates and trust anchors in use. Keys are not touched.
    fn secrets(&self) -> Value {
        let mut lists = Lists::default();
        let mut seen = std::collections::HashSet::new();
        let mut push = |name: &Arc<str>, kind: &str, value: Value| {
            if name.is_empty() || !self.wanted(name) || !seen.insert(name.clone()) {
                return;
            }
            let url = ResourceType::Secret.type_url();
            let held = self
                .held(ResourceType::Secret)
                .into_iter()
                .find(|one| one.name == *name);
            let mut entry = Map::from_iter([("name".to_owned(), json!(name))]);
            if let Some(held) = held {
                version_and_time(&mut entry, held);
            }
            entry.insert("secret".to_owned(), json!({"@type": url, "name": name, kind: value}));
            let list = if held.is_some_and(|held| held.fixed) {
                "static_secrets"
            } else {
                "dynamic_active_secrets"
            };
            lists.push(list, entry.into());
        };
        for secrets in certs::secrets(&self.published) {
            if let Some((slot, certificate)) = secrets
                .certificate
                .and_then(|slot| Some((slot.clone(), slot.load_full()?)))
            {
                let chain = pem(certificate.key.cert.iter().map(AsRef::as_ref));
                let value = json!({
                    "certificate_chain": {"inline_bytes": chain},
                    "private_key": {"inline_bytes": base64("[redacted]".as_bytes())},
                });
                push(slot.name(), "tls_certificate", value);
            }
            if let Some((slot, trust)) = secrets.trust.and_then(|slot| Some((slot.clone(), slot.load_full()?))) {
                let roots = pem(trust.roots.iter().map(AsRef::as_ref));
                push(
                    slot.name(),
                    "validation_context",
                    json!({"trusted_ca": {"inline_bytes": roots}}),
                );
            }
        }
        lists.0.into()
    }
}

/// The lists of a dump; empty ones are left out.
#[derive(Default)]
struct Lists(Map<String, Value>);

impl Lists {
    fn push(&mut self, list: &str, element: Value) {
        if let Value::Array(elements) = self.0.entry(list).or_insert_with(|| json!([])) {
            elements.push(element);
        }
    }

    /// With the version of the last update: Envoy has one for the whole type.
    fn with_version(self, dump: &Dump, kind: ResourceType) -> Value {
        let held = dump.resources.iter().filter(|one| one.kind == kind && !one.fixed);
        let Some(last) = held.max_by_key(|one| one.updated) else {
            return self.0.into();
        };
        let mut all = Map::from_iter([("version_info".to_owned(), json!(last.version))]);
        all.extend(self.0);
        all.into()
    }
}

/// A resource with its version and the time of its update.
fn entry(field: &str, printer: &Printer, held: &Held) -> Result<Value, JsonError> {
    let mut any = Map::new();
    any.insert("@type".to_owned(), held.kind.type_url().into());
    if let Value::Object(fields) = printer.to_json(held.kind.type_url(), &held.body)? {
        any.extend(fields);
    }
    let mut entry = Map::new();
    entry.insert(field.to_owned(), any.into());
    version_and_time(&mut entry, held);
    Ok(entry.into())
}

fn version_and_time(entry: &mut Map<String, Value>, held: &Held) {
    if !held.version.is_empty() {
        entry.insert("version_info".to_owned(), json!(held.version));
    }
    entry.insert("last_updated".to_owned(), timestamp(held.updated));
}

fn timestamp(time: SystemTime) -> Value {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = OffsetDateTime::UNIX_EPOCH + since;
    time.format(TIME).ok().into()
}

fn find_routes(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            let manager = fields.get("@type").is_some_and(|kind| kind == MANAGER);
            found.extend(fields.get("route_config").filter(|_| manager).cloned());
            fields.values().for_each(|value| find_routes(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| find_routes(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A `ClusterLoadAssignment` of the present hosts.
fn endpoints(cluster: &Cluster) -> Value {
    let name = match &cluster.config.discovery {
        Discovery::Eds(name) => name,
        Discovery::Static | Discovery::Dns(_) | Discovery::OriginalDst(..) => &cluster.config.name,
    };
    let set = cluster.hosts.load();
    let mut groups: Vec<(&Host, Vec<Value>)> = Vec::new();
    for host in &set.hosts {
        let same =
            |(first, _): &&mut (&Host, Vec<Value>)| first.priority == host.priority && first.locality == host.locality;
        match groups.iter_mut().find(same) {
            Some((_, endpoints)) => endpoints.push(endpoint(host)),
            None => groups.push((host, vec![endpoint(host)])),
        }
    }
    let group = |(first, endpoints): (&Host, Vec<Value>)| {
        let mut group = json!({"locality": clusters::locality(first), "lb_endpoints": endpoints});
        if first.priority > 0 {
            group["priority"] = json!(first.priority);
        }
        group
    };
    json!({
        "@type": ResourceType::Endpoints.type_url(),
        "cluster_name": name,
        "endpoints": groups.into_iter().map(group).collect::<Vec<_>>(),
        "policy": {"overprovisioning_factor": 140},
    })
}

fn endpoint(host: &Host) -> Value {
    let address = match &host.address {
        HostAddress::Ip(address) => listeners::socket_address(*address),
        HostAddress::Unix(path) => json!({"pipe": {"path": path}}),
    };
    let mut endpoint = json!({"address": address, "health_check_config": health_check_config(host)});
    if let Some(hostname) = &host.hostname {
        endpoint["hostname"] = json!(hostname);
    }
    json!({
        "endpoint": endpoint,
        "health_status": match (host.failed(), host.degraded()) {
            (true, _) => EdsHealth::Unhealthy.name(),
            (false, true) => EdsHealth::Degraded.name(),
            (false, false) => host.eds.name(),
        },
        "load_balancing_weight": host.weight,
    })
}

/// How the host is checked, as far as that is said of its endpoint.
fn health_check_config(host: &Host) -> Value {
    let mut config = json!({});
    let Some(checked) = &host.checked else {
        return config;
    };
    if let Some(hostname) = checked.hostname() {
        config["hostname"] = json!(hostname);
    }
    if let HostAddress::Ip(address) = &checked.address
        && checked.address != host.address
    {
        config["port_value"] = json!(address.port());
    }
    config
}

/// Certificates as PEM in base64, the JSON form of bytes.
fn pem<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> String {
    let text = certificates.map(|der| {
        let encoded = base64(der);
        let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    });
    base64(text.collect::<String>().as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
