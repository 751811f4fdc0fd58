//! `topsail inject`: adds sidecars to a Compose project by generating an override file.

mod discover;
mod engine;
mod place;
mod summary;
mod version;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::format::Form;
use super::output::Output;
use super::{Command, Outcome, Usage};
use crate::compose::{self, Choice, Marked, Override, Plan, Version};
use crate::diag::{Diagnostic, Severity, render};
use discover::Found;
use summary::Summary;
use version::Compose;
use write::Batch;

const EXAMPLES: &str = "\
The project's own files are not changed. The command writes a Compose override file, which adds the control plane and \
a sidecar for every service, and objects in the configuration directory that describe the services. To run the project \
without the mesh, leave out the override file.

A service NAME and its sidecar share the network of a container NAME-pod; the service starts once the sidecar has \
received its first configuration. The service's network settings are moved to the pod, which requires Compose 2.24.4: \
with earlier versions (--compose 1), a service with network settings gets no pod and starts before its sidecar.

Service labels, named after Istio's annotations:
  topsail.io/inject, sidecar.istio.io/inject       \"false\" excludes it; \"true\" excludes all others
  topsail.io/ports                                 ports: \"http:8080,tcp:5432,9000\", or \"none\"
  topsail.io/mtls                                  PERMISSIVE: accept clients without a sidecar
  sidecar.istio.io/interceptionMode                REDIRECT, TPROXY or NONE
  sidecar.istio.io/logLevel                        log level of the sidecar
  traffic.sidecar.istio.io/excludeOutboundPorts    and include…, …InboundPorts, …OutboundIPRanges, excludeInterfaces

Run it again after changing the project: generated files that have not been edited are replaced, or removed if their \
service is gone. Findings are written to standard error as `path:line:column: severity[CODE]: message`; on errors, no \
files are written. Exit codes: 0 success, 1 errors (nothing written), 2 usage error.

Examples:
  Inject the project in the current directory, then start it with the mesh:
    topsail inject
    docker compose -f docker-compose.yml -f docker-compose.topsail.yml up -d

  Preview the output:
    topsail inject --dry-run

  Use several Compose files and the bundled proxy:
    topsail inject -f compose.yaml -f compose.prod.yaml --dataplane rust";

/// Default name of the override file.
const OVERRIDE: &str = "docker-compose.topsail.yml";

