//! Slots: named places whose value is replaced as a whole.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

/// The slot of a named resource. It exists as soon as anything refers to the resource, filled or not, so that the
/// referrer need not change when the resource arrives, changes or goes.
///
/// The control thread writes; workers read without a lock.
pub(crate) struct Slot<T> {
    name: Arc<str>,
    value: ArcSwapOption<T>,
}

impl<T> Slot<T> {
    /// An empty slot.
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            value: ArcSwapOption::empty(),
        }
    }

    /// A filled slot.
    pub(crate) fn filled(name: impl Into<Arc<str>>, value: Arc<T>) -> Self {
        let slot = Self::new(name);
        slot.set(Some(value));
        slot
    }

    /// The resource's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The current value, for a short look.
    pub(crate) fn get(&self) -> Guard<Option<Arc<T>>> {
        self.value.load()
    }

    /// The current value, to keep.
    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        self.value.load_full()
    }

    /// Replaces the value.
    pub(crate) fn set(&self, value: Option<Arc<T>>) {
        self.value.store(value);
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.value.load().is_some() { "filled" } else { "empty" };
        write!(f, "`{}` ({state})", self.name)
    }
}
