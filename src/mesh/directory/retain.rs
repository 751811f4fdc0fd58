//! Retained targets: removed from the directory, but still served because something refers to them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::Directory;
use super::entry::{InForce, Kept};
use super::reference::port;
use crate::api::Object;
use crate::mesh::destination_rule::{DestinationRule, PolicyWithPorts, Subset, TrafficPolicy};
use crate::mesh::lower::service::{ServiceSource, SourcePort};
use crate::mesh::lower::{Context, endpoint_slice::EndpointSource, lower};
use crate::mesh::service::ServiceKey;
use crate::mesh::store::covering_hosts;
use crate::name::{Hostname, ObjectId};

/// The target of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A service.
    Host(Hostname),
    /// A port of a service.
    Port(Hostname, u16),
    /// A subset of a service.
    Subset(Hostname, Arc<str>),
}

/// Why an object is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is in force.
    InForce,
    /// It defined this target, which was removed while routes still refer to it.
    Retained(Target),
}

/// A removed target.
#[derive(Clone, Debug)]
pub(super) struct Retained {
    /// The objects that defined it, in their last form that did.
    pub(super) objects: Vec<InForce>,
    /// The VirtualServices in force that refer to it.
    pub(super) referrers: OrdSet<ObjectId>,
}

impl Retained {
    /// Lowers the objects again with other settings.
    pub(super) fn lowered_again(self, context: &Context) -> Self {
        let objects = self.objects.into_iter();
        Self {
            objects: objects.filter_map(|object| object.lowered_again(context)).collect(),
            ..self
        }
    }
}

/// The objects that must be kept for retained targets.
pub(super) fn kept(retained: &OrdMap<Target, Retained>) -> impl Iterator<Item = Kept> {
    retained.iter().flat_map(|(target, retained)| {
        retained.objects.iter().map(|in_force| Kept {
            object: in_force.object.clone(),
            why: Why::Retained(target.clone()),
        })
    })
}

/// Restores retained targets from kept objects, without referrers yet.
pub(super) fn restore(kept: &[Kept], context: &Context) -> OrdMap<Target, Retained> {
    let mut retained: OrdMap<Target, Retained> = OrdMap::new();
    for Kept { object, why } in kept {
        let Why::Retained(target) = why else { continue };
        if let Some(in_force) = lowered(object, context) {
            let entry = retained.entry(target.clone()).or_insert_with(|| Retained {
                objects: Vec::new(),
                referrers: OrdSet::new(),
            });
            entry.objects.push(in_force);
        }
    }
    retained
}

fn lowered(object: &Arc<Object>, context: &Context) -> Option<InForce> {
    Some(InForce {
        object: object.clone(),
        form: lower(object, context).value?,
    })
}

impl Directory {
    /// The objects that define a target, retained ones included.
    pub(super) fn definition(&self, target: &Target) -> Vec<InForce> {
        if let Some(retained) = self.retained.get(target) {
            return retained.objects.clone();
        }
        let ids: Vec<ObjectId> = match target {
            Target::Host(host) => self.host_definition(host),
            Target::Port(host, number) => {
                let sources = self
                    .sources_named(host)
                    .filter(|source| port(source, *number).is_some());
                sources.map(|source| source.id.clone()).collect()
            }
            Target::Subset(host, name) => self.subset_rules(host, name).into_iter().cloned().collect(),
        };
        let entries = ids.iter().filter_map(|id| self.entry(id));
        entries.filter_map(|entry| entry.in_force.clone()).collect()
    }

    /// The definitions of a host's services and their EndpointSlices.
    fn host_definition(&self, host: &Hostname) -> Vec<ObjectId> {
        let keys = self.index.namespaces.get(host).map(|namespace| ServiceKey {
            host: host.clone(),
            namespace: namespace.clone(),
        });
        let mut ids: Vec<ObjectId> = keys
            .flat_map(|key| {
                self.index
                    .sources
                    .get(&key)
                    .map(|source| source.id.clone())
                    .collect::<Vec<_>>()
            })
            .collect();
        for index in 0..ids.len() {
            let slices = self
                .index
                .slices
                .get(&(ids[index].namespace.clone(), ids[index].name.clone()));
            ids.extend(slices.cloned().collect::<Vec<_>>());
        }
        ids
    }

