//! A view of the store for `/config_dump` and `/init_dump`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Name, Store};
use crate::xds::ResourceType;

/// A resource in the store.
#[derive(Clone, Debug)]
pub(crate) struct StoredResource {
    /// Its type.
    pub(crate) kind: ResourceType,
    /// Its name.
    pub(crate) name: Name,
    /// Its message; empty for secrets.
    pub(crate) body: Bytes,
    /// Whether it is static.
    pub(crate) fixed: bool,
    /// Whether no version of it is live yet.
    pub(crate) warming: bool,
}

/// A warming cluster or listener.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<'a> {
    /// Cluster or listener.
    pub(crate) kind: ResourceType,
    /// Its name.
    pub(crate) name: &'a Name,
    /// What it waits for. Endpoints with a cluster's own name may stand for DNS resolution.
    pub(crate) missing: Vec<(ResourceType, &'a Name)>,
}

impl Store {
    /// All resources.
    pub(crate) fn seen(&self) -> Vec<StoredResource> {
        let clusters = self.clusters.iter().map(|(name, entry)| StoredResource {
            kind: ResourceType::Cluster,
            name: name.clone(),
            body: entry.bytes().clone(),
            fixed: entry.is_fixed(),
            warming: entry.live().is_none(),
        });
        let listeners = self.listeners.iter().map(|(name, entry)| StoredResource {
            kind: ResourceType::Listener,
            name: name.clone(),
            body: entry.bytes().clone(),
            fixed: entry.is_fixed(),
            warming: entry.live().is_none(),
        });
        let plain = |kind, name: &Name, body| StoredResource {
            kind,
            name: name.clone(),
            body,
            fixed: false,
            warming: false,
        };
        let routes = self.routes.iter();
        let routes = routes.map(|(name, body)| plain(ResourceType::Route, name, body.clone()));
        let secrets: BTreeSet<_> = self.names.secrets.present().collect();
        let secrets = secrets
            .into_iter()
            .map(|name| plain(ResourceType::Secret, name, Bytes::new()));
        clusters.chain(listeners).chain(routes).chain(secrets).collect()
    }

    /// The number of clusters or listeners that are warming.
    pub(crate) fn unready(&self, kind: ResourceType) -> usize {
        match kind {
            ResourceType::Cluster => self.warming.clusters.len(),
            ResourceType::Listener => self.warming.listeners.len(),
            ResourceType::Endpoints | ResourceType::Secret | ResourceType::Route => 0,
        }
    }

    /// What the warming ones wait for.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Waiting<'_>> {
        let clusters = self.warming.clusters.iter().filter_map(|name| {
            let missing = self.clusters.get(name)?.missing();
            Some(Waiting {
                kind: ResourceType::Cluster,
                name,
                missing,
            })
        });
        let listeners = self.warming.listeners.iter().filter_map(|name| {
            let missing = self.listeners.get(name)?.missing();
            Some(Waiting {
                kind: ResourceType::Listener,
                name,
                missing,
            })
        });
        clusters.chain(listeners)
    }
}
