//! Changes to a service because of sidecars and pods of others: its start order and the names it
//! uses.

use super::plan::Planned;
use super::project::Project;
use super::service::Service;
use crate::api::suggest::closest;
use crate::diag::{Code, Diagnostic};

/// Changes to a service because of others.
#[derive(Debug, Default)]
pub(super) struct Ties {
    /// Services with sidecars that it depends on.
    pub(super) after: Vec<After>,
    /// Services whose start order Compose would no longer know.
    pub(super) started: Vec<String>,
    /// `network_mode`, if it is changed to a pod's.
    pub(super) network_mode: Option<String>,
    /// `links`, if pods replace services in them.
    pub(super) links: Option<Vec<String>>,
}

/// A dependency on a service with a sidecar, which must be ready first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct After {
    pub(super) service: String,
    /// Whether Compose starts it on demand.
    pub(super) required: bool,
}

impl Ties {
    /// The changes to a service. Reports names of services that do not exist.
    pub(super) fn of(service: &Service, project: &Project, meshed: &[Planned], problems: &mut Vec<Diagnostic>) -> Self {
        let mut ties = Self::default();
        let own = &service.name.text;
        for name in service.depends_on.iter().chain(&service.links) {
            if project.service(&name.text).is_none() {
                let names = project.services.iter().map(|service| &*service.name.text);
                let problem = format!("unknown service `{}`", name.text.escape_debug());
                let mut problem = Diagnostic::new(Code::ReferencedResourceNotFound, problem).at(name.place.clone());
                problem.help = closest(&name.text, names).map(|meant| format!("did you mean `{meant}`?"));
                problems.push(problem);
            }
            if name.text != *own && meshed.iter().any(|planned| planned.service == name.text) {
                ties.wait_for(&name.text, !service.optional.contains(&name.text));
            }
        }
        let pod = |name: &str| {
            let planned = meshed.iter().find(|planned| planned.service == name)?;
            planned.pod.as_ref().ok()
        };
        let mode = service.network_mode.as_ref();
        if let Some(shared) = mode.and_then(|mode| mode.text.strip_prefix("service:"))
            && let Some(pod) = pod(shared)
        {
            ties.network_mode = Some(format!("service:{}", pod.name));
            ties.started.push(shared.to_owned());
            ties.wait_for(shared, true);
        }
        let links = service.network.links();
        if links.iter().any(|(target, _)| pod(target).is_some()) {
            let found = links.iter().map(|(target, alias)| match pod(target) {
                Some(pod) => format!("{}:{alias}", pod.name),
                None => format!("{target}:{alias}"),
            });
            ties.links = Some(found.collect());
            let targets = links.iter().filter(|(target, _)| pod(target).is_some());
            ties.started.extend(targets.map(|(target, _)| (*target).to_owned()));
        }
        ties.started
            .retain(|name| service.depends_on.iter().all(|known| known.text != *name));
        ties
    }

    fn wait_for(&mut self, service: &str, required: bool) {
        if self.after.iter().all(|known| known.service != service) {
            self.after.push(After {
                service: service.to_owned(),
                required,
            });
        }
    }

    /// Whether there are no changes.
    pub(super) fn is_empty(&self) -> bool {
        self.after.is_empty() && self.started.is_empty() && self.network_mode.is_none() && self.links.is_none()
    }
}