    /// Definitions of retained services; usually few.
    pub(super) fn retained_hosts(&self) -> impl Iterator<Item = &Arc<ServiceSource>> {
        let hosts = self
            .retained
            .iter()
            .filter(|(target, _)| matches!(target, Target::Host(_)));
        let objects = hosts.flat_map(|(_, retained)| &retained.objects);
        objects.filter_map(|in_force| in_force.form.service())
    }

    /// Retained definitions of a service.
    pub(super) fn retained_sources(&self, key: &ServiceKey) -> Vec<&Arc<ServiceSource>> {
        let objects = self.retained_objects(&Target::Host(key.host.clone()));
        let sources = objects.filter_map(|in_force| in_force.form.service());
        sources.filter(|source| source.keys.contains(key)).collect()
    }

    /// Retained EndpointSlices of a service.
    pub(super) fn retained_slices(&self, key: &ServiceKey) -> Vec<&Arc<EndpointSource>> {
        let objects = self.retained_objects(&Target::Host(key.host.clone()));
        let slices = objects.filter_map(|in_force| in_force.form.endpoints());
        slices.filter(|slice| slice.id.namespace == key.namespace).collect()
    }

    fn retained_objects<'d>(&'d self, target: &Target) -> impl Iterator<Item = &'d InForce> + use<'d> {
        self.retained
            .get(target)
            .into_iter()
            .flat_map(|retained| &retained.objects)
    }

    /// Retained ports of a host.
    pub(super) fn retained_ports(&self, host: &Hostname) -> Vec<&SourcePort> {
        let from = Target::Port(host.clone(), 0);
        let targets = self
            .retained
            .range(from..)
            .map_while(|(target, retained)| match target {
                Target::Port(other, number) if other == host => Some((*number, retained)),
                Target::Port(..) | Target::Host(_) | Target::Subset(..) => None,
            });
        let ports = targets.filter_map(|(number, retained)| {
            let mut sources = retained.objects.iter().filter_map(|in_force| in_force.form.service());
            sources.find_map(|source| port(source, number))
        });
        ports.collect()
    }

    /// Retained subsets of a DestinationRule: the host each is served for, the last form of the
    /// rule that had it, and the subset.
    pub(super) fn retained_subsets(&self, id: &ObjectId) -> Vec<(Hostname, Arc<DestinationRule>, Subset)> {
        let mut found = Vec::new();
        for (target, retained) in &self.retained {
            let Target::Subset(host, name) = target else { continue };
            for in_force in retained.objects.iter().filter(|in_force| in_force.object.id == *id) {
                if let Some(rule) = in_force.form.destination_rule()
                    && let Some(subset) = rule.subsets.iter().find(|subset| subset.name == *name)
                {
                    found.push((self.asked_for(host, rule), rule.clone(), subset.clone()));
                }
            }
        }
        found
    }

    /// The most specific host, among DestinationRules in the namespace of `rule`, that matches
    /// `host`; that of `rule` itself if no other is more specific.
    fn asked_for(&self, host: &Hostname, rule: &DestinationRule) -> Hostname {
        let is_asked = |candidate: &Hostname| {
            let mut ids = self.index.rules.get(candidate);
            *candidate == rule.host || ids.any(|id| id.namespace == rule.id.namespace)
        };
        covering_hosts(host).find(is_asked).unwrap_or_else(|| rule.host.clone())
    }
}

/// A subset merged with the policy of its rule, to outlive the rule.
pub(super) fn folded(subset: &Subset, parent: &PolicyWithPorts) -> Subset {
    let own = &subset.policy.policy;
    let own_ports = subset.policy.ports.iter().cloned();
    let inherited = parent
        .ports
        .iter()
        .filter(|(number, _)| !subset.policy.ports.iter().any(|(other, _)| other == number))
        .map(|(number, policy)| (*number, over(own, policy)));
    Subset {
        policy: PolicyWithPorts {
            policy: over(own, &parent.policy),
            ports: own_ports.chain(inherited).collect(),
        },
        ..subset.clone()
    }
}

/// The blocks of `own`, falling back to those of `parent`.
fn over(own: &TrafficPolicy, parent: &TrafficPolicy) -> TrafficPolicy {
    let own = own.clone();
    TrafficPolicy {
        load_balancer: own.load_balancer.or_else(|| parent.load_balancer.clone()),
        connection_pool: own.connection_pool.or_else(|| parent.connection_pool.clone()),
        outlier_detection: own.outlier_detection.or_else(|| parent.outlier_detection.clone()),
        tls: own.tls.or_else(|| parent.tls.clone()),
        proxy_protocol: own.proxy_protocol.or(parent.proxy_protocol),
    }
}
