//! Maps that usually hold a single entry.

use std::fmt;

use imbl::OrdMap;

/// A persistent sorted map that stores a single entry inline. A node of [`OrdMap`] has room for
/// sixteen entries, which adds up when every host, address or object of a mesh has a map.
#[derive(Clone)]
pub(crate) enum SmallMap<K, V = ()> {
    /// A single entry.
    One(K, V),
    /// Zero or several entries.
    Many(OrdMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Many(OrdMap::new())
    }
}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for SmallMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(key, value) => f.debug_map().entry(key, value).finish(),
            Self::Many(map) => map.fmt(f),
        }
    }
}

impl<K: Ord + Clone, V: Clone> SmallMap<K, V> {
    /// Inserts a value, replacing one with the same key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        *self = match std::mem::take(self) {
            Self::One(known, _) if known == key => Self::One(key, value),
            Self::One(known, its) => Self::Many([(known, its), (key, value)].into_iter().collect()),
            Self::Many(map) if map.is_empty() => Self::One(key, value),
            Self::Many(mut map) => {
                map.insert(key, value);
                Self::Many(map)
            }
        }
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, key: &K) {
        *self = match std::mem::take(self) {
            Self::One(known, _) if known == *key => Self::default(),
            one @ Self::One(..) => one,
            Self::Many(mut map) => {
                map.remove(key);
                match map.get_min().filter(|_| map.len() == 1) {
                    Some((key, value)) => Self::One(key.clone(), value.clone()),
                    None => Self::Many(map),
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(map) => map.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, ordered by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (one, many) = match self {
            Self::One(key, value) => (Some((key, value)), None),
            Self::Many(map) => (None, Some(map.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, ordered by key.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn few_behaves_like_a_sorted_map() {
        let (mut few, mut map) = (SmallMap::default(), BTreeMap::new());
        for (key, put) in [
            (3, true),
            (3, true),
            (1, true),
            (2, true),
            (9, false),
            (3, false),
            (1, false),
            (2, false),
            (2, false),
        ] {
            let value = map.len();
            match put {
                true => {
                    few.insert(key, value);
                    map.insert(key, value);
                }
                false => {
                    few.remove(&key);
                    map.remove(&key);
                }
            }
            assert!(few.iter().eq(&map), "{few:?} {map:?}");
            assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
            assert_eq!(matches!(few, SmallMap::One(..)), map.len() == 1);
        }
    }
}
