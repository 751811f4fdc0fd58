//! Determines which services get a sidecar, its settings, and what prevents it.

use std::collections::BTreeMap;

use super::fields::Spot;
use super::image;
use super::label::{self, Interception, Settings};
use super::name;
use super::pod::Pod;
use super::port::{ListenPort, Port, Protocol};
use super::project::Project;
use super::service::Service;
use super::ties::Ties;
use crate::diag::{Code, Diagnostic};

/// Ports that a sidecar uses in its network namespace (15000 admin, 15001 outbound, 15006 inbound,
/// 15021 readiness, 15090 metrics …).
const RESERVED: std::ops::RangeInclusive<u16> = 15000..=15090;

/// User and group by which interception recognises the sidecar's own connections.
const PROXY_ID: &str = "1337";

/// Which services get a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Labelled services, if there are any; otherwise all.
    #[default]
    Either,
    /// All, except those excluded by a label.
    All,
    /// Labelled services only.
    Labelled,
}

/// The plan for a project.
#[derive(Debug, Default)]
pub struct Plan {
    /// Services that get a sidecar.
    pub meshed: Vec<Planned>,
    /// Names of the others.
    pub left_alone: Vec<String>,
    /// Changes to services because of the sidecars and pods of others.
    pub(super) ties: BTreeMap<String, Ties>,
    /// Whether the override can reset fields of the project (Compose 2.24.4 or later).
    pub takes_back: bool,
    /// Problems, including those of the files. An error prevents generation.
    pub problems: Vec<Diagnostic>,
}

/// A service with a sidecar.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name in the project.
    pub service: String,
    /// Name of its Service, WorkloadGroup and service account.
    pub object: String,
    /// Name of its sidecar in the project.
    pub sidecar: String,
    /// The pod, or why there is none.
    pub pod: Result<Pod, String>,
    /// Ports it listens on.
    pub ports: Vec<ListenPort>,
    /// Whether clients without a sidecar may use all of them.
    pub permissive: bool,
    /// Its networks.
    pub(super) networks: Vec<String>,
    pub(super) profiles: Vec<String>,
    pub(super) interception: Interception,
    pub(super) log_level: Option<String>,
    pub(super) traffic: Vec<(&'static str, String)>,
}

/// Plans the sidecars of a project. `takes_back` tells whether the override may reset fields of the
/// project; `exposed` returns the ports that an image exposes, if known.
pub fn plan(project: Project, choice: Choice, takes_back: bool, exposed: &dyn Fn(&str) -> Option<Vec<u16>>) -> Plan {
    let mut plan = Plan {
        takes_back,
        ..Plan::default()
    };
    let mut problems = Vec::new();
    let settings: Vec<Settings> = project
        .services
        .iter()
        .map(|service| label::read(&service.labels, &mut problems))
        .collect();
    let any_asked = settings
        .iter()
        .any(|settings| matches!(settings.inject, Some((true, _))));
    let only_asked = choice == Choice::Labelled || (choice == Choice::Either && any_asked);
    for (service, settings) in project.services.iter().zip(settings) {
        let wanted = match &settings.inject {
            Some((wanted, _)) => *wanted,
            None => !only_asked,
        };
        if !wanted {
            plan.left_alone.push(service.name.text.clone());
            continue;
        }
        let pod = Pod::of(service, settings.interception, &project, takes_back);
        let mut planning = Planning {
            service,
            settings,
            problems: &mut problems,
        };
        plan.meshed.extend(planning.plan(pod, exposed));
    }
    check_names(&project, &plan, &mut problems);
    for service in &project.services {
        let ties = Ties::of(service, &project, &plan.meshed, &mut problems);
        if !ties.is_empty() {
            plan.ties.insert(service.name.text.clone(), ties);
        }
    }
    plan.problems = project.problems;
    plan.problems.extend(problems);
    plan.problems.sort_by(Diagnostic::display_order);
    plan
}

