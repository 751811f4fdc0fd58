//! `topsail init`: provisions join tokens and root certificates before sidecars start.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::directory::config_root;
use super::format::Form;
use super::join::{ROOT_CERTIFICATE, TOKEN};
use super::output::Output;
use super::state::StateArguments;
use super::token::display;
use super::value::{self, Owner};
use super::{Command, Outcome, Usage, file};
use crate::clock::Clock;
use crate::control::{Offline, Reading};
use crate::diag::{Diagnostic, Severity, render};
use crate::mesh::Mesh;
use crate::name::{ServiceAccount, WorkloadName};
use crate::pki::{Bearer, Ca, TokenGrant, TokenSigner};
use crate::source::document::Document;
use crate::source::node;

const EXAMPLES: &str = "\
For every WorkloadEntry with a serviceAccount and every WorkloadGroup, a directory NAME is created in --join \
(NAME.NAMESPACE outside the namespace default) with a join token and the root certificate: everything that `topsail \
sidecar --join` needs. Each directory may be a separate mount, such as a volume for one service. The state directory \
and its CA are created if they do not exist; the server may be running.

The command is idempotent: a token for the same workload, from the same state directory, with more than half of its \
lifetime left is kept; all others are replaced.

Exit codes: 0 success, 1 a workload could not be determined (the others are provisioned), 2 usage error.

Examples:
  Provision the sidecars of a Compose project, which run as user 1337:
    topsail init --config mesh/ --state /var/lib/topsail --join /run/join --owner 1337:1337

  Provision a single workload:
    topsail init --config mesh/ --state state/ --join join/ --only reviews-v1";

/// Arguments of `topsail init`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory of Istio YAML that defines the workloads
    #[arg(long, value_name = "DIR", env = "TOPSAIL_CONFIG", hide_env_values = true)]
    config: PathBuf,

    /// Output directory, with one subdirectory per workload and group
    #[arg(long, value_name = "DIR")]
    join: PathBuf,

    /// Provision only this workload or group; repeatable. Without .NAMESPACE, the namespace is `default`
    #[arg(long, value_name = "NAME[.NAMESPACE]")]
    only: Vec<WorkloadName>,

    /// Owner of the directories and files: the user that sidecars run as. Requires root [default: the current user]
    #[arg(long, value_name = "UID[:GID]")]
    owner: Option<Owner>,

    /// Lifetime of newly created tokens (units: s, m, h, d) [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    ttl: Option<Duration>,

    /// Report unknown fields and kinds as warnings instead of errors
    #[arg(long)]
    lenient: bool,

    /// Output format
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t = Form::Text)]
    output: Form,

    #[command(flatten)]
    state: StateArguments,
}

impl Command for Arguments {
    fn run(self, output: &mut Output) -> anyhow::Result<Outcome> {
        let config = self.config.display();
        fs::read_dir(&self.config).map_err(|error| Usage(format!("cannot read --config {config}: {error}")))?;
        let reading = Reading {
            root: config_root([&self.config]).without(self.state.path()?),
            mesh_config: None,
            lenient: self.lenient,
            strict: false,
        };
        let offline = Offline::read(&reading, None, &self.state.trust_domain);
        let mut errors = offline.diagnostics();
        errors.retain(|problem| problem.severity == Severity::Error);
        for error in &errors {
            writeln!(output.err, "{}", render::text(error, false))?;
        }
        let mut complete = !errors.iter().any(may_hide_a_workload);
        let mut wanted = grants(offline.mesh())?;
        if !self.only.is_empty() {
            wanted.retain(|name, _| self.only.contains(name));
            for name in self.only.iter().filter(|name| !wanted.contains_key(name)) {
                complete = false;
                writeln!(
                    output.err,
                    "error: --only {name}: {config} has neither a WorkloadEntry {name} with a serviceAccount nor a WorkloadGroup {name}"
                )?;
            }
        }
        let made = self.make(&wanted)?;
        match self.output {
            Form::Text => made.iter().try_for_each(|one| writeln!(output.out, "{one}"))?,
            Form::Json => {
                let all: Vec<Value> = made.iter().map(Made::json).collect();
                writeln!(output.out, "{:#}", Value::from(all))?;
            }
        }
        Ok(if complete { Outcome::Fine } else { Outcome::Findings })
    }
}

/// The workloads and groups of a mesh, and the grants of their tokens. Labels and addresses are left to the
/// directory.
///
/// # Errors
/// If a workload and a group have the same name, as they would share a join directory.
fn grants(mesh: &Mesh) -> anyhow::Result<BTreeMap<WorkloadName, TokenGrant>> {
    let mut grants = BTreeMap::new();
    for workload in mesh.workloads() {
        if let Some(account) = &workload.service_account {
            let name = WorkloadName::of_object(&workload.id);
            let addresses = Vec::new();
            let bearer = Bearer::Workload {
                name: name.clone(),
                addresses,
            };
            grants.insert(name, grant(bearer, account.clone()));
        }
    }
    for group in mesh.workload_groups() {
        let name = WorkloadName::of_object(&group.id);
        let account = group.service_account.clone();
        let account = account.map_or_else(|| super::workload::DEFAULT_ACCOUNT.parse(), Ok)?;
        let other = grants.insert(name.clone(), grant(Bearer::Group(name.clone()), account));
        anyhow::ensure!(
            other.is_none(),
            "{name} is the name of both a WorkloadEntry and a WorkloadGroup, whose sidecars would share a join \
             directory: rename one of them"
        );
    }
    Ok(grants)
}

