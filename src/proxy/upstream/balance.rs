//! The choice of a host: first a priority, then a locality, then a host by the cluster's policy.

pub(crate) mod outlier;
mod policy;

use std::sync::Arc;

use super::cluster::{Cluster, LbPolicy};
use super::host::Host;
use policy::Picker;

/// What a choice goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// The hash that consistent hashing goes by; chance if there is none.
    pub(crate) hash: Option<u64>,
    /// Hosts that were tried already, and how often another is looked for.
    pub(crate) avoid: (&'a [Arc<Host>], u32),
}

/// How a host is chosen of a [`HostSet`](super::host::HostSet).
#[derive(Debug)]
pub(crate) struct Balancer {
    priorities: Vec<Picker>,
}

impl Balancer {
    /// A balancer for these hosts, which are sorted by priority.
    pub(crate) fn new(policy: LbPolicy, hosts: &[Arc<Host>]) -> Self {
        let groups = hosts.chunk_by(|a, b| a.priority == b.priority);
        Self {
            priorities: groups.map(|group| Picker::new(policy, group)).collect(),
        }
    }

    /// A host; none if there is none that may be chosen.
    pub(crate) fn choose(&self, choice: &Choice<'_>) -> Option<Arc<Host>> {
        let picker = self.priorities.iter().find(|picker| !picker.is_empty())?;
        let (tried, attempts) = choice.avoid;
        let mut host = picker.pick(choice.hash)?;
        for _ in 1..attempts {
            if !tried.iter().any(|one| one.address == host.address) {
                break;
            }
            host = picker.pick(choice.hash)?;
        }
        Some(host)
    }
}

impl Cluster {
    /// A host for a request or connection.
    pub(crate) fn choose(&self, choice: &Choice<'_>) -> Option<Arc<Host>> {
        self.hosts.load().balancer.choose(choice)
    }
}
