//! What is wrong with an object in view of the others.

mod policy;
mod routes;
mod rule;
mod service;
mod sidecar;

use super::Directory;
use super::edit::Edit;
use crate::mesh::lower::Finding;
use crate::name::{Kind, ObjectId};

impl Edit<'_> {
    /// Checks every object again that may have something to be said about it now.
    pub(super) fn check(&mut self) {
        let ids = self.recheck.iter().chain(&self.routes).chain(&self.changed);
        let ids: std::collections::BTreeSet<ObjectId> = ids.cloned().collect();
        for id in &ids {
            let found = self.new.check(id);
            if self.new.entry(id).is_some_and(|entry| entry.cross != found) {
                self.update(id, |entry| entry.cross = found);
            }
        }
        self.recheck = ids;
    }
}

impl Directory {
    /// Only what is written without error is checked: the rest has been told of already.
    fn check(&self, id: &ObjectId) -> Vec<Finding> {
        let Some(written) = self.entry(id).and_then(|entry| entry.candidate()) else {
            return Vec::new();
        };
        match id.kind {
            Kind::VirtualService => routes::check(self, &written),
            Kind::DestinationRule => rule::check(self, &written),
            Kind::ServiceEntry | Kind::Service => service::check(self, &written),
            Kind::Sidecar => sidecar::check(self, &written),
            Kind::PeerAuthentication => policy::check(self, &written),
            Kind::ConfigMap | Kind::EndpointSlice | Kind::Endpoints | Kind::WorkloadEntry => Vec::new(),
        }
    }
}
