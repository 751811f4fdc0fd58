//! `topsail render`: prints the resources that a proxy would receive.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::directory::{DirectoryArguments, config_root};
use super::format::Format;
use super::output::Output;
use super::workload::Mode;
use super::{Command, Outcome, Usage, value};
use crate::control::Offline;
use crate::diag::Severity;
use crate::ir::NodeView;
use crate::mesh::service::Locality;
use crate::name::WorkloadName;
use crate::xds::json::{JsonError, Printer};
use crate::xds::resource::ResourceType;
use crate::xds::snapshot::Snapshot;

const EXAMPLES: &str = "\
The resources are those that a server with this directory would send, with Envoy's field names and in a stable \
order, so that two outputs can be compared with diff. Private keys are omitted; for secrets issued on demand only \
the names are shown. Invalid objects are omitted, as on a server that has never had a valid version of them; \
`topsail check` reports them.

Examples:
  Print all resources:
    topsail render --config mesh/ --workload reviews-v1.default

  Show what a change to the configuration means for a proxy:
    diff <(topsail render --config mesh/ --workload productpage-v1.default) \\
         <(topsail render --config new/ --workload productpage-v1.default)

  Print the routes of a workload without a WorkloadEntry and without traffic interception:
    topsail render --config mesh/ --workload client.default --label app=client --ip 127.0.1.9 \\
      --mode NONE --type rds";

/// Arguments of `topsail render`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory of Istio YAML
    #[arg(long, value_name = "DIR", env = "TOPSAIL_CONFIG", hide_env_values = true)]
    config: PathBuf,

    /// Workload to render for; without .NAMESPACE, the namespace is `default`
    #[arg(long, value_name = "NAME.NAMESPACE")]
    workload: WorkloadName,

    /// Print only resources of this type: listeners (lds), routes (rds), clusters (cds), endpoints (eds) or secrets (sds)
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Kind>,

    /// Traffic interception mode: iptables (REDIRECT, TPROXY), or none, where applications connect to the proxy (NONE)
    #[arg(long, value_enum, ignore_case = true, default_value_t = Mode::Redirect)]
    mode: Mode,

    /// Workload label, used if there is no WorkloadEntry of this name; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    labels: Vec<(String, String)>,

    /// Workload address, used if there is no WorkloadEntry of this name; repeatable
    #[arg(long = "ip", value_name = "IP")]
    addresses: Vec<IpAddr>,

    /// Output format
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Format::Yaml)]
    output: Format,

    #[command(flatten)]
    directory: DirectoryArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Lds,
    Rds,
    Cds,
    Eds,
    Sds,
}

impl Kind {
    fn of(self) -> ResourceType {
        match self {
            Kind::Lds => ResourceType::Listener,
            Kind::Rds => ResourceType::Route,
            Kind::Cds => ResourceType::Cluster,
            Kind::Eds => ResourceType::Endpoints,
            Kind::Sds => ResourceType::Secret,
        }
    }
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let config = self.config.display();
        std::fs::read_dir(&self.config).map_err(|error| Usage(format!("cannot read --config {config}: {error}")))?;
        let reading = self.directory.reading(config_root([&self.config]))?;
        let offline = Offline::read(&reading, None, &self.directory.trust_domain);
        let errors = offline
            .diagnostics()
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        if errors > 0 {
            writeln!(
                output.err,
                "warning: {config} has errors ({errors}); run `topsail check {config}` for details"
            )?;
        }
        let view = match offline.view(&self.workload, self.mode.into()) {
            Some(view) => view,
            None => self.stated(output)?,
        };
        let resources = Resources::of(&offline.snapshot(&view))?;
        let shown = match self.kind {
            Some(kind) => resources.only(kind.of()),
            None => resources.all(),
        };
        self.output.write(&shown, &mut output.out)?;
        Ok(Outcome::Fine)
    }
}

impl Arguments {
    /// The proxy as described by the flags.
    fn stated(&self, output: &mut Output) -> anyhow::Result<NodeView> {
        let workload = &self.workload;
        if self.labels.is_empty() && self.addresses.is_empty() {
            writeln!(
                output.err,
                "warning: no WorkloadEntry {workload} found; use --label and --ip to describe the workload"
            )?;
        }
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        Ok(NodeView {
            namespace: workload.namespace.clone(),
            labels: Arc::new(labels.collect()),
            addresses: self.addresses.clone(),
            locality: Locality::default(),
            mode: self.mode.into(),
        })
    }
}

/// Resources as JSON, by type.
struct Resources(Vec<(ResourceType, Vec<Value>)>);

impl Resources {
    fn of(snapshot: &Snapshot) -> Result<Self, JsonError> {
        let printer = Printer::new()?;
        let print = |kind: ResourceType| {
            let resources = snapshot.set(kind).values();
            resources
                .map(|resource| printer.to_json(kind.type_url(), &resource.body))
                .collect::<Result<Vec<_>, _>>()
        };
        let order = [Kind::Lds, Kind::Rds, Kind::Cds, Kind::Eds, Kind::Sds];
        let mut all = Vec::new();
        for kind in order.map(Kind::of) {
            all.push((kind, print(kind)?));
        }
        let mut resources = Self(all);
        resources.add_secrets_named();
        Ok(resources)
    }

    /// Adds the secrets that are referred to, by name only: they are issued when the proxy requests them.
    fn add_secrets_named(&mut self) {
        let mut names = BTreeSet::new();
        self.0.iter().for_each(|(_, resources)| {
            resources
                .iter()
                .for_each(|resource| secrets_named(resource, &mut names))
        });
        let Some((_, secrets)) = self.0.iter_mut().find(|(kind, _)| *kind == ResourceType::Secret) else {
            return;
        };
        names.retain(|name| secrets.iter().all(|secret| secret["name"] != name.as_str()));
        secrets.extend(names.into_iter().map(|name| json!({"name": name})));
        secrets.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    }

    fn only(self, kind: ResourceType) -> Value {
        self.0
            .into_iter()
            .filter(|(of, _)| *of == kind)
            .flat_map(|(_, resources)| resources)
            .collect()
    }

    fn all(self) -> Value {
        let name = |kind| match kind {
            ResourceType::Listener => "listeners",
            ResourceType::Route => "routes",
            ResourceType::Cluster => "clusters",
            ResourceType::Endpoints => "endpoints",
            ResourceType::Secret => "secrets",
        };
        let all: Map<String, Value> = self
            .0
            .into_iter()
            .map(|(kind, resources)| (name(kind).to_owned(), resources.into()))
            .collect();
        all.into()
    }
}

/// Collects the names in all `SdsSecretConfig`s of a message.
fn secrets_named(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let (Some(Value::String(name)), Some(_)) = (fields.get("name"), fields.get("sds_config")) {
                names.insert(name.clone());
            }
            fields.values().for_each(|value| secrets_named(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| secrets_named(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