impl Plan {
    /// Whether there are errors.
    pub fn has_errors(&self) -> bool {
        let severity = |problem: &Diagnostic| problem.severity == crate::diag::Severity::Error;
        self.problems.iter().any(severity)
    }
}

struct Planning<'a> {
    service: &'a Service,
    settings: Settings,
    problems: &'a mut Vec<Diagnostic>,
}

impl Planning<'_> {
    fn plan(&mut self, pod: Result<Pod, String>, exposed: &dyn Fn(&str) -> Option<Vec<u16>>) -> Option<Planned> {
        let service = self.service;
        self.check_namespace();
        self.check_replicas();
        self.check_user();
        self.check_capabilities();
        let ports = self.ports(exposed);
        let object = match name::object(&service.name.text) {
            Ok(object) => object,
            Err(why) => {
                let problem = format!("the name of this service is not valid for mesh objects: {why}");
                self.add(Code::InvalidValue, problem, &service.name, "rename the service");
                return None;
            }
        };
        let networks = service.networks.iter().map(|network| network.text.clone());
        let mut networks: Vec<String> = networks.collect();
        if networks.is_empty() {
            networks.push("default".to_owned());
        }
        let settings = &self.settings;
        Some(Planned {
            service: service.name.text.clone(),
            object,
            sidecar: name::sidecar(&service.name.text),
            pod,
            ports,
            permissive: settings.permissive,
            networks,
            profiles: service.profiles.iter().map(|profile| profile.text.clone()).collect(),
            interception: settings.interception,
            log_level: settings.log_level.clone(),
            traffic: settings.traffic.clone(),
        })
    }

    /// A sidecar shares the network namespace of its service, and reaches the control plane through
    /// it.
    fn check_namespace(&mut self) {
        let Some(mode) = &self.service.network_mode else {
            return;
        };
        let (why, help) = match mode.text.split_once(':').map_or(&*mode.text, |(kind, _)| kind) {
            "host" => (
                "a sidecar would intercept the traffic of the whole host",
                "remove `network_mode`, or",
            ),
            "none" => ("the service has no network", "remove `network_mode`, or"),
            "bridge" | "default" => (
                "its sidecar could not resolve the control plane's name there",
                "use `networks` instead, or",
            ),
            "service" => (
                "it already has another service's sidecar, which serves both",
                "list the ports of both in that service's label `topsail.io/ports`, and",
            ),
            "container" => (
                "it belongs to a container outside the project",
                "remove `network_mode`, or",
            ),
            _ => (
                "the owner of that network namespace is unknown",
                "remove `network_mode`, or",
            ),
        };
        let problem = format!(
            "`{}` has no network namespace that a sidecar could share: {why}",
            self.service.name.text
        );
        let help = format!("{help} exclude the service with the label `topsail.io/inject: \"false\"`");
        self.add(Code::UnsupportedNetworkMode, problem, mode, &help);
    }

    /// Compose resolves `network_mode: service:NAME` to a single container.
    fn check_replicas(&mut self) {
        let Some(replicas) = &self.service.replicas else {
            return;
        };
        let name = &self.service.name.text;
        let number = replicas.text.parse::<u32>().ok();
        if number.is_some_and(|number| number <= 1) {
            return;
        }
        let help = "make `topsail sidecar -- COMMAND` the entry point of the image, which brings a sidecar to every \
                    replica, and leave the service alone with the label `topsail.io/inject: \"false\"`";
        if number.is_some() {
            let problem = format!("`{name}` has several containers, and a sidecar can join the network of one only");
            self.add(Code::SeveralContainers, problem, replicas, help);
        } else if replicas.is_interpolated() {
            let problem = format!(
                "the number of containers of `{name}` depends on a variable: if there are several, the sidecar joins the \
                 network of one only"
            );
            let problem = Diagnostic::new(Code::SeveralContainers, problem).at(replicas.place.clone());
            let problem = problem.severity(crate::diag::Severity::Warning);
            self.problems.push(problem.help(help));
        } else {
            let problem = format!("`{}` is not a valid number of containers", replicas.text.escape_debug());
            self.add(Code::InvalidValue, problem, replicas, "write a number");
        }
    }

    fn check_user(&mut self) {
        let Some(user) = &self.service.user else { return };
        if user.text.split(':').any(|id| id == PROXY_ID) {
            let problem = format!(
                "`{}` runs as {}, which is how the sidecar's own connections are told: all that it sends would go round \
                 its sidecar",
                self.service.name.text, user.text
            );
            self.add(
                Code::BypassedSidecar,
                problem,
                user,
                "use another user and group than 1337",
            );
        }
    }

    /// A container with `NET_ADMIN` could remove the interception rules.
    fn check_capabilities(&mut self) {
        let capable = self.service.capabilities.iter().find(|capability| {
            let name = capability.text.to_ascii_uppercase();
            matches!(name.trim_start_matches("CAP_"), "NET_ADMIN" | "ALL")
        });
        let Some(spot) = capable.or(self.service.privileged.as_ref()) else {
            return;
        };
        let problem = format!(
            "`{}` is allowed to change the iptables rules that redirect its traffic to the sidecar",
            self.service.name.text
        );
        let problem = Diagnostic::new(Code::BypassedSidecar, problem).at(spot.place.clone());
        let problem = problem.severity(crate::diag::Severity::Warning);
        self.problems
            .push(problem.help("make sure that it does not change the chains whose names start with ISTIO_"));
    }

    /// Ports the service listens on: from the label, else `ports` and `expose`, else the image.
    fn ports(&mut self, exposed: &dyn Fn(&str) -> Option<Vec<u16>>) -> Vec<ListenPort> {
        let service = self.service;
        let stated = self.settings.ports.take();
        let is_stated = stated.is_some();
        let mut found: BTreeMap<u16, (ListenPort, Spot)> = BTreeMap::new();
        for (number, protocol, spot) in stated.into_iter().flatten() {
            let published = false;
            let port = ListenPort {
                number,
                protocol,
                published,
            };
            found.insert(number, (port, spot));
        }
        for (entry, published) in entries(service) {
            let Some(targets) = entry.targets.clone().filter(|_| entry.is_tcp) else {
                self.unknown_port(entry, is_stated);
                if published && entry.is_tcp {
                    // It may be any of the label's ports.
                    found.values_mut().for_each(|(port, _)| port.published = true);
                }
                continue;
            };
            let protocol = self.protocol(entry);
            for number in targets {
                if let Some((port, _)) = found.get_mut(&number) {
                    port.published |= published;
                    continue;
                }
                let port = ListenPort {
                    number,
                    protocol: protocol.unwrap_or_else(|| Protocol::of_port(number)),
                    published,
                };
                found.insert(number, (port, entry.spot.clone()));
            }
        }
        if found.is_empty() && !is_stated && !service.states_ports {
            self.image_ports(exposed, &mut found);
        }
        for (port, spot) in found.values() {
            if RESERVED.contains(&port.number) {
                let problem = format!(
                    "port {} of `{}` is reserved for its sidecar ({}–{})",
                    port.number,
                    service.name.text,
                    RESERVED.start(),
                    RESERVED.end()
                );
                let help = "change the port the application listens on";
                self.add(Code::ReservedPort, problem, spot, help);
            }
        }
        found.into_values().map(|(port, _)| port).collect()
    }

    fn protocol(&mut self, entry: &Port) -> Option<Protocol> {
        let named = entry.app_protocol.as_ref()?;
        let protocol = Protocol::of_name(&named.text);
        if protocol.is_none() {
            self.problems.push(label::unknown_protocol(&named.text, named));
        }
        protocol
    }

    fn unknown_port(&mut self, entry: &Port, is_stated: bool) {
        let name = &self.service.name.text;
        if !entry.is_tcp {
            let problem = format!("a port of `{name}` that is not TCP does not pass through the sidecar");
            let problem = Diagnostic::new(Code::UnknownPort, problem).at(entry.spot.place.clone());
            self.problems.push(problem.severity(crate::diag::Severity::Info));
        } else if !is_stated {
            let problem = format!("this port of `{name}` contains a variable, which only Compose can resolve");
            let help = "specify the ports the application listens on with a label, for example \
                        `topsail.io/ports: \"8080\"`";
            let problem = Diagnostic::new(Code::UnknownPort, problem).at(entry.spot.place.clone());
            let problem = problem.severity(crate::diag::Severity::Error);
            self.problems.push(problem.help(help));
        }
    }

    /// Ports exposed by the image, or known for its name.
    fn image_ports(
        &mut self,
        exposed: &dyn Fn(&str) -> Option<Vec<u16>>,
        found: &mut BTreeMap<u16, (ListenPort, Spot)>,
    ) {
        let image = self.service.image.as_ref().filter(|image| !image.is_interpolated());
        let numbers = image.and_then(|image| {
            let known = || Some(image::ports(&image.text)?.to_vec());
            exposed(&image.text).filter(|ports| !ports.is_empty()).or_else(known)
        });
        let (Some(image), Some(numbers)) = (image, numbers.filter(|numbers| !numbers.is_empty())) else {
            let name = &self.service.name;
            let problem = format!(
                "the ports of `{}` are unknown: clients cannot reach it through its sidecar",
                name.text
            );
            let problem = Diagnostic::new(Code::UnknownPort, problem).at(name.place.clone());
            let help = "specify them with the label `topsail.io/ports`, for example \"8080\", or \"none\"";
            self.problems.push(problem.help(help));
            return;
        };
        for number in numbers {
            let port = ListenPort {
                number,
                protocol: Protocol::of_port(number),
                published: false,
            };
            found.insert(number, (port, image.clone()));
        }
    }

    fn add(&mut self, code: Code, problem: String, spot: &Spot, help: &str) {
        let problem = Diagnostic::new(code, problem).at(spot.place.clone());
        self.problems.push(problem.help(help));
    }
}

