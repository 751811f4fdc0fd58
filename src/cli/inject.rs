//! `topsail inject`: sidecars for a compose project that has never heard of a mesh.

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
The project's own files are read and not changed. What is written is an override for compose, which adds the control \
plane and a sidecar beside every service, and objects in the configuration directory that describe the services. Not \
to name the override in a call of compose is to be without the mesh.

A service NAME shares the network of a container NAME-pod with its sidecar, and starts when the sidecar has its first \
configuration. What the project's files say about the service's network becomes the pod's, which takes Compose 2.24.4: for \
earlier ones (--compose 1) a service that says anything about its network has no pod, and starts before its sidecar.

Labels of a service, under the names that Istio's annotations have:
  topsail.io/inject, sidecar.istio.io/inject       \"false\" leaves it alone; \"true\" on any service leaves all others alone
  topsail.io/ports                                 where it listens: \"http:8080,tcp:5432,9000\", or \"none\"
  topsail.io/mtls                                  PERMISSIVE: who has no sidecar may call it
  sidecar.istio.io/interceptionMode                REDIRECT, TPROXY or NONE
  sidecar.istio.io/logLevel                        the level of its sidecar's log
  traffic.sidecar.istio.io/excludeOutboundPorts    and include…, …InboundPorts, …OutboundIPRanges, excludeInterfaces

Run it again after an edit: a file that was generated and has not been edited is replaced, or removed if its service is \
gone. Findings go to standard error as `path:line:column: severity[CODE]: message`; an error keeps everything from being \
written. Exit codes: 0 all is written, 1 it is not, 2 called wrongly.

Examples:
  The project of this folder, and then the mesh:
    topsail inject
    docker compose -f docker-compose.yml -f docker-compose.topsail.yml up -d

  Look first:
    topsail inject --dry-run

  Several files, and the bundled data plane:
    topsail inject -f compose.yaml -f compose.prod.yaml --dataplane rust";

/// What the override is called unless it is told.
const OVERRIDE: &str = "docker-compose.topsail.yml";

/// What `topsail inject` is called with.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A compose file; repeated, the later ones add to the earlier ones [default: those that compose finds: COMPOSE_FILE,
    /// else compose.yaml or docker-compose.yml and its override, here or in a folder above]
    #[arg(long = "file", short, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The override file to write [default: docker-compose.topsail.yml beside the first compose file]
    #[arg(long = "override", value_name = "FILE")]
    out: Option<PathBuf>,

    /// The configuration directory, in whose folder `compose` the objects are written [default: mesh beside the first
    /// compose file]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,

    /// Every service that no label leaves alone, even if some are labelled
    #[arg(long, conflicts_with = "labelled")]
    all: bool,

    /// Only services with the label topsail.io/inject: "true"
    #[arg(long)]
    labelled: bool,

    /// The version of Compose that the override is for: from 2.24.4 on every service gets a pod, before that those alone
    /// that say nothing about their network [default: the one that is installed, else any]
    #[arg(long, value_name = "VERSION")]
    compose: Option<Version>,

    /// The data plane of the sidecars
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Dataplane::Envoy)]
    dataplane: Dataplane,

    /// The image of the control plane
    #[arg(long, value_name = "IMAGE", env = "TOPSAIL_IMAGE", hide_env_values = true,
          default_value = concat!("topsail:", env!("CARGO_PKG_VERSION")))]
    image: String,

    /// The image of the sidecars [default: topsail-sidecar-envoy:VERSION; with --dataplane rust that of --image]
    #[arg(long, value_name = "IMAGE", env = "TOPSAIL_SIDECAR_IMAGE", hide_env_values = true)]
    sidecar_image: Option<String>,

    /// Print what would be written and write nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Replace generated files that somebody has edited, too
    #[arg(long)]
    force: bool,

    /// Do not ask the engine which ports an image exposes
    #[arg(long)]
    offline: bool,

    /// The form of the answer
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
            writeln!(output.err, "nothing is written: {}", errors(&problems))?;
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

    /// All files that are to be there, and those that were once.
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
        false => format!("no service of {shown} is to have a sidecar: none has the label topsail.io/inject: \"true\""),
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