/// Arguments of `topsail inject`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Compose file; repeatable, later files are merged into earlier ones [default: the files Compose uses: COMPOSE_FILE, or
    /// compose.yaml or docker-compose.yml and its override, in the current directory or a parent]
    #[arg(long = "file", short, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Override file to write [default: docker-compose.topsail.yml next to the first Compose file]
    #[arg(long = "override", value_name = "FILE")]
    out: Option<PathBuf>,

    /// Configuration directory; objects are written to its subdirectory `compose` [default: mesh next to the first Compose
    /// file]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,

    /// Inject every service that is not excluded by a label, even if some are labelled for injection
    #[arg(long, conflicts_with = "labelled")]
    all: bool,

    /// Inject only services with the label topsail.io/inject: "true"
    #[arg(long)]
    labelled: bool,

    /// Compose version to generate the override for: from 2.24.4 on, every service gets a pod; before, only services without
    /// network settings [default: the installed version, or any version if none is installed]
    #[arg(long, value_name = "VERSION")]
    compose: Option<Version>,

    /// Data plane of the sidecars
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Dataplane::Envoy)]
    dataplane: Dataplane,

    /// Control plane image
    #[arg(long, value_name = "IMAGE", env = "TOPSAIL_IMAGE", hide_env_values = true,
          default_value = concat!("topsail:", env!("CARGO_PKG_VERSION")))]
    image: String,

    /// Sidecar image [default: topsail-sidecar-envoy:VERSION; with --dataplane rust, the value of --image]
    #[arg(long, value_name = "IMAGE", env = "TOPSAIL_SIDECAR_IMAGE", hide_env_values = true)]
    sidecar_image: Option<String>,

    /// Print what would be written without writing it
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Also replace files that have been edited or were not generated
    #[arg(long)]
    force: bool,

    /// Do not query the Docker engine for the ports an image exposes
    #[arg(long)]
    offline: bool,

    /// Output format
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dataplane {
    Envoy,
    Rust,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let out = self.out.clone();
        let Found { files, folder } = discover::files(&self.files, out.as_deref())?;
        let out = out.unwrap_or_else(|| folder.join(OVERRIDE));
        let config = self.config.clone().unwrap_or_else(|| folder.join("mesh"));
        let compose = Compose::choose(self.compose);
        let plan = self.plan(&files, compose.takes_back());
        let mut batch = Batch::default();
        let mut problems = plan.problems.clone();
        if !plan.has_errors() {
            self.files(&plan, &folder, &out, &config, &mut batch)?;
            problems.extend(batch.check(self.force));
        }
        for problem in &problems {
            writeln!(output.err, "{}", render::text(problem, false))?;
        }
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            writeln!(output.err, "nothing was written: {}", errors(&problems))?;
            return Ok(Outcome::Findings);
        }
        if plan.meshed.is_empty() {
            return Err(Usage(nothing_meant(&plan, &files)).into());
        }
        if self.dry_run && self.output == Form::Text {
            batch.show(&mut output.out)?;
            return Ok(Outcome::Fine);
        }
        let all = files.iter().chain([&out]).map(|file| format!(" -f {}", file.display()));
        let start = format!("{}{} {}", compose.command, all.collect::<String>(), compose.up());
        let done = match self.dry_run {
            true => batch.outlook(),
            false => batch.write()?,
        };
        let summary = Summary {
            plan: &plan,
            compose,
            files: &done,
            start,
        };
        match self.output {
            Form::Text => summary.write(&mut output.out)?,
            Form::Json => writeln!(output.out, "{:#}", summary.json())?,
        }
        Ok(Outcome::Fine)
    }
}

impl Arguments {
    fn plan(&self, files: &[PathBuf], takes_back: bool) -> Plan {
        let project = compose::read(files, &mut |path| fs::read_to_string(path));
        let choice = match (self.all, self.labelled) {
            (true, _) => Choice::All,
            (_, true) => Choice::Labelled,
            (false, false) => Choice::Either,
        };
        let exposed = |image: &str| match self.offline {
            true => None,
            false => engine::exposed_ports(image),
        };
        compose::plan(project, choice, takes_back, &exposed)
    }

    /// Collects the files to write, and removes previously generated ones that are obsolete.
    fn files(&self, plan: &Plan, folder: &Path, out: &Path, config: &Path, batch: &mut Batch) -> anyhow::Result<()> {
        let owner = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let settings = Override {
            image: self.image.clone(),
            sidecar_image: self.sidecar_image.clone().unwrap_or_else(|| match self.dataplane {
                Dataplane::Envoy => concat!("topsail-sidecar-envoy:", env!("CARGO_PKG_VERSION")).to_owned(),
                Dataplane::Rust => self.image.clone(),
            }),
            dataplane: match self.dataplane {
                Dataplane::Envoy => "envoy",
                Dataplane::Rust => "rust",
            }
            .to_owned(),
            config: place::seen_from(folder, config)?,
        };
        let objects = config.join("compose");
        for (name, body) in compose::objects(plan) {
            batch.put(objects.join(name), Marked::write(&owner, &body), write::Foreign::Keep);
        }
        batch.remove_others(&objects, &owner)?;
        let body = compose::additions(plan, &settings)?;
        batch.put(out.to_owned(), Marked::write(&owner, &body), write::Foreign::Refuse);
        Ok(())
    }
}

fn nothing_meant(plan: &Plan, files: &[PathBuf]) -> String {
    let shown: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let shown = shown.join(", ");
    match plan.left_alone.is_empty() {
        true => format!("{shown} has no services"),
        false => {
            format!("no service of {shown} is selected for injection: none has the label topsail.io/inject: \"true\"")
        }
    }
}

fn errors(problems: &[Diagnostic]) -> String {
    let count = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    match count {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    }
}
