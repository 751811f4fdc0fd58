//! What the sidecars and pods of others mean for a service: whom it starts after, and where it finds them.

use super::plan::Planned;
use super::project::Project;
use super::service::Service;
use crate::api::suggest::closest;
use crate::diag::{Code, Diagnostic};

/// What the override says of a service because of others.
#[derive(Debug, Default)]
pub(super) struct Ties {
    /// Services with sidecars that it starts after.
    pub(super) after: Vec<After>,
    /// Services that compose would not know any more that it starts after.
    pub(super) started: Vec<String>,
    /// `network_mode`, where that is a pod's now.
    pub(super) network_mode: Option<String>,
    /// `links`, if pods have to stand for services in them.
    pub(super) links: Option<Vec<String>>,
}

/// A service with a sidecar, which is to be ready first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct After {
    pub(super) service: String,
    /// Whether compose is to start it if it is not asked for.
    pub(super) required: bool,
}

impl Ties {
    /// The ties of a service. Names that no service has are reported.
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

    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        self.after.is_empty() && self.started.is_empty() && self.network_mode.is_none() && self.links.is_none()
    }
}