/// Entries of `ports` and `expose`, and whether each is from `ports`.
fn entries(service: &Service) -> impl Iterator<Item = (&Port, bool)> {
    let published = service.ports.iter().map(|port| (port, true));
    published.chain(service.expose.iter().map(|port| (port, false)))
}

/// Checks for services with names used by the override, and for services that map to the same
/// objects.
fn check_names(project: &Project, plan: &Plan, problems: &mut Vec<Diagnostic>) {
    let own = plan.meshed.iter().flat_map(|planned| {
        let pod = planned.pod.as_ref().ok().map(|pod| &*pod.name);
        [Some(&*planned.sidecar), pod].into_iter().flatten()
    });
    let taken: Vec<&str> = [name::SERVER, name::INIT].into_iter().chain(own).collect();
    for service in &project.services {
        if taken.contains(&&*service.name.text) {
            let problem = format!(
                "`{}` is the name of a service added by `topsail inject`",
                service.name.text
            );
            let problem = Diagnostic::new(Code::ReservedName, problem).at(service.name.place.clone());
            problems.push(problem.help("rename the service"));
        }
    }
    let place = |planned: &Planned| {
        project
            .service(&planned.service)
            .map(|service| service.name.place.clone())
    };
    for (at, planned) in plan.meshed.iter().enumerate() {
        let Some(first) = plan.meshed[..at].iter().find(|first| first.object == planned.object) else {
            continue;
        };
        let problem = format!(
            "`{}` and `{}` would both be named `{}` in the mesh",
            first.service, planned.service, planned.object
        );
        let mut problem = Diagnostic::new(Code::ReservedName, problem);
        if let Some(place) = place(planned) {
            problem = problem.at(place);
        }
        if let Some(place) = place(first) {
            problem = problem.label(place, "the other service");
        }
        problems.push(problem.help("rename one of them"));
    }
}