fn grant(bearer: Bearer, service_account: ServiceAccount) -> TokenGrant {
    TokenGrant {
        bearer,
        service_account,
        labels: BTreeMap::new(),
    }
}

/// Whether an error can be the reason why a workload or group is missing. Errors in objects of other kinds
/// cannot, since the rest of the mesh is unaffected by them.
fn may_hide_a_workload(error: &Diagnostic) -> bool {
    let Some(place) = error.place() else {
        return false;
    };
    let Some(root) = node::parse(&Document::whole(&place.source)).root else {
        return true;
    };
    let node::Value::Map(entries) = &root.value else {
        return false;
    };
    let kind = entries.iter().find(|(key, _)| &*key.text == "kind");
    match kind.map(|(_, kind)| &kind.value) {
        Some(node::Value::String(kind)) => matches!(&**kind, "WorkloadEntry" | "WorkloadGroup" | "List"),
        Some(_) | None => true,
    }
}

impl Arguments {
    fn make(&self, wanted: &BTreeMap<WorkloadName, TokenGrant>) -> anyhow::Result<Vec<Made>> {
        let state = self.state.open()?;
        let ca = Ca::load_or_create(&state, &self.state.trust_domain, &Clock::system())?;
        let tokens = TokenSigner::load_or_create(&state, &self.state.trust_domain)?;
        make_folder(&self.join)?;
        let one = |(name, grant): (&WorkloadName, &TokenGrant)| {
            let folder = self.join.join(folder_name(name));
            self.one(&folder, grant, &tokens, ca.bundle().pem())
                .with_context(|| format!("failed to provision {name}"))
        };
        wanted.iter().map(one).collect()
    }

    /// Provisions one join directory. The token is written last, so that the directory is complete once it
    /// exists.
    fn one(&self, folder: &Path, grant: &TokenGrant, tokens: &TokenSigner, roots: &str) -> anyhow::Result<Made> {
        make_folder(folder)?;
        self.set_owner_and_mode(folder, 0o700)?;
        let now = SystemTime::now();
        let path = folder.join(TOKEN);
        let present = fs::read_to_string(&path).unwrap_or_default();
        let kept = tokens
            .verify(&present, now)
            .ok()
            .filter(|claims| claims.grant == *grant && !claims.is_half_over(now));
        let root_certificate = folder.join(ROOT_CERTIFICATE);
        if fs::read(&root_certificate).is_ok_and(|old| old == roots.as_bytes()) {
            self.set_owner_and_mode(&root_certificate, 0o600)?;
        } else {
            file::replace_for(&root_certificate, roots.as_bytes(), 0o600, self.owner)?;
        }
        let (kept, expires) = match kept {
            Some(claims) => {
                self.set_owner_and_mode(&path, 0o600)?;
                (true, claims.expires_at)
            }
            None => {
                let ttl = self.ttl.unwrap_or(TokenSigner::DEFAULT_TTL);
                let token = tokens.create(grant, ttl, now)?;
                file::replace_for(&path, token.as_bytes(), 0o600, self.owner)?;
                (false, now + ttl)
            }
        };
        Ok(Made {
            grant: grant.clone(),
            folder: folder.to_owned(),
            kept,
            expires,
        })
    }

    /// Sets owner and mode of a file or directory.
    fn set_owner_and_mode(&self, path: &Path, mode: u32) -> anyhow::Result<()> {
        let failed = || format!("cannot set owner and mode of {}", path.display());
        let metadata = path.metadata().with_context(failed)?;
        if metadata.mode() & 0o7777 != mode {
            fs::set_permissions(path, Permissions::from_mode(mode)).with_context(failed)?;
        }
        if let Some(Owner { uid, gid }) = self.owner
            && (metadata.uid(), metadata.gid()) != (uid, gid)
        {
            chown(path, Some(uid), Some(gid)).with_context(failed)?;
        }
        Ok(())
    }
}

/// Name of a workload's or group's join directory: `NAME`, or `NAME.NAMESPACE` outside `default`.
fn folder_name(name: &WorkloadName) -> String {
    match name.namespace == Default::default() {
        true => name.name.to_string(),
        false => name.to_string(),
    }
}

/// Creates a directory and its parents if missing.
fn make_folder(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    let made = made.and_then(|()| match path.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    made.with_context(|| format!("cannot create the directory {}", path.display()))
}

/// The result of provisioning one workload or group.
struct Made {
    grant: TokenGrant,
    folder: PathBuf,
    kept: bool,
    expires: SystemTime,
}

impl Made {
    fn parts(&self) -> (&'static str, &WorkloadName) {
        match &self.grant.bearer {
            Bearer::Workload { name, .. } => ("workload", name),
            Bearer::Group(name) => ("group", name),
        }
    }

    fn json(&self) -> Value {
        let (kind, name) = self.parts();
        json!({
            "kind": kind,
            "name": name.name,
            "namespace": name.namespace,
            "serviceAccount": self.grant.service_account,
            "folder": self.folder,
            "token": self.word(),
            "expires": display(self.expires),
        })
    }

    fn word(&self) -> &'static str {
        if self.kept { "kept" } else { "made" }
    }
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, name) = self.parts();
        let (account, folder) = (&self.grant.service_account, self.folder.display());
        let (word, until) = (self.word(), display(self.expires));
        write!(
            f,
            "{kind} {name} as {account}: token {word} in {folder}, valid until {until}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_names_are_accepted_as_workload_names() {
        for (name, folder) in [
            ("a.default", "a"),
            ("a", "a"),
            ("a.shop", "a.shop"),
            ("a.b.default", "a.b"),
        ] {
            assert_eq!(folder_name(&name.parse().unwrap()), folder, "{name}");
        }
    }
}
