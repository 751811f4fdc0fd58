//! Which resources to subscribe to, which follows from those there are.

use std::collections::BTreeSet;

use super::{Name, Store};
use crate::proxy::config::source::SecretSource;
use crate::xds::ResourceType;
use crate::xds::client::Subscription;

impl Store {
    /// The subscription for a type. Clusters come first, and listeners only when the clusters are live, so that no
    /// request is accepted that could not be forwarded.
    pub(crate) fn interest(&self, kind: ResourceType) -> Subscription {
        match kind {
            ResourceType::Cluster => Subscription::All,
            ResourceType::Listener if self.progress.clusters_warm => Subscription::All,
            ResourceType::Listener => Subscription::None,
            ResourceType::Endpoints => {
                let names = self.clusters.values().flat_map(|entry| entry.endpoint_names());
                Subscription::Names(names.cloned().collect())
            }
            ResourceType::Route => Subscription::Names(self.names.routes.named().cloned().collect()),
            ResourceType::Secret => self.secret_interest(&SecretSource::Ads),
        }
    }

    /// Drops what is no longer referred to.
    pub(crate) fn sweep(&mut self) {
        self.names.routes.clear_unnamed();
        self.names.secrets.clear_unnamed();
        self.names.sweep();
        let Self {
            clusters,
            names,
            routes,
            endpoints,
            ..
        } = self;
        let wanted: BTreeSet<Name> = clusters
            .values()
            .flat_map(|entry| entry.endpoint_names())
            .cloned()
            .collect();
        endpoints.retain(|name, _| wanted.contains(name));
        routes.retain(|name, _| names.routes.get(name).is_some());
    }
}
