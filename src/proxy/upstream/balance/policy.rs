//! One priority's hosts and how one of them is picked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::proxy::upstream::cluster::LbPolicy;
use crate::proxy::upstream::host::Host;

/// Picks a host of one priority.
#[derive(Debug)]
pub(super) struct Picker {
    policy: LbPolicy,
    healthy: Vec<Arc<Host>>,
    next: AtomicUsize,
}

impl Picker {
    pub(super) fn new(policy: LbPolicy, hosts: &[Arc<Host>]) -> Self {
        Self {
            policy,
            healthy: hosts.iter().filter(|host| host.healthy()).cloned().collect(),
            // Not every proxy of a mesh begins with the same host.
            next: AtomicUsize::new(fastrand::usize(..)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.healthy.is_empty()
    }

    pub(super) fn pick(&self, _hash: Option<u64>) -> Option<Arc<Host>> {
        match self.policy {
            LbPolicy::LeastRequest { choices } => self.least_request(choices),
            LbPolicy::Random => self.any().cloned(),
            LbPolicy::RoundRobin | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } | LbPolicy::ClusterProvided => {
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                self.healthy.get(next % self.healthy.len().max(1)).cloned()
            }
        }
    }

    fn any(&self) -> Option<&Arc<Host>> {
        (!self.healthy.is_empty()).then(|| &self.healthy[fastrand::usize(..self.healthy.len())])
    }

    fn least_request(&self, choices: u32) -> Option<Arc<Host>> {
        let active = |host: &&Arc<Host>| host.state.active.load(Ordering::Relaxed);
        (0..choices.max(1))
            .filter_map(|_| self.any())
            .min_by_key(active)
            .cloned()
    }
}
