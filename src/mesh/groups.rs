//! A persistent multimap.

use std::fmt;

use imbl::OrdMap;

use super::few::SmallMap;
use crate::name::Hostname;

/// A persistent map from keys to non-empty sets.
#[derive(Clone)]
pub(crate) struct Groups<K, V>(OrdMap<K, SmallMap<V>>);

impl<K: Ord + fmt::Debug, V: Ord + fmt::Debug> fmt::Debug for Groups<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Groups<K, V> {
    /// Adds a value.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.entry(key).or_default().insert(value, ());
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, key: &K, value: &V) {
        let Some(values) = self.0.get_mut(key) else { return };
        values.remove(value);
        if values.is_empty() {
            self.0.remove(key);
        }
    }

    /// The values of a key, sorted.
    pub(crate) fn get<'g>(&'g self, key: &K) -> impl Iterator<Item = &'g V> + use<'g, K, V> {
        self.0.get(key).into_iter().flat_map(|values| values.keys())
    }

    /// Whether a key has any values.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Number of values of a key.
    pub(crate) fn len(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, SmallMap::len)
    }

    /// The keys, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

impl<V: Ord + Clone> Groups<Hostname, V> {
    /// Values of the hosts that `host` matches. For a host without wildcard this is a single
    /// look-up.
    pub(crate) fn covered_by<'g>(&'g self, host: &'g Hostname) -> impl Iterator<Item = &'g V> {
        let exact = (!host.is_wildcard()).then(|| self.get(host));
        let covered = host.is_wildcard().then(|| {
            let hosts = self.keys().filter(|known| host.covers(known));
            hosts.flat_map(|known| self.get(known))
        });
        exact.into_iter().flatten().chain(covered.into_iter().flatten())
    }
}
