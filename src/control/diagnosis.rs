//! Collects the current diagnostics from all stages of the pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::files::Files;
use super::roster::Roster;
use super::seal::Broken;
use super::views::Views;
use crate::api::FieldPath;
use crate::diag::{Code, Diagnostic, Place, Severity, render};
use crate::ir::Origins;
use crate::mesh::directory::Directory;
use crate::name::ObjectId;

/// Diagnostics of files, documents and objects.
pub(super) fn of_directory(files: &Files, directory: &Directory) -> Vec<Diagnostic> {
    let mut all = files.diagnostics();
    all.extend(directory.diagnostics());
    all.sort_by(Diagnostic::display_order);
    all
}

/// Diagnostics of generated configuration: resources that fail Envoy's validation rules, resources
/// NACKed by proxies, and listeners with conflicting addresses.
pub(super) fn of_proxies(directory: &Directory, views: &Views, roster: &Roster) -> Vec<Diagnostic> {
    let mut all = of_broken(directory, views);
    for conflict in views.conflicts() {
        let name = |id: &Option<ObjectId>| {
            id.as_ref()
                .map_or_else(|| "the mesh itself".to_owned(), ObjectId::to_string)
        };
        let (kept, dropped) = (name(&conflict.kept), name(&conflict.dropped));
        let message = format!(
            "the listener `{}` of {dropped} is omitted: {kept} has the same address and port",
            conflict.listener
        );
        let origins: Origins = conflict.dropped.iter().chain(&conflict.kept).cloned().collect();
        all.push(place_at(
            Diagnostic::new(Code::ConflictingListener, message),
            directory,
            &origins,
        ));
    }
    let mut refusals = BTreeMap::new();
    for (node, kind, name, record) in roster.refusals() {
        let who = refusals
            .entry((kind, name, record.refused.version.clone()))
            .or_insert_with(|| (record, Vec::new()));
        who.1.push(node);
    }
    for ((kind, name, _), (record, nodes)) in refusals {
        let nodes: Vec<&str> = nodes.iter().map(|node| &**node).collect();
        let message = format!(
            "{kind} `{name}` was rejected by {}: {}",
            nodes.join(", "),
            record.message
        );
        let problem = Diagnostic::new(Code::RefusedByProxy, message);
        all.push(place_at(problem, directory, &record.origins).help("the proxy keeps the previous version"));
    }
    all
}

/// Diagnostics of resources that fail Envoy's validation rules.
pub(super) fn of_broken(directory: &Directory, views: &Views) -> Vec<Diagnostic> {
    let problem = |broken: &Broken| {
        let rules = broken.breaks.iter().fold(String::new(), |mut text, rule| {
            let _ = write!(text, "; {rule}");
            text
        });
        let message = format!(
            "{} `{}` violates Envoy's validation rules and is not sent{rules}",
            broken.kind, broken.name
        );
        let problem = Diagnostic::new(Code::BreaksEnvoyRule, message);
        place_at(problem, directory, &broken.origins).help("the last valid version stays in effect")
    };
    views.broken().map(problem).collect()
}

/// Logs diagnostics that are new and those that are resolved.
pub(super) fn log_changes(before: &[Diagnostic], now: &[Diagnostic]) {
    if before == now {
        return;
    }
    let lines = |problems: &[Diagnostic]| problems.iter().map(render::line).collect::<BTreeSet<String>>();
    let (known, current) = (lines(before), lines(now));
    for problem in now {
        let line = render::line(problem);
        match problem.severity {
            _ if known.contains(&line) => {}
            Severity::Error => tracing::error!("{line}"),
            Severity::Warning => tracing::warn!("{line}"),
            Severity::Info => tracing::info!("{line}"),
        }
    }
    known
        .difference(&current)
        .for_each(|line| tracing::info!("resolved: {line}"));
}

/// Places a diagnostic at the objects a resource was built from, the most specific one first.
fn place_at(problem: Diagnostic, directory: &Directory, origins: &Origins) -> Diagnostic {
    let places = origins.iter().filter_map(|id| Some((id, directory.object(id)?)));
    places.fold(problem, |problem, (id, object)| {
        let place: Place = object.place(FieldPath::root());
        problem.label(place, id.to_string())
    })
}
