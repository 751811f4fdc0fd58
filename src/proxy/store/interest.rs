//! What to ask the server for: it follows from what is there.

use std::collections::BTreeSet;

use super::{Name, Store};
use crate::xds::ResourceType;
use crate::xds::client::Interest;

impl Store {
    /// What is wanted of a type now. Clusters come first, and listeners only when the clusters are warm, so that nothing
    /// is accepted that could not be forwarded.
    pub(crate) fn interest(&self, kind: ResourceType) -> Interest {
        match kind {
            ResourceType::Cluster => Interest::All,
            ResourceType::Listener if self.progress.clusters_warm => Interest::All,
            ResourceType::Listener => Interest::None,
            ResourceType::Endpoints => {
                let names = self.clusters.values().flat_map(|entry| entry.endpoint_names());
                Interest::Names(names.cloned().collect())
            }
            ResourceType::Route => Interest::Names(self.names.routes.named().cloned().collect()),
            ResourceType::Secret => {
                let secrets = self.names.certificates.named().chain(self.names.trust.named());
                Interest::Names(secrets.cloned().collect())
            }
        }
    }

    /// Forgets what nothing names any more.
    pub(crate) fn sweep(&mut self) {
        self.names.routes.clear_unnamed();
        self.names.certificates.clear_unnamed();
        self.names.trust.clear_unnamed();
        self.names.sweep();
        let Self {
            clusters,
            names,
            routes,
            endpoints,
            secrets,
            ..
        } = self;
        let wanted: BTreeSet<Name> = clusters
            .values()
            .flat_map(|entry| entry.endpoint_names())
            .cloned()
            .collect();
        endpoints.retain(|name, _| wanted.contains(name));
        routes.retain(|name, _| names.routes.get(name).is_some());
        secrets.retain(|name, ()| names.certificates.get(name).is_some() || names.trust.get(name).is_some());
    }
}
